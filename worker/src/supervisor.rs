//! One execution, from the claim to the end, and one process, from its start to the end of its output.
//!
//! [`Running::wait`] is the place where everything that can happen to a process is listed.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use shared::record::Record;
use shared::state::Progress;
use shared::store::Lease;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::execution::Execution;
use crate::lease::Orders;
use crate::process::exit::Exit;
use crate::process::pipes::Activity;
use crate::process::tree::Tree;
use crate::publisher::Publisher;
use crate::verdict::Stop;

/// Sees an execution to its end.
pub(crate) async fn supervise(context: &Context, record: Record) {
    let lease = Lease {
        id: record.id.clone(),
        attempt: record.state.attempt(),
        worker: context.config.name.clone(),
    };
    let held = context.leases.hold(lease);
    let (sender, publishing) = Publisher {
        store: context.store.clone(),
        lease: held.lease.clone(),
        output_limit: record.spec.output_bytes,
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
        progress: Progress::default(),
        deadline: None,
    };
    let (ended, published) = tokio::join!(execution.run(), publishing);
    ended.conclude(published).await;
}

/// A process that has started.
#[must_use]
pub(crate) struct Running<'a> {
    pub(crate) context: &'a Context,
    pub(crate) orders: &'a Orders,
    pub(crate) child: Child,
    pub(crate) tree: Option<Tree>,
    pub(crate) pipes: JoinSet<()>,
    /// Writes the input; ends with the process.
    pub(crate) input: JoinSet<()>,
    pub(crate) give_up: CancellationToken,
    pub(crate) activity: Arc<Activity>,
    pub(crate) deadline: Instant,
    pub(crate) task_deadline: Option<Instant>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) stop: Option<Stopping>,
}

/// A process that is being ended.
pub(crate) struct Stopping {
    reason: Stop,
    /// When it will be killed; none once it has been.
    kill_at: Option<Instant>,
}

impl Running<'_> {
    /// Waits until the process has exited and its output has been read, and sees to it that both
    /// happen.
    pub(crate) async fn wait(mut self) -> (Option<Stop>, Exit) {
        let status = loop {
            let is_free = self.stop.is_none();
            let kill_at = self.stop.as_ref().and_then(|stop| stop.kill_at);
            let may_kill = is_free || kill_at.is_some();
            let task_deadline = self.task_deadline;
            let stall_timeout = self.stall_timeout;
            tokio::select! {
                status = self.child.wait() => break status,
                () = self.orders.lost.cancelled(), if may_kill => self.kill(Stop::LeaseLost),
                () = self.context.now.cancelled(), if may_kill => self.kill(Stop::HandBack),
                () = reached(kill_at), if kill_at.is_some() => self.kill_after_grace(),
                () = self.orders.cancel.cancelled(), if is_free => self.terminate(Stop::Cancelled),
                () = self.context.hand_back.cancelled(), if is_free => self.terminate(Stop::HandBack),
                () = sleep_until(self.deadline), if is_free => self.terminate(Stop::TimedOut),
                () = reached(task_deadline), if is_free => self.terminate(Stop::TaskTimedOut),
                () = silence(&self.activity, stall_timeout), if is_free => self.terminate(Stop::Stalled),
            }
        };
        self.input.abort_all();
        self.drain().await;
        (self.stop.map(|stop| stop.reason), exit(status))
    }

    fn terminate(&mut self, reason: Stop) {
        if let Some(tree) = self.tree {
            tree.terminate();
        }
        self.stop = Some(Stopping {
            reason,
            kill_at: Some(Instant::now() + self.context.config.grace),
        });
    }

    fn kill_after_grace(&mut self) {
        if let Some(stop) = &self.stop {
            self.kill(stop.reason);
        }
    }

    fn kill(&mut self, reason: Stop) {
        if let Some(tree) = self.tree {
            tree.kill();
        }
        // A lease that is lost outweighs whatever the reason was before.
        let reason = match &self.stop {
            Some(stop) if reason != Stop::LeaseLost => stop.reason,
            _ => reason,
        };
        self.stop = Some(Stopping {
            reason,
            kill_at: None,
        });
    }

    /// Reads the output to its end. Descendants that hold a pipe open get a grace; what they have
    /// written until then is kept.
    async fn drain(&mut self) {
        let grace = self.context.config.drain_grace;
        let is_drained = tokio::time::timeout(grace, drained(&mut self.pipes))
            .await
            .is_ok();
        if let Some(tree) = self.tree {
            tree.kill();
        }
        if !is_drained {
            self.give_up.cancel();
            drained(&mut self.pipes).await;
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

async fn silence(activity: &Activity, length: Option<Duration>) {
    match length {
        Some(length) => activity.silence_of(length).await,
        None => std::future::pending().await,
    }
}

fn exit(status: std::io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) => Exit::of(status),
        Err(error) => {
            tracing::error!(%error, "failed to wait for a process");
            Exit::Signal("unknown".to_owned())
        }
    }
}
