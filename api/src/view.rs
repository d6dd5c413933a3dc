//! Executions as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::outcome::Failure;
use shared::record::Record;
use shared::spec::{Program, Spec};
use shared::state::{Progress, State, Status};
use shared::time::Timestamp;
use utoipa::ToSchema;

/// An execution as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// Its id.
    pub execution_id: String,
    /// Where it stands.
    pub status: Status,
    /// Whom it belongs to.
    pub owner: String,
    /// What it runs, if that is one command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What it runs, if that is one program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// What it runs, if that is a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<TaskView>>,
    /// How its tasks are getting on, if it has a list of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Its queue.
    pub queue: String,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// The labels it was submitted with.
    pub labels: BTreeMap<String, String>,
    /// Attempts made, the present one included.
    pub attempt: u32,
    /// Attempts allowed.
    pub max_attempts: u32,
    /// The worker that runs it, or ran it last.
    pub worker: Option<String>,
    /// Whether its end has been asked for and has not come yet.
    pub cancel_requested: bool,
    /// Whether it has been asked to pause, and not to resume since.
    pub paused: bool,
    /// When it was submitted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its last attempt started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// The exit code; null if there is none, or not yet.
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<String>,
    /// From start to end.
    pub duration_ms: Option<u64>,
    /// Bytes of output that were delivered.
    pub output_bytes: Option<u64>,
    /// SHA-256 of that output, in hex.
    pub output_sha256: Option<String>,
    /// Whether there was more output than the limit.
    pub truncated: bool,
    /// Why it did not succeed, unless it simply exited.
    pub error: Option<Failure>,
    /// How many of its processes were left, and were ended, when its leader had gone.
    pub reaped: Option<u32>,
    /// The last 4 KiB that it wrote to standard error, unless it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
}

/// One task of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskView {
    /// The shell command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The program with its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
}

impl TaskView {
    fn of(program: &Program) -> Self {
        match program {
            Program::Command(command) => Self {
                command: Some(command.clone()),
                argv: None,
            },
            Program::Argv(argv) => Self {
                command: None,
                argv: Some(argv.clone()),
            },
        }
    }
}

impl Snapshot {
    /// What is known of an execution.
    pub(crate) fn of(record: &Record) -> Self {
        let spec = &record.spec;
        let blank = Self::blank(record, spec);
        match &record.state {
            State::Queued(_) => blank,
            State::Running(running) => Self {
                progress: spec.is_task_list.then_some(running.progress),
                worker: Some(running.worker.clone()),
                cancel_requested: running.cancel_requested,
                paused: running.paused,
                started_at: Some(running.started_at),
                ..blank
            },
            State::Ended(ended) => Self {
                progress: spec.is_task_list.then_some(ended.progress),
                worker: ended.worker.clone(),
                started_at: ended.started_at,
                ended_at: Some(ended.ended_at),
                exit_code: ended.outcome.exit_code,
                signal: ended.outcome.signal.clone(),
                duration_ms: Some(ended.outcome.duration_ms),
                output_bytes: ended.outcome.output_bytes,
                output_sha256: ended.outcome.output_sha256.clone(),
                truncated: ended.outcome.truncated,
                error: ended.outcome.error.clone(),
                reaped: ended.outcome.reaped,
                stderr_tail: ended.outcome.stderr_tail.clone(),
                ..blank
            },
        }
    }

    fn blank(record: &Record, spec: &Spec) -> Self {
        let single = spec
            .tasks
            .first()
            .filter(|_| !spec.is_task_list)
            .map(TaskView::of);
        let (command, argv) = single.map_or((None, None), |task| (task.command, task.argv));
        Self {
            execution_id: record.id.to_string(),
            status: record.state.status(),
            owner: record.owner.as_str().to_owned(),
            command,
            argv,
            tasks: spec
                .is_task_list
                .then(|| spec.tasks.iter().map(TaskView::of).collect()),
            progress: spec.is_task_list.then(Progress::default),
            queue: spec.queue.clone(),
            priority: spec.priority,
            labels: spec.labels.clone(),
            attempt: record.state.attempt(),
            max_attempts: spec.max_attempts,
            worker: None,
            cancel_requested: false,
            paused: false,
            created_at: record.created_at,
            started_at: None,
            ended_at: None,
            exit_code: None,
            signal: None,
            duration_ms: None,
            output_bytes: None,
            output_sha256: None,
            truncated: false,
            error: None,
            reaped: None,
            stderr_tail: None,
        }
    }
}

/// The entity tag of an execution as it stands.
pub(crate) fn etag(record: &Record) -> String {
    format!("\"{}\"", record.revision)
}
