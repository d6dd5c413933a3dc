//! One installation: a store of its own, and real processes of our programs on it.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::client::Client;
use crate::process::{Process, command};
use crate::redis::RedisServer;

/// Where the programs under test are; only a test binary knows.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// `cc-executor-api`
    pub api: &'static str,
    /// `cc-executor-worker`
    pub worker: &'static str,
    /// `cc-executor`
    pub cli: &'static str,
}

/// A store, and the settings of whatever is started on it.
pub struct Site {
    programs: Programs,
    settings: Vec<(String, String)>,
    redis: Option<RedisServer>,
    directory: TempDir,
}

/// A process that serves HTTP.
pub struct Server {
    process: Process,
    address: SocketAddr,
    client: Client,
}

/// A site with one API server and one worker, or with one `serve` that is both.
pub struct Running {
    /// What serves HTTP; a client, to most tests.
    pub server: Server,
    /// The worker, unless it is in the server.
    pub worker: Option<Process>,
    /// What they run on; dropped after them.
    pub site: Site,
}

impl Site {
    /// A site on a Redis server of its own.
    pub fn on_redis(programs: Programs) -> Self {
        let redis = RedisServer::start();
        let url = redis.url();
        let mut site = Self::new(programs, Some(redis));
        site.set("REDIS_URL", &url);
        site
    }

    /// A site on an embedded store.
    pub fn on_disk(programs: Programs) -> Self {
        Self::new(programs, None)
    }

    fn new(programs: Programs, redis: Option<RedisServer>) -> Self {
        let directory = TempDir::new().expect("a directory can be made");
        let mut site = Self {
            programs,
            settings: Vec::new(),
            redis,
            directory,
        };
        site.set("CC_BIND", "127.0.0.1:0");
        for (name, place) in [
            ("CC_DATA_DIR", "data"),
            ("CC_WORKSPACE_DIR", "workspaces"),
            ("HOME", "home"),
        ] {
            let path = site.path(place).display().to_string();
            site.set(name, &path);
        }
        // Jobs of a worker are confined, but they may leave traces for the test to find.
        let all_of_it = site.directory.path().display().to_string();
        site.set("CC_SANDBOX_WRITE", &all_of_it);
        site.set("CC_ALLOWED_CWD", "/");
        site
    }

    /// A setting of all processes that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// The same site with these settings.
    #[must_use]
    pub fn with(mut self, settings: &[(&str, &str)]) -> Self {
        for (name, value) in settings {
            self.set(name, value);
        }
        self
    }

    /// A path within the site that jobs and tests may use.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where working directories of jobs are made.
    pub fn workspaces(&self) -> PathBuf {
        self.path("workspaces")
    }

    /// The settings of all processes of this site.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let settings = self.settings.iter();
        settings.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names of all keys in Redis.
    pub fn keys(&self) -> Vec<String> {
        self.redis.as_ref().expect("the site is on redis").keys()
    }

    /// The Redis server.
    pub fn redis(&mut self) -> &mut RedisServer {
        self.redis.as_mut().expect("this site is on redis")
    }

    /// Starts an API server.
    pub async fn api(&self) -> Server {
        let command = self.command(self.programs.api);
        Server::start("api", command).await
    }

    /// Starts a worker of this name, and waits until it is at work.
    pub async fn worker(&self, name: &str) -> Process {
        let mut command = self.command(self.programs.worker);
        command.env("CC_WORKER_NAME", name);
        let mut worker = Process::start(name, command);
        worker.logs("worker started").await;
        worker
    }

    /// Starts `cc-executor serve`.
    pub async fn serve(&self) -> Server {
        let mut command = self.command(self.programs.cli);
        command.arg("serve");
        Server::start("serve", command).await
    }

    /// One API server and one worker, or `serve` where there is no Redis.
    pub async fn run(self) -> Running {
        if self.redis.is_none() {
            return Running {
                server: self.serve().await,
                worker: None,
                site: self,
            };
        }
        Running {
            server: self.api().await,
            worker: Some(self.worker("worker").await),
            site: self,
        }
    }

    /// A command with this site's settings.
    pub fn command(&self, program: &str) -> std::process::Command {
        command(Path::new(program), self.settings())
    }
}

impl Server {
    /// Starts a server and waits until it listens.
    pub async fn start(name: &str, command: std::process::Command) -> Self {
        let mut process = Process::start(name, command);
        let line = process.logs("listening on http://").await;
        let (_, address) = line.split_once("http://").expect("it was looked for");
        let address = address.split_whitespace().next().unwrap_or_default();
        let address = address.parse().expect("the log tells the address");
        Self {
            process,
            address,
            client: Client::new(address),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Deref for Running {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.server.client
    }
}
