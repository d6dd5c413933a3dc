//! One execution, from the claim to the end, and one process, from its start until nothing is left of it.
//!
//! [`Running::wait`] is the place where everything that can happen to a process is listed.

use std::sync::Arc;
use std::time::Duration;

use shared::record::Record;
use shared::state::{Cause, Progress};
use shared::store::Lease;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::execution::Execution;
use crate::guard::wire::{Order, Report};
use crate::lease::Orders;
use crate::process::exit::Exit;
use crate::process::pipes::Activity;
use crate::process::shims::Shim;
use crate::publisher::{Item, Publisher, Sender};
use crate::verdict::Stop;

/// Sees an execution to its end.
pub(crate) async fn supervise(context: &Context, record: Record) {
    let lease = Lease {
        id: record.id.clone(),
        attempt: record.state.attempt(),
        worker: context.config.name.clone(),
    };
    let held = context.leases.hold(lease);
    let over_limit = CancellationToken::new();
    let (sender, publishing) = Publisher {
        store: context.store.clone(),
        lease: held.lease.clone(),
        output_limit: record.spec.output_bytes,
        sandbox: context.config.confinement.sandbox,
        over_limit: over_limit.clone(),
        lost: held.orders.lost.clone(),
        now: context.now.clone(),
    }
    .start();
    let execution = Execution {
        context,
        spec: record.spec.clone(),
        held: &held,
        record,
        sender,
        over_limit,
        progress: Progress::default(),
        deadline: None,
        reaped: 0,
    };
    let (ended, published) = tokio::join!(execution.run(), publishing);
    ended.conclude(published).await;
}

/// A process that has started.
#[must_use]
pub(crate) struct Running<'a> {
    pub(crate) context: &'a Context,
    pub(crate) orders: &'a Orders,
    pub(crate) sender: &'a Sender,
    pub(crate) shim: Shim,
    pub(crate) pipes: JoinSet<()>,
    /// Writes the input; ends with the process.
    pub(crate) input: JoinSet<()>,
    pub(crate) give_up: CancellationToken,
    pub(crate) activity: Arc<Activity>,
    pub(crate) limits: TimeLimits,
    /// Set off when it has printed more than it may, if that is to end it.
    pub(crate) over_limit: Option<CancellationToken>,
    pub(crate) grace: Duration,
    pub(crate) paused: Option<Instant>,
    pub(crate) stop: Option<Stopping>,
}

/// How long a process may take. The clocks stand still while it does.
pub(crate) struct TimeLimits {
    pub(crate) deadline: Instant,
    pub(crate) task_deadline: Option<Instant>,
    pub(crate) stall_timeout: Option<Duration>,
}

/// A process that is being ended.
pub(crate) struct Stopping {
    reason: Stop,
    /// When it will be killed; none once it has been.
    kill_at: Option<Instant>,
}

/// A process of which nothing is left.
#[must_use]
pub(crate) struct Finished {
    pub(crate) exit: Exit,
    /// Why the worker ended it, if it did.
    pub(crate) stop: Option<Stop>,
    /// How many processes were left when the leader had gone.
    pub(crate) reaped: u32,
    /// The deadline of the whole execution, moved by the time that it stood still.
    pub(crate) deadline: Instant,
    /// The shim, if it can be used again.
    pub(crate) shim: Option<Shim>,
}

/// The leader's end.
struct LeaderGone {
    exit: Exit,
    left: u32,
    /// What is left of the job, and of its shim.
    rest: Rest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Descendants,
    /// Some that not even SIGKILL ends, or nobody knows: the shim is of no use any more.
    Unknown,
}

impl Running<'_> {
    /// Waits until the process has exited, nothing it has started is left, and its output has been read; and
    /// sees to it that all this happens.
    pub(crate) async fn wait(mut self) -> Finished {
        let gone = loop {
            let is_free = self.stop.is_none();
            let runs = is_free && self.paused.is_none();
            let kill_at = self.stop.as_ref().and_then(|stop| stop.kill_at);
            let may_kill = is_free || kill_at.is_some();
            let is_paused = self.paused.is_some();
            let limits = &self.limits;
            tokio::select! {
                report = self.shim.next() => if let Some(gone) = self.hear(report) { break gone },
                () = self.orders.lost.cancelled(), if may_kill => self.kill(Stop::LeaseLost).await,
                () = self.context.now.cancelled(), if may_kill => self.kill(Stop::HandBack(Cause::Shutdown)).await,
                () = reached(kill_at), if kill_at.is_some() => self.kill_after_grace().await,
                () = self.orders.cancel.cancelled(), if is_free => self.terminate(Stop::Cancelled).await,
                () = self.context.hand_back.cancelled(), if is_free => self.terminate(Stop::HandBack(Cause::Shutdown)).await,
                () = sleep_until(limits.deadline), if runs => self.terminate(Stop::TimedOut).await,
                () = reached(limits.task_deadline), if runs => self.terminate(Stop::TaskTimedOut).await,
                () = silence(&self.activity, limits.stall_timeout), if runs => self.terminate(Stop::Stalled).await,
                () = reached_limit(self.over_limit.as_ref()), if is_free => self.terminate(Stop::OutputLimit).await,
                () = self.orders.pause_is(!is_paused), if is_free => self.pause_or_resume().await,
            }
        };
        self.input.abort_all();
        let rest = self.end_descendants(gone.rest).await;
        self.drain().await;
        Finished {
            exit: gone.exit,
            stop: self.stop.map(|stop| stop.reason),
            reaped: gone.left,
            deadline: self.limits.deadline,
            shim: (rest == Rest::Nothing).then_some(self.shim),
        }
    }

    /// Takes in what the shim says; the leader's end, if it says that.
    fn hear(&mut self, report: std::io::Result<Report>) -> Option<LeaderGone> {
        match report {
            Ok(Report::Exited {
                exit,
                left,
                is_empty,
            }) => {
                let rest = if is_empty {
                    Rest::Nothing
                } else {
                    Rest::Descendants
                };
                Some(LeaderGone { exit, left, rest })
            }
            Ok(Report::LimitReached(limit)) => {
                if self.stop.is_none() {
                    self.stop_for(Stop::Limit(limit), None);
                }
                None
            }
            Ok(Report::Gone { immortal }) => {
                tracing::error!(immortal, "a process cannot be killed");
                Some(LeaderGone::unseen())
            }
            other @ (Ok(Report::Started { .. } | Report::Refused { .. }) | Err(_)) => {
                tracing::error!(report = ?other, "a shim was lost, and its job with it");
                self.stop_for(Stop::HandBack(Cause::GuardianLost), None);
                Some(LeaderGone::unseen())
            }
        }
    }

    async fn terminate(&mut self, reason: Stop) {
        self.stop_for(reason, Some(Instant::now() + self.grace));
        self.shim.order(Order::Terminate).await;
    }

    async fn kill_after_grace(&mut self) {
        if let Some(stop) = &self.stop {
            self.kill(stop.reason).await;
        }
    }

    async fn kill(&mut self, reason: Stop) {
        // A lease that is lost outweighs whatever the reason was before.
        let reason = match &self.stop {
            Some(stop) if reason != Stop::LeaseLost => stop.reason,
            _ => reason,
        };
        self.stop_for(reason, None);
        self.shim.order(Order::Kill).await;
    }

    fn stop_for(&mut self, reason: Stop, kill_at: Option<Instant>) {
        self.stop = Some(Stopping { reason, kill_at });
    }

    async fn pause_or_resume(&mut self) {
        let item = if let Some(since) = self.paused.take() {
            self.shim.order(Order::Resume).await;
            self.activity.touch();
            self.limits.move_by(since.elapsed());
            Item::Resumed
        } else {
            self.shim.order(Order::Pause).await;
            self.paused = Some(Instant::now());
            Item::Paused
        };
        self.sender.send(item).await;
    }

    /// Ends what the leader has left. Who is being ended has what remains of the grace for it; else those have
    /// the drain grace who hold the output open.
    async fn end_descendants(&mut self, rest: Rest) -> Rest {
        if rest != Rest::Descendants {
            return rest;
        }
        let now = Instant::now();
        let kill_at = match &self.stop {
            Some(stop) => stop.kill_at.unwrap_or(now),
            None => now + self.context.config.drain_grace,
        };
        let holds_output = self.stop.is_none();
        let gone = tokio::select! {
            gone = none_left(&mut self.shim) => Some(gone),
            () = drained(&mut self.pipes), if holds_output => None,
            () = sleep_until(kill_at) => None,
            () = self.orders.lost.cancelled() => None,
            () = self.context.now.cancelled() => None,
        };
        if let Some(gone) = gone {
            return gone;
        }
        self.shim.order(Order::Kill).await;
        none_left(&mut self.shim).await
    }

    /// Reads the output to its end. Nothing of the job is left to write any; should a process that is none of
    /// the job's hold it open all the same, then what is there is read.
    async fn drain(&mut self) {
        let grace = self.context.config.drain_grace;
        let is_drained = tokio::time::timeout(grace, drained(&mut self.pipes)).await;
        if is_drained.is_err() {
            self.give_up.cancel();
            drained(&mut self.pipes).await;
        }
    }
}

impl TimeLimits {
    fn move_by(&mut self, length: Duration) {
        self.deadline += length;
        self.task_deadline = self.task_deadline.map(|deadline| deadline + length);
    }
}

impl LeaderGone {
    fn unseen() -> Self {
        Self {
            exit: Exit::unknown(),
            left: 0,
            rest: Rest::Unknown,
        }
    }
}

/// Returns once the shim says that nothing is left of the job.
async fn none_left(shim: &mut Shim) -> Rest {
    loop {
        match shim.next().await {
            Ok(Report::Gone { immortal: 0 }) => return Rest::Nothing,
            // What was said before it heard of the leader's end.
            Ok(Report::LimitReached(_)) => {}
            other => {
                tracing::error!(report = ?other, "processes may be left");
                return Rest::Unknown;
            }
        }
    }
}

async fn drained(pipes: &mut JoinSet<()>) {
    while pipes.join_next().await.is_some() {}
}

async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn reached_limit(limit: Option<&CancellationToken>) {
    match limit {
        Some(limit) => limit.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn silence(activity: &Activity, length: Option<Duration>) {
    match length {
        Some(length) => activity.silence_of(length).await,
        None => std::future::pending().await,
    }
}
