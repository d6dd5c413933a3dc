//! A proxy that lets only so many bytes a second through to a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A piece that is let through at once.
const PIECE_BYTES: usize = 16 * 1024;

/// The proxy, until it is dropped.
pub struct SlowProxy {
    directory: TempDir,
    passed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl SlowProxy {
    /// Starts one in front of the server at `socket`. What the server answers is not slowed down.
    pub fn start(socket: PathBuf, bytes_per_second: u64) -> Self {
        let directory = TempDir::new().expect("a directory can be made");
        let listener = UnixListener::bind(path(directory.path())).expect("the socket is free");
        let passed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&passed);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&socket).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let counter = Arc::clone(&counter);
                connections.spawn(async move {
                    tokio::select! {
                        () = pass(from_client, to_server, Some((&counter, bytes_per_second))) => {}
                        () = pass(from_server, to_client, None) => {}
                    }
                });
            }
        });
        Self {
            directory,
            passed,
            _tasks: tasks,
        }
    }

    /// Where clients of Redis find it.
    pub fn url(&self) -> String {
        format!("unix://{}", path(self.directory.path()).display())
    }

    /// How many bytes have gone through to the server.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("slow.sock")
}

/// Passes everything on, at this pace if there is one. All connections together share it.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    pace: Option<(&AtomicU64, u64)>,
) {
    let begun = Instant::now();
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if let Some((passed, bytes_per_second)) = pace {
            let all = passed.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
            let due = Duration::from_micros(all * 1_000_000 / bytes_per_second);
            tokio::time::sleep_until(begun + due).await;
        }
    }
}
