//! The system under measurement: the real servers as processes of their own, on one of the engines.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::load::SLOTS;

/// Which store is under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Redis, and a worker as it is deployed: jobs have a cgroup and are confined.
    Redis,
    /// Redis, and a worker that confines nothing.
    Unconfined,
    Embedded,
}

impl Engine {
    pub(crate) const ALL: [Self; 3] = [Self::Redis, Self::Unconfined, Self::Embedded];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis (AOF everysec), confined",
            Self::Unconfined => "Redis, unconfined",
            Self::Embedded => "embedded, unconfined",
        }
    }
}

/// A private Redis on a Unix socket, append-only.
pub(crate) struct RedisServer {
    directory: TempDir,
    _process: Child,
}

impl RedisServer {
    pub(crate) async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("redis.sock");
        #[expect(
            clippy::disallowed_methods,
            reason = "a server of the benchmark, not a job"
        )]
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "everysec", "--dir"])
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(&socket)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start redis-server; make setup installs it")?;
        let server = Self {
            directory,
            _process: process,
        };
        for _ in 0..500 {
            if server.connect().await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("redis-server did not come up")
    }

    fn url(&self) -> String {
        format!(
            "unix://{}",
            self.directory.path().join("redis.sock").display()
        )
    }

    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.url())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }
}

/// Running servers.
pub(crate) struct Stack {
    pub(crate) url: String,
    servers: Vec<(&'static str, Child)>,
    redis: Option<RedisServer>,
    _directory: TempDir,
}

impl Stack {
    pub(crate) async fn start(engine: Engine) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        match engine {
            Engine::Redis | Engine::Unconfined => {
                let redis = RedisServer::start().await?;
                let mut store = vec![("REDIS_URL", redis.url())];
                if engine == Engine::Unconfined {
                    store.push(("CC_SANDBOX", "off".to_owned()));
                    store.push(("CC_CGROUP", "off".to_owned()));
                }
                let mut api = server("cc-executor-api", &[], &store, directory.path())?;
                let url = listening(&mut api).await?;
                let worker = server("cc-executor-worker", &[], &store, directory.path())?;
                Ok(Self {
                    url,
                    servers: vec![("api", api), ("worker", worker)],
                    redis: Some(redis),
                    _directory: directory,
                })
            }
            Engine::Embedded => {
                let data = directory.path().join("data").display().to_string();
                let store = [("CC_DATA_DIR", data)];
                let mut serve = server("cc-executor", &["serve"], &store, directory.path())?;
                let url = listening(&mut serve).await?;
                Ok(Self {
                    url,
                    servers: vec![("serve", serve)],
                    redis: None,
                    _directory: directory,
                })
            }
        }
    }

    /// The most memory that each server has had, in MiB.
    pub(crate) fn peak_memory(&self) -> Vec<(&'static str, f64)> {
        let peak = |(name, child): &(&'static str, Child)| Some((*name, peak_mib(child.id()?)?));
        self.servers.iter().filter_map(peak).collect()
    }

    /// The most memory that Redis has used, in MiB.
    pub(crate) async fn redis_peak(&self) -> Result<Option<f64>> {
        let Some(redis) = &self.redis else {
            return Ok(None);
        };
        let info: String = redis::cmd("INFO")
            .arg("memory")
            .query_async(&mut redis.connect().await?)
            .await?;
        let bytes = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory_peak:"));
        let bytes: f64 = bytes.context("redis tells its peak")?.trim().parse()?;
        Ok(Some(bytes / f64::from(1 << 20)))
    }
}

/// This program under another name.
fn server(
    name: &str,
    arguments: &[&str],
    store: &[(&str, String)],
    directory: &Path,
) -> Result<Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a server under measurement, not a job"
    )]
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg0(name)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("CC_BIND", "127.0.0.1:0")
        .env("CC_SLOTS", SLOTS.to_string())
        .env("CC_WORKSPACE_DIR", directory.join("work"))
        .envs(store.iter().map(|(name, value)| (*name, value)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    if name == "cc-executor-worker" {
        drain_log(&mut child);
    }
    Ok(child)
}

/// Where a server listens, from its log.
async fn listening(child: &mut Child) -> Result<String> {
    let log = child.stderr.take().context("there is a pipe")?;
    let mut lines = BufReader::new(log).lines();
    let mut seen = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, rest)) = line.split_once("listening on ") {
            let url = rest
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned();
            keep_reading(lines.into_inner());
            return Ok(url);
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    bail!("a server ended at once:\n{seen}")
}

fn drain_log(child: &mut Child) {
    if let Some(log) = child.stderr.take() {
        keep_reading(BufReader::new(log));
    }
}

/// A log that nobody reads would block its server.
fn keep_reading(mut log: BufReader<tokio::process::ChildStderr>) {
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the server whose log it reads"
    )]
    tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
}

fn peak_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1_024.0)
}
