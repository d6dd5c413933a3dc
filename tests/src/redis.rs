//! A Redis server of a test's own: on a Unix socket in a temporary directory, ready in about 15 ms,
//! and gone with the test.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificate::Authority;

/// Longer than any server takes to start.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A running server, killed on drop.
pub struct RedisServer {
    directory: TempDir,
    options: Vec<String>,
    tls_port: Option<u16>,
    process: Child,
}

impl RedisServer {
    /// Starts a server that writes down what it acknowledges before it does.
    pub fn start() -> Self {
        Self::start_with(directory(), Vec::new(), None)
    }

    /// Starts a server that also speaks TLS, with a certificate from `authority`.
    pub fn start_with_tls(authority: &Authority) -> Self {
        let directory = directory();
        let certificate = authority.issue("localhost", directory.path());
        let port = free_port();
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let options = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", path(certificate.certificate)),
            ("--tls-key-file", path(certificate.key)),
            ("--tls-ca-cert-file", path(authority.certificate())),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        let options = options
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        Self::start_with(directory, options.collect(), Some(port))
    }

    fn start_with(directory: TempDir, options: Vec<String>, tls_port: Option<u16>) -> Self {
        let process = spawn(&directory, &options);
        let mut server = Self {
            directory,
            options,
            tls_port,
            process,
        };
        server.wait_until_ready();
        server
    }

    /// Where it is, for `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Where it is for those who speak TLS.
    pub fn tls_url(&self) -> String {
        let port = self.tls_port.expect("was started with TLS");
        format!("rediss://localhost:{port}")
    }

    /// Ends it without a chance to tidy up.
    pub fn kill9(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("its end is seen");
    }

    /// Starts it again, on the same socket and with the same data.
    pub fn restart(&mut self) {
        self.kill9();
        self.process = spawn(&self.directory, &self.options);
        self.wait_until_ready();
    }

    /// A connection for looking behind the store's back.
    pub fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("is a URL of Redis");
        client.get_connection().expect("the server is there")
    }

    /// The names of all keys, in order.
    pub fn keys(&self) -> Vec<String> {
        let keys: redis::RedisResult<Vec<String>> =
            redis::cmd("KEYS").arg("*").query(&mut self.connect());
        let mut keys = keys.expect("lists the keys");
        keys.sort();
        keys
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    fn wait_until_ready(&mut self) {
        let end = Instant::now() + START_DEADLINE;
        while !self.answers_ping() {
            if let Some(status) = self.process.try_wait().expect("can be asked after") {
                let log = std::fs::read_to_string(self.directory.path().join("log"));
                panic!(
                    "redis-server ended with {status}: {}",
                    log.unwrap_or_default()
                );
            }
            assert!(Instant::now() < end, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn answers_ping(&self) -> bool {
        let Ok(mut socket) = UnixStream::connect(self.socket()) else {
            return false;
        };
        let mut answer = [0; 7];
        let asked = socket
            .write_all(b"PING\r\n")
            .and_then(|()| socket.read_exact(&mut answer));
        // While it loads its data it answers, but not with this.
        asked.is_ok() && &answer == b"+PONG\r\n"
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn directory() -> TempDir {
    // Not below a build's own directory: the path of a socket has at most 107 bytes.
    tempfile::Builder::new()
        .prefix("redis-")
        .tempdir_in("/tmp")
        .expect("makes a directory")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server under the tests is no job: it is started as it is"
)]
fn spawn(directory: &TempDir, options: &[String]) -> Child {
    let spawned = Command::new("redis-server")
        .current_dir(directory.path())
        .args([
            "--port",
            "0",
            "--unixsocket",
            "redis.sock",
            "--logfile",
            "log",
        ])
        .args([
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match spawned {
        Ok(process) => process,
        Err(error) => panic!(
            "failed to start redis-server ({error}); the tests need Redis 7 or later on the PATH: \
             `apt-get install redis-server`, `brew install redis`, or https://redis.io/download"
        ),
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds to any port");
    listener.local_addr().expect("has an address").port()
}
