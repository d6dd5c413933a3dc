//! The work, and what a client sees of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::limits::per_second;
use crate::statistics::Distribution;
use crate::target::{VERB, moment, since_1970};

pub(crate) const ECHO: &str = "echo hi";
pub(crate) const TRUE: &str = "true";
/// 256 MiB of lines of 80 bytes.
pub(crate) const TEXT: &str = "yes 'The quick brown fox jumps over the lazy dog, again and again, until it is tired' | head -c 268435456";
pub(crate) const TEXT_BYTES: usize = 256 << 20;
pub(crate) const SLOTS: usize = 4;
pub(crate) const RATE_JOBS: usize = 2_000;
const LATENCY_JOBS: usize = 500;
const WARM_UP_JOBS: usize = 50;
const IN_FLIGHT: usize = 16;
pub(crate) const CANCELS: usize = 300;

/// What has been measured on one engine in one round.
#[derive(Debug)]
pub(crate) struct Measured {
    /// From the request to the first byte of output.
    pub(crate) latency: Distribution,
    /// Executions per second.
    pub(crate) rate: f64,
    /// Output per second, in MB.
    pub(crate) throughput: f64,
    /// From the request to cancel until the process has SIGTERM.
    pub(crate) cancel: Distribution,
    /// The most memory of each server, in MiB.
    pub(crate) peak_memory: Vec<(&'static str, f64)>,
    pub(crate) redis_peak: Option<f64>,
}

/// A client.
#[derive(Clone)]
pub(crate) struct Load {
    client: Client,
    url: String,
}

impl Load {
    pub(crate) fn on(url: &str) -> Result<Self> {
        Ok(Self {
            client: Client::builder().tcp_nodelay(true).build()?,
            url: url.to_owned(),
        })
    }

    /// Runs a job to its end and passes each piece of the reply to `see`.
    async fn run(&self, job: &Value, mut see: impl FnMut(&[u8])) -> Result<()> {
        let response = self
            .client
            .post(format!("{}/execute", self.url))
            .json(job)
            .send()
            .await?
            .error_for_status()?;
        let mut pieces = response.bytes_stream();
        let mut tail = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            see(&piece);
            // The last line, however the pieces are cut.
            let start = piece.len().saturating_sub(1_024);
            if piece.len() >= 1_024 {
                tail.clear();
            }
            tail.extend_from_slice(&piece[start..]);
        }
        let tail = String::from_utf8_lossy(&tail);
        ensure!(
            tail.contains("\"status\":\"succeeded\""),
            "a job did not succeed: {tail}"
        );
        Ok(())
    }

    /// `echo hi`, one after the other.
    pub(crate) async fn first_byte(&self) -> Result<Distribution> {
        let job = json!({"command": ECHO});
        let mut samples = Vec::with_capacity(LATENCY_JOBS);
        for number in 0..WARM_UP_JOBS + LATENCY_JOBS {
            let started = Instant::now();
            let mut first = None;
            self.run(&job, |piece| {
                let is_output = || String::from_utf8_lossy(piece).contains("\"type\":\"output\"");
                if first.is_none() && is_output() {
                    first = Some(started.elapsed());
                }
            })
            .await?;
            if number >= WARM_UP_JOBS {
                samples.push(first.context("echo printed nothing")?);
            }
        }
        Ok(Distribution::of(samples))
    }

    /// `true`, 16 in flight.
    pub(crate) async fn rate(&self) -> Result<f64> {
        let left = Arc::new(AtomicUsize::new(RATE_JOBS));
        let started = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (load, left) = (self.clone(), Arc::clone(&left));
            clients.spawn(async move {
                let job = json!({"command": TRUE});
                let take = || {
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        left.checked_sub(1)
                    })
                };
                while take().is_ok() {
                    load.run(&job, |_| {}).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(per_second(RATE_JOBS, started.elapsed()))
    }

    /// Jobs that say when they are asked to end, one after the other.
    pub(crate) async fn cancel(&self) -> Result<Distribution> {
        let program = std::env::current_exe()?;
        let mut samples = Vec::with_capacity(CANCELS);
        for number in 0..CANCELS {
            let id = format!("cancel-{number}");
            let job = json!({"argv": [program, VERB], "execution_id": id});
            let url = format!("{}/executions/{id}", self.url);
            let post = self.client.post(format!("{}/execute", self.url));
            let mut pieces = post
                .json(&job)
                .send()
                .await?
                .error_for_status()?
                .bytes_stream();
            let mut seen = String::new();
            let mut asked_at = None;
            while let Some(piece) = pieces.next().await {
                seen.push_str(&String::from_utf8_lossy(&piece?));
                if asked_at.is_none() && seen.contains("ready\\n") {
                    asked_at = Some(since_1970());
                    self.client.delete(&url).send().await?.error_for_status()?;
                }
            }
            let told_at = told_at(&seen).with_context(|| format!("no time in {seen}"))?;
            let asked_at = asked_at.context("it was never ready")?;
            samples.push(told_at.saturating_sub(asked_at));
        }
        Ok(Distribution::of(samples))
    }

    /// One job with much text, to one client.
    pub(crate) async fn throughput(&self) -> Result<f64> {
        let job = json!({"command": TEXT, "limits": {"output_bytes": TEXT_BYTES}});
        let mut received = 0;
        let started = Instant::now();
        self.run(&job, |piece| received += piece.len()).await?;
        ensure!(received > TEXT_BYTES, "only {received} bytes came");
        Ok(per_second(TEXT_BYTES, started.elapsed()) / 1e6)
    }
}

/// When the process says that it was asked to end, in the last line that it printed.
fn told_at(log: &str) -> Option<Duration> {
    log.lines().rev().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        event["data"].as_str()?.lines().last().and_then(moment)
    })
}
