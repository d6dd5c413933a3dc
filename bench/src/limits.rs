//! What the machine can do at best, measured with the same runtime and the same commands.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::load::{CANCELS, ECHO, RATE_JOBS, SLOTS, TEXT, TEXT_BYTES, TRUE};
use crate::stack::RedisServer;
use crate::statistics::{Distribution, ms};
use crate::target::{VERB, moment, since_1970};

const LATENCY_RUNS: usize = 500;
const PINGS: usize = 2_000;

/// The limits in one round.
#[derive(Debug)]
pub(crate) struct Limits {
    /// From the spawn of `echo hi` to its first byte.
    pub(crate) spawn_to_first_byte: Distribution,
    /// Spawned and waited for, as many at a time as there are slots.
    pub(crate) spawns_per_second: f64,
    /// The text job's output, read from its pipe and thrown away.
    pub(crate) pipe_mb_per_second: f64,
    /// From `kill` until a bare process has SIGTERM.
    pub(crate) kill: Distribution,
    /// There and back.
    pub(crate) redis_round_trip: Distribution,
}

impl Limits {
    pub(crate) async fn measure() -> Result<Self> {
        Ok(Self {
            spawn_to_first_byte: spawn_to_first_byte().await?,
            spawns_per_second: spawns_per_second().await?,
            pipe_mb_per_second: pipe_mb_per_second().await?,
            kill: kill().await?,
            redis_round_trip: redis_round_trip().await?,
        })
    }
}

fn shell(command: &str) -> Result<Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the limit is a bare spawn, without the worker's supervision"
    )]
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", command])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to spawn /bin/sh")
}

async fn spawn_to_first_byte() -> Result<Distribution> {
    let mut samples = Vec::with_capacity(LATENCY_RUNS);
    for _ in 0..LATENCY_RUNS {
        let started = Instant::now();
        let mut child = shell(ECHO)?;
        let mut stdout = child.stdout.take().context("there is a pipe")?;
        let mut buffer = [0; 64];
        let _ = stdout.read(&mut buffer).await?;
        samples.push(started.elapsed());
        child.wait().await?;
    }
    Ok(Distribution::of(samples))
}

async fn spawns_per_second() -> Result<f64> {
    let started = Instant::now();
    let mut spawners = JoinSet::new();
    for _ in 0..SLOTS {
        spawners.spawn(async {
            for _ in 0..RATE_JOBS / SLOTS {
                shell(TRUE)?.wait().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = spawners.join_next().await {
        ended??;
    }
    Ok(per_second(RATE_JOBS, started.elapsed()))
}

async fn pipe_mb_per_second() -> Result<f64> {
    let started = Instant::now();
    let mut child = shell(TEXT)?;
    let mut stdout = child.stdout.take().context("there is a pipe")?;
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match stdout.read(&mut buffer).await? {
            0 => break,
            read => total += read,
        }
    }
    child.wait().await?;
    anyhow::ensure!(total == TEXT_BYTES, "the text job wrote {total} bytes");
    Ok(per_second(TEXT_BYTES, started.elapsed()) / 1e6)
}

async fn kill() -> Result<Distribution> {
    let program = std::env::current_exe()?;
    let mut samples = Vec::with_capacity(CANCELS);
    for _ in 0..CANCELS {
        #[expect(
            clippy::disallowed_methods,
            reason = "the limit is a bare spawn, without the worker's supervision"
        )]
        let mut child = Command::new(&program)
            .arg(VERB)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("there is a pipe")?).lines();
        stdout.next_line().await?;
        let asked_at = since_1970();
        let pid = i32::try_from(child.id().context("it runs")?)?;
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let said = stdout.next_line().await?.context("it says when")?;
        let told_at = moment(&said).context("it says a time")?;
        samples.push(told_at.saturating_sub(asked_at));
        child.wait().await?;
    }
    Ok(Distribution::of(samples))
}

async fn redis_round_trip() -> Result<Distribution> {
    let server = RedisServer::start().await?;
    let mut connection = server.connect().await?;
    let mut samples = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let started = Instant::now();
        let () = redis::cmd("PING").query_async(&mut connection).await?;
        samples.push(started.elapsed());
    }
    Ok(Distribution::of(samples))
}

/// So many in such a time.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn per_second(count: usize, duration: Duration) -> f64 {
    count as f64 / (ms(duration) / 1_000.0)
}
