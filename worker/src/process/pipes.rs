//! The pipes between a process and the worker: output is read to its end, input is written beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use shared::event::Stream;
use shared::output::More;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::publisher::{Item, Sender};

/// What a pipe holds at most (`/proc/sys/fs/pipe-max-size`): so much is read after giving up on it, and
/// no more, or somebody who escaped and goes on writing would keep the execution from its end.
const PIPE_BYTES: usize = 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// What is left of a buffer is used up to here; then a new one is begun.
const SMALLEST_READ_BYTES: usize = 4 * 1024;

/// When a process was last heard of.
pub(crate) struct Activity {
    base: Instant,
    last_ms: AtomicU64,
    /// Pumps that wait for the publisher: then the silence is not the process's.
    blocked: AtomicUsize,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            base: Instant::now(),
            last_ms: AtomicU64::new(0),
            blocked: AtomicUsize::new(0),
        })
    }

    /// Now.
    pub(crate) fn touch(&self) {
        let elapsed = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    /// Returns once there has been nothing for `length`.
    pub(crate) async fn silence_of(&self, length: Duration) {
        loop {
            if self.blocked.load(Ordering::Relaxed) > 0 {
                self.touch();
            }
            let last = self.base + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            if last.elapsed() >= length {
                return;
            }
            tokio::time::sleep_until(last + length).await;
        }
    }
}

/// Where the pipes of a process lead.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub(crate) task: Option<usize>,
    pub(crate) sender: Sender,
    pub(crate) activity: Arc<Activity>,
    /// Read what is there, and wait for nothing more.
    pub(crate) give_up: CancellationToken,
}

/// One output pipe.
pub(crate) struct Pump<R> {
    pipe: R,
    stream: Stream,
    outlet: Outlet,
    /// Whether the last piece may end in the middle of a line whose rest is about to come.
    holds_back: bool,
}

impl<R: AsyncRead + Unpin> Pump<R> {
    pub(crate) fn new(pipe: R, stream: Stream, outlet: Outlet) -> Self {
        Self {
            pipe,
            stream,
            outlet,
            holds_back: false,
        }
    }

    /// Reads to the end and passes everything on.
    pub(crate) async fn run(mut self) {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut left_over = 0;
        while left_over < PIPE_BYTES {
            if buffer.capacity() < SMALLEST_READ_BYTES {
                buffer.reserve(READ_BYTES);
            }
            let room = buffer.capacity();
            let Some(read) = self.read(&mut buffer).await else {
                break;
            };
            self.holds_back = read == room;
            let more = if self.holds_back {
                More::AtOnce
            } else {
                More::Perhaps
            };
            self.pass_on(buffer.split().freeze(), more).await;
            if self.outlet.give_up.is_cancelled() {
                left_over += read;
            }
        }
        self.pass_on(Bytes::new(), More::Never).await;
    }

    /// How many bytes have been read; none at the end.
    async fn read(&mut self, buffer: &mut BytesMut) -> Option<usize> {
        let at_once = self.pipe.read_buf(buffer).now_or_never();
        let read = if let Some(read) = at_once {
            read
        } else {
            self.show_what_is_held_back().await;
            tokio::select! {
                biased;
                read = self.pipe.read_buf(buffer) => read,
                () = self.outlet.give_up.cancelled() => return None,
            }
        };
        // A read error of a pipe leaves nothing to be read.
        let read = read.ok().filter(|&read| read > 0)?;
        self.outlet.activity.touch();
        Some(read)
    }

    /// The pipe is empty: the beginning of a line that waits for its rest is all there is.
    async fn show_what_is_held_back(&mut self) {
        if std::mem::take(&mut self.holds_back) {
            self.pass_on(Bytes::new(), More::Perhaps).await;
        }
    }

    async fn pass_on(&self, bytes: Bytes, more: More) {
        let item = Item::Output {
            stream: self.stream,
            task: self.outlet.task,
            bytes,
            more,
        };
        let blocked = &self.outlet.activity.blocked;
        blocked.fetch_add(1, Ordering::Relaxed);
        self.outlet.sender.send(item).await;
        blocked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes a process's input and closes it. The process need not read it.
pub(crate) async fn feed(mut stdin: impl AsyncWrite + Unpin, bytes: impl AsRef<[u8]>) {
    // A process that has closed its input, or has gone, did not want the rest.
    if stdin.write_all(bytes.as_ref()).await.is_ok() {
        let _ = stdin.shutdown().await;
    }
}
