//! The tasks of one execution, run one after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared::event::{Stream, TaskComplete};
use shared::outcome::Failure;
use shared::record::Record;
use shared::request::OnOutputLimit;
use shared::spec::{Program, Spec};
use shared::state::{Cause, Event, Progress};
use shared::time::Timestamp;
use tokio::io::AsyncRead;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::conclusion::{Ended, Lines, persist};
use crate::confinement::{RunAs, open_directory};
use crate::guard::confine::{Account, Boundaries};
use crate::lease::Held;
use crate::process::exit::Exit;
use crate::process::pipes::{Activity, Outlet, Pump, feed};
use crate::process::spawn::{Channels, Launch, SpawnError, Spawned, spawn};
use crate::process::terminal;
use crate::publisher::{Item, Sender};
use crate::supervisor::{Running, TimeLimits};
use crate::verdict::{Stop, Verdict};
use crate::workspace::Workspace;

/// An execution whose tasks are being run.
pub(crate) struct Execution<'a> {
    pub(crate) context: &'a Context,
    pub(crate) held: &'a Held<'a>,
    pub(crate) record: Record,
    pub(crate) spec: Arc<Spec>,
    pub(crate) sender: Sender,
    /// Set off when there is more output than is kept.
    pub(crate) over_limit: CancellationToken,
    pub(crate) progress: Progress,
    /// When the whole execution has to be over, once its first process has started.
    pub(crate) deadline: Option<Instant>,
    /// How many processes were left when their leaders had gone.
    pub(crate) reaped: u32,
}

impl<'a> Execution<'a> {
    /// Runs the tasks, one after the other.
    pub(crate) async fn run(mut self) -> Ended<'a> {
        let config = &self.context.config;
        let is_confined = config
            .confinement
            .boundaries(&config.shell, Vec::new())
            .is_some();
        let has_temporary = is_confined && !config.environment.contains_key("TMPDIR");
        let workspaces = &self.context.workspaces;
        let verdict = match workspaces.enter(&self.held.lease, self.account(), has_temporary) {
            Ok(workspace) => {
                let verdict = match self.surroundings(&workspace) {
                    Ok(surroundings) => self.run_tasks(&surroundings).await,
                    Err(failure) => Verdict::Rejected(failure),
                };
                workspace.remove();
                verdict
            }
            Err(error) => {
                let directory = config.workspace_dir.display();
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
            reaped: self.reaped,
        }
    }

    fn account(&self) -> Option<&'a Account> {
        let user = self.context.config.confinement.user.as_ref();
        user.map(|RunAs { account, .. }| account)
    }

    fn surroundings(&self, workspace: &Workspace) -> Result<Surroundings, Failure> {
        let config = &self.context.config;
        let (cwd, directory) = if let Some(cwd) = &self.spec.cwd {
            config.confinement.open_cwd(Path::new(cwd))?
        } else {
            let opened = open_directory(&workspace.work);
            let failed =
                |error: io::Error| Failure::new("workspace_unavailable", error.to_string());
            (workspace.work.clone(), opened.map_err(failed)?)
        };
        let temporary = config.environment.get("TMPDIR").map(PathBuf::from);
        let root = workspace.root().to_owned();
        let own_temporary = workspace.temporary.clone();
        let own = [
            Some(workspace.work.clone()),
            Some(cwd.clone()),
            own_temporary,
            temporary,
        ];
        let own = own.into_iter().flatten().collect();
        Ok(Surroundings {
            environment: self.environment(workspace),
            boundaries: config.confinement.boundaries(&config.shell, own),
            cwd,
            directory,
            workspace: root,
        })
    }

    fn environment(&self, workspace: &Workspace) -> BTreeMap<String, String> {
        let mut environment = self.context.config.environment.clone();
        if let Some(temporary) = &workspace.temporary {
            environment.insert("TMPDIR".to_owned(), temporary.display().to_string());
        }
        if self.spec.tty.is_some() {
            environment.insert("TERM".to_owned(), "xterm-256color".to_owned());
        }
        environment.extend(self.spec.env.clone());
        environment.insert("CC_EXECUTION_ID".to_owned(), self.record.id.to_string());
        environment
    }

    /// The first verdict that is not a success, or the one that ended everything.
    async fn run_tasks(&mut self, surroundings: &Surroundings) -> Verdict {
        let spec = self.spec.clone();
        let mut verdict = Verdict::Exited(Exit::Code(0));
        for (index, program) in spec.tasks.iter().enumerate() {
            let task = spec.is_task_list.then_some(index);
            let of_task = self.run_task(task, program, surroundings).await;
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

    async fn run_task(
        &mut self,
        task: Option<usize>,
        program: &Program,
        surroundings: &Surroundings,
    ) -> Verdict {
        let started_at = Timestamp::now();
        let launch = self.launch(program, surroundings);
        let verdict = match spawn(&self.context.shims, &launch).await {
            Ok(spawned) => self.see_to_its_end(task, spawned).await,
            Err(SpawnError::Rejected(failure)) => Verdict::Rejected(failure),
            Err(SpawnError::ShimLost) => {
                Verdict::Stopped(Stop::HandBack(Cause::GuardianLost), Exit::unknown())
            }
        };
        if let Some(task) = task {
            self.complete_task(task, &verdict, started_at).await;
        }
        verdict
    }

    fn launch<'b>(&'b self, program: &'b Program, surroundings: &'b Surroundings) -> Launch<'b> {
        Launch {
            program,
            shell: &self.context.config.shell,
            environment: &surroundings.environment,
            cwd: &surroundings.cwd,
            directory: &surroundings.directory,
            has_stdin: self.spec.stdin.is_some(),
            tty: self.spec.tty,
            limits: self.spec.limits,
            boundaries: surroundings.boundaries.as_ref(),
            account: self.account(),
            workspace: &surroundings.workspace,
        }
    }

    async fn see_to_its_end(&mut self, task: Option<usize>, spawned: Spawned) -> Verdict {
        let pid = spawned.pid;
        self.sender.send(Item::Started { pid, task }).await;
        let finished = self.follow(task, spawned).wait().await;
        self.deadline = Some(finished.deadline);
        self.reaped = self.reaped.saturating_add(finished.reaped);
        if let Some(shim) = finished.shim {
            self.context.shims.put_back(shim);
        }
        match finished.stop {
            Some(stop) => Verdict::Stopped(stop, finished.exit),
            None => Verdict::Exited(finished.exit),
        }
    }

    /// A process with everything that is to happen to it.
    fn follow(&self, task: Option<usize>, spawned: Spawned) -> Running<'_> {
        let spec = &self.spec;
        let now = Instant::now();
        let after = |ms: u64| now + Duration::from_millis(ms);
        let outlet = Outlet {
            task,
            sender: self.sender.clone(),
            activity: Activity::new(),
            give_up: CancellationToken::new(),
        };
        let (activity, give_up) = (outlet.activity.clone(), outlet.give_up.clone());
        let (pipes, input) = connect(spawned.channels, spec.stdin.as_deref(), &outlet);
        let is_deadly = spec.on_output_limit == OnOutputLimit::Kill;
        Running {
            context: self.context,
            orders: &self.held.orders,
            sender: &self.sender,
            shim: spawned.shim,
            pipes,
            input,
            give_up,
            activity,
            limits: TimeLimits {
                deadline: self.deadline.unwrap_or_else(|| after(spec.timeout_ms)),
                task_deadline: spec.timeout_per_task_ms.map(after),
                stall_timeout: spec.stall_timeout_ms.map(Duration::from_millis),
            },
            over_limit: is_deadly.then(|| self.over_limit.clone()),
            grace: spec
                .grace_ms
                .map_or(self.context.config.grace, Duration::from_millis),
            paused: None,
            stop: None,
        }
    }

    /// Tells of a task's end, in the log and in the record.
    async fn complete_task(&mut self, task: usize, verdict: &Verdict, started_at: Timestamp) {
        if verdict.is_success() {
            self.progress.completed += 1;
        } else {
            self.progress.failed += 1;
        }
        if !verdict.ends_execution()
            && let Some(failure) = verdict.failure(&self.spec, "")
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
    boundaries: Option<Boundaries>,
    cwd: PathBuf,
    /// The same, opened.
    directory: File,
    workspace: PathBuf,
}

/// Tasks that read all output, and tasks that write the input.
fn connect(channels: Channels, input: Option<&str>, outlet: &Outlet) -> (JoinSet<()>, JoinSet<()>) {
    let mut pumps = JoinSet::new();
    let mut feeds = JoinSet::new();
    match channels {
        Channels::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            pumps.spawn(pump(stdout, Stream::Stdout, outlet));
            pumps.spawn(pump(stderr, Stream::Stderr, outlet));
            if let Some((stdin, text)) = stdin.zip(input.map(str::to_owned)) {
                feeds.spawn(feed(stdin, text));
            }
        }
        Channels::Terminal(terminal) => {
            pumps.spawn(pump(terminal.clone(), Stream::Stdout, outlet));
            feeds.spawn(feed(terminal, terminal::typed(input.unwrap_or_default())));
        }
    }
    (pumps, feeds)
}

fn pump<R>(pipe: R, stream: Stream, outlet: &Outlet) -> impl Future<Output = ()> + use<R>
where
    R: AsyncRead + Unpin,
{
    Pump::new(pipe, stream, outlet.clone()).run()
}
