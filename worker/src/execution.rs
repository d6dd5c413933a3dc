//! The tasks of one execution, run one after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared::event::{Stream, TaskComplete};
use shared::outcome::Failure;
use shared::record::Record;
use shared::spec::{Program, Spec};
use shared::state::{Event, Progress};
use shared::time::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::conclusion::{Ended, Lines, persist};
use crate::lease::Held;
use crate::process::exit::Exit;
use crate::process::pipes::{Activity, Outlet, Pump, feed};
use crate::process::spawn::{Launch, spawn};
use crate::process::tree::Tree;
use crate::publisher::{Item, Sender};
use crate::supervisor::Running;
use crate::verdict::Verdict;
use crate::workspace::Workspace;

/// An execution whose tasks are being run.
pub(crate) struct Execution<'a> {
    pub(crate) context: &'a Context,
    pub(crate) held: &'a Held<'a>,
    pub(crate) record: Record,
    pub(crate) spec: Arc<Spec>,
    pub(crate) sender: Sender,
    pub(crate) progress: Progress,
    /// When the whole execution has to be over, once its first process has started.
    pub(crate) deadline: Option<Instant>,
}

impl<'a> Execution<'a> {
    /// Runs the tasks, one after the other.
    pub(crate) async fn run(mut self) -> Ended<'a> {
        let directory = &self.context.config.workspace_dir;
        let verdict = match Workspace::create(directory, &self.held.lease) {
            Ok(workspace) => {
                let verdict = self.run_tasks(&workspace).await;
                workspace.remove();
                verdict
            }
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
        let outlet = Outlet {
            task,
            sender: self.sender.clone(),
            activity: activity.clone(),
            give_up: give_up.clone(),
        };
        if let Some(pipe) = child.stdout.take() {
            pipes.spawn(Pump::new(pipe, Stream::Stdout, outlet.clone()).run());
        }
        if let Some(pipe) = child.stderr.take() {
            pipes.spawn(Pump::new(pipe, Stream::Stderr, outlet).run());
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
            input,
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
        match persist(self.context, &self.record, &event, Lines::NONE).await {
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
