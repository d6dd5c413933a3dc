//! One execution, from the claim to the end.
//!
//! Its tasks run one after the other. Each is a [`Running`] process, whose [`Running::wait`] is the
//! place where everything that can happen to a process is listed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use shared::event::{Stream, TaskComplete};
use shared::life::{ChangeError, change_as_holder};
use shared::outcome::{Ending, Failure, Outcome};
use shared::record::Record;
use shared::spec::{Program, Spec};
use shared::state::{Event, Progress};
use shared::store::Lease;
use shared::time::Timestamp;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::lease::{Held, Orders};
use crate::process::exit::Exit;
use crate::process::pipes::{Activity, Pump, feed};
use crate::process::spawn::{Launch, spawn};
use crate::process::tree::Tree;
use crate::publisher::{Item, Published, Publisher, Sender};
use crate::workspace::Workspace;

/// After a failed commit.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Sees an execution to its end.
pub(crate) async fn supervise(context: &Context, record: Record) {
    let lease = Lease {
        id: record.id.clone(),
        attempt: record.state.attempt(),
        worker: context.config.name.clone(),
    };
    let held = context.leases.hold(lease);
    let publisher = Publisher {
        store: context.store.clone(),
        lease: held.lease.clone(),
        output_limit: record.spec.output_bytes,
        lost: held.orders.lost.clone(),
        now: context.now.clone(),
    };
    let (sender, publishing) = publisher.start();
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

/// An execution whose tasks are being run.
struct Execution<'a> {
    context: &'a Context,
    held: &'a Held<'a>,
    record: Record,
    spec: std::sync::Arc<Spec>,
    sender: Sender,
    progress: Progress,
    /// When the whole execution has to be over, once its first process has started.
    deadline: Option<Instant>,
}

/// How a task, or all of them, came to an end.
#[derive(Clone, Debug)]
enum Verdict {
    /// By itself.
    Exited(Exit),
    /// It could not be started.
    Rejected(Failure),
    /// Because the worker ended it.
    Stopped(Stop, Exit),
}

/// Why the worker ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    TimedOut,
    TaskTimedOut,
    Stalled,
    Cancelled,
    HandBack,
    LeaseLost,
}

impl<'a> Execution<'a> {
    async fn run(mut self) -> Ended<'a> {
        let directory = &self.context.config.workspace_dir;
        let verdict = match Workspace::create(directory, &self.held.lease) {
            Ok(workspace) => self.run_tasks(&workspace).await,
            Err(error) => {
                let directory = directory.display();
                let message = format!("no working directory could be made in {directory}: {error}");
                Verdict::Rejected(Failure::new("workspace_unavailable", message))
            }
        };
        Ended {
            context: self.context,
            lost: self.held.orders.lost.clone(),
            record: self.record,
            progress: self.progress,
            verdict,
        }
    }

    /// The first verdict that is not a success, or the one that ended everything.
    async fn run_tasks(&mut self, workspace: &Workspace) -> Verdict {
        let spec = self.spec.clone();
        let own = workspace.path().to_owned();
        let surroundings = Surroundings {
            environment: self.environment(),
            cwd: spec.cwd.as_ref().map_or(own, PathBuf::from),
        };
        let mut verdict = Verdict::Exited(Exit::Code(0));
        for (index, program) in spec.tasks.iter().enumerate() {
            let task = spec.is_task_list.then_some(index);
            let of_task = self.run_task(task, program, &surroundings).await;
            let is_success = of_task.is_success();
            let is_over = of_task.ends_execution() || self.held.orders.lost.is_cancelled();
            if verdict.is_success() || of_task.ends_execution() {
                verdict = of_task;
            }
            if is_over || (!is_success && spec.stop_on_failure) {
                break;
            }
        }
        verdict
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = self.context.config.environment.clone();
        environment.extend(self.spec.env.clone());
        environment.insert("CC_EXECUTION_ID".to_owned(), self.record.id.to_string());
        environment
    }

    async fn run_task(
        &mut self,
        task: Option<usize>,
        program: &Program,
        surroundings: &Surroundings,
    ) -> Verdict {
        let started_at = Timestamp::now();
        let verdict = match self.start(task, program, surroundings).await {
            Ok(running) => {
                let (stop, exit) = running.wait().await;
                stop.map_or(Verdict::Exited(exit.clone()), |stop| {
                    Verdict::Stopped(stop, exit)
                })
            }
            Err(failure) => Verdict::Rejected(failure),
        };
        if let Some(task) = task {
            self.complete_task(task, &verdict, started_at).await;
        }
        verdict
    }

    async fn start(
        &mut self,
        task: Option<usize>,
        program: &Program,
        surroundings: &Surroundings,
    ) -> Result<Running<'_>, Failure> {
        let config = &self.context.config;
        let launch = Launch {
            program,
            shell: &config.shell,
            cwd: &surroundings.cwd,
            environment: &surroundings.environment,
            has_stdin: self.spec.stdin.is_some(),
        };
        let mut child = spawn(&launch)?;
        let now = Instant::now();
        let deadline = *self
            .deadline
            .get_or_insert(now + Duration::from_millis(self.spec.timeout_ms));
        let pid = child.id();
        self.sender.send(Item::Started { pid, task }).await;
        let activity = Activity::new();
        let give_up = CancellationToken::new();
        let mut pipes = JoinSet::new();
        let pump = |stream| {
            (
                stream,
                task,
                self.sender.clone(),
                activity.clone(),
                give_up.clone(),
            )
        };
        if let Some(pipe) = child.stdout.take() {
            pipes.spawn(pump_of(pipe, pump(Stream::Stdout)).run());
        }
        if let Some(pipe) = child.stderr.take() {
            pipes.spawn(pump_of(pipe, pump(Stream::Stderr)).run());
        }
        let mut input = JoinSet::new();
        if let Some((stdin, text)) = child.stdin.take().zip(self.spec.stdin.clone()) {
            input.spawn(feed(stdin, text));
        }
        Ok(Running {
            context: self.context,
            orders: &self.held.orders,
            tree: pid.and_then(Tree::of),
            child,
            pipes,
            _input: input,
            give_up,
            activity,
            deadline,
            task_deadline: self
                .spec
                .timeout_per_task_ms
                .map(|ms| now + Duration::from_millis(ms)),
            stall_timeout: self.spec.stall_timeout_ms.map(Duration::from_millis),
            stop: None,
        })
    }

    /// Tells of a task's end, in the log and in the record.
    async fn complete_task(&mut self, task: usize, verdict: &Verdict, started_at: Timestamp) {
        if verdict.is_success() {
            self.progress.completed += 1;
        } else {
            self.progress.failed += 1;
        }
        if !verdict.ends_execution()
            && let Some(failure) = verdict.failure(&self.spec)
        {
            self.sender
                .send(Item::Error {
                    task: Some(task),
                    failure,
                })
                .await;
        }
        let complete = TaskComplete {
            task,
            status: verdict.ending(),
            exit_code: verdict.exit().and_then(Exit::code),
            signal: verdict.exit().and_then(Exit::signal),
            duration_ms: Timestamp::now().ms_since(started_at),
        };
        self.sender.send(Item::TaskComplete(complete)).await;
        let event = Event::Progress {
            attempt: self.held.lease.attempt,
            progress: self.progress,
        };
        match persist(self.context, &self.record, &event, &[], None).await {
            Some(record) => self.record = record,
            None => self.held.orders.lost.cancel(),
        }
    }
}

/// Where the processes of an execution run.
struct Surroundings {
    environment: BTreeMap<String, String>,
    cwd: PathBuf,
}

fn pump_of<R>(
    pipe: R,
    (stream, task, sender, activity, give_up): (
        Stream,
        Option<usize>,
        Sender,
        std::sync::Arc<Activity>,
        CancellationToken,
    ),
) -> Pump<R> {
    Pump {
        pipe,
        stream,
        task,
        sender,
        activity,
        give_up,
    }
}

/// A process that has started.
#[must_use]
struct Running<'a> {
    context: &'a Context,
    orders: &'a Orders,
    child: Child,
    tree: Option<Tree>,
    pipes: JoinSet<()>,
    _input: JoinSet<()>,
    give_up: CancellationToken,
    activity: std::sync::Arc<Activity>,
    deadline: Instant,
    task_deadline: Option<Instant>,
    stall_timeout: Option<Duration>,
    stop: Option<Stopping>,
}

/// A process that is being ended.
struct Stopping {
    reason: Stop,
    /// When it will be killed; none once it has been.
    kill_at: Option<Instant>,
}

impl Running<'_> {
    /// Waits until the process has exited and its output has been read, and sees to it that both
    /// happen.
    async fn wait(mut self) -> (Option<Stop>, Exit) {
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

impl Verdict {
    fn is_success(&self) -> bool {
        matches!(self, Self::Exited(Exit::Code(0)))
    }

    /// Whether no further task may run, whatever the caller wants.
    fn ends_execution(&self) -> bool {
        match self {
            Self::Exited(_) | Self::Rejected(_) | Self::Stopped(Stop::TaskTimedOut, _) => false,
            Self::Stopped(..) => true,
        }
    }

    fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Exited(exit) | Self::Stopped(_, exit) => Some(exit),
            Self::Rejected(_) => None,
        }
    }

    fn ending(&self) -> Ending {
        match self {
            Self::Exited(Exit::Code(0)) => Ending::Succeeded,
            Self::Exited(_) => Ending::Failed,
            Self::Rejected(_) => Ending::Rejected,
            Self::Stopped(Stop::TimedOut | Stop::TaskTimedOut, _) => Ending::TimedOut,
            Self::Stopped(Stop::Stalled, _) => Ending::Stalled,
            Self::Stopped(Stop::Cancelled, _) => Ending::Cancelled,
            Self::Stopped(Stop::HandBack | Stop::LeaseLost, _) => Ending::Lost,
        }
    }

    fn failure(&self, spec: &Spec) -> Option<Failure> {
        let (code, message) = match self {
            Self::Exited(_) => return None,
            Self::Rejected(failure) => return Some(failure.clone()),
            Self::Stopped(Stop::TimedOut, _) => (
                "timed_out",
                format!("timed out after {}", seconds(spec.timeout_ms)),
            ),
            Self::Stopped(Stop::TaskTimedOut, _) => {
                let limit = seconds(spec.timeout_per_task_ms.unwrap_or_default());
                ("timed_out", format!("the task timed out after {limit}"))
            }
            Self::Stopped(Stop::Stalled, _) => {
                let limit = seconds(spec.stall_timeout_ms.unwrap_or_default());
                ("stalled", format!("no output for {limit}"))
            }
            Self::Stopped(Stop::Cancelled, _) => ("cancelled", "cancelled on request".to_owned()),
            Self::Stopped(Stop::HandBack, _) => (
                "worker_shutdown",
                "its worker shut down before it had ended".to_owned(),
            ),
            Self::Stopped(Stop::LeaseLost, _) => {
                ("worker_lost", "its worker lost the lease".to_owned())
            }
        };
        Some(Failure::new(code, message))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "limits have far fewer milliseconds than a double has bits"
)]
fn seconds(ms: u64) -> String {
    format!("{} s", ms as f64 / 1_000.0)
}

/// An execution whose tasks are over, and which has to be concluded.
#[must_use]
struct Ended<'a> {
    context: &'a Context,
    lost: CancellationToken,
    record: Record,
    progress: Progress,
    verdict: Verdict,
}

impl Ended<'_> {
    /// Writes the end, unless somebody else has the say by now.
    async fn conclude(self, published: Published) {
        let Some(running) = self.record.running() else {
            return;
        };
        let (attempt, id) = (running.attempt, &self.record.id);
        if self.lost.is_cancelled() {
            tracing::warn!(execution_id = %id, attempt, "stopped: the lease is lost");
            return;
        }
        let event = match &self.verdict {
            Verdict::Stopped(Stop::HandBack, _) => Event::HandBack { attempt },
            Verdict::Exited(_) | Verdict::Rejected(_) | Verdict::Stopped(..) => Event::Finish {
                attempt,
                progress: self.progress,
                outcome: self.outcome(&published, Timestamp::now().ms_since(running.started_at)),
            },
        };
        let first_free = Some(published.next_id);
        if let Some(record) = persist(
            self.context,
            &self.record,
            &event,
            &published.pending,
            first_free,
        )
        .await
        {
            let status = record.state.status().as_str();
            tracing::info!(execution_id = %id, attempt, status, output_bytes = published.output_bytes, "ended");
        }
    }

    fn outcome(&self, published: &Published, duration_ms: u64) -> Outcome {
        let exit = self.verdict.exit();
        Outcome {
            ending: self.verdict.ending(),
            exit_code: exit.and_then(Exit::code),
            signal: exit.and_then(Exit::signal),
            duration_ms,
            output_bytes: Some(published.output_bytes),
            output_sha256: Some(published.output_sha256.clone()),
            truncated: published.truncated,
            error: self.verdict.failure(&self.record.spec),
        }
    }
}

/// Commits a change as often as it takes; none if the execution is somebody else's by now, or if
/// the worker must not wait for the store any longer.
async fn persist(
    context: &Context,
    record: &Record,
    event: &Event,
    pending: &[shared::event::Line],
    first_free: Option<shared::id::EventId>,
) -> Option<Record> {
    let first_free = first_free.unwrap_or(shared::id::EventId::START);
    let mut has_failed = false;
    loop {
        match change_as_holder(context.store.as_ref(), record, event, pending, first_free).await {
            Ok(record) => return Some(record),
            Err(ChangeError::Store(error)) => {
                if !has_failed {
                    let error = shared::entry::chain(&error);
                    tracing::warn!(execution_id = %record.id, error, "failed to commit, trying again until it works");
                }
                has_failed = true;
                if context.now.is_cancelled() {
                    return None;
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
            Err(ChangeError::Contended) => tokio::time::sleep(RETRY_DELAY).await,
            Err(ChangeError::Unknown | ChangeError::Refused(_) | ChangeError::LeaseHeld) => {
                tracing::warn!(execution_id = %record.id, "the execution is somebody else's by now");
                return None;
            }
        }
    }
}
