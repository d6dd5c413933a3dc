//! `GET /executions/{id}/status` and `/results`: the forms that existing clients poll.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::record::Record;
use shared::state::{Progress, State as Phase, Status};
use shared::time::Timestamp;
use utoipa::ToSchema;

use super::executions::find;
use crate::State;
use crate::error::{ApiError, ProblemBody};
use crate::params::{Params, execution_id};
use crate::transcript::{TaskTranscript, Transcript, text};

/// How an execution is getting on.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatusReport {
    /// The execution.
    execution_id: String,
    /// Where it stands.
    status: Status,
    /// In words.
    #[schema(example = "3/5 tasks completed")]
    progress: String,
    /// What runs now.
    current_task: Option<String>,
}

/// What the tasks of an execution have come to.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the names are the wire's")]
pub(crate) struct Results {
    /// The execution.
    execution_id: String,
    /// Where it stands.
    status: Status,
    /// How many tasks it has; a single command is a list of one.
    total_tasks: usize,
    /// How many have exited with 0.
    completed_tasks: usize,
    /// How many have ended otherwise.
    failed_tasks: usize,
    /// Those that have started, in order.
    results: Vec<TaskResult>,
    /// When it started.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    completed_at: Option<Timestamp>,
    /// Seconds from start to end.
    total_execution_time: Option<f64>,
    /// Whether there is more output than this reply holds (16 MiB); `GET …/output` has everything.
    output_cut: bool,
}

/// What one task has come to.
#[derive(Serialize, ToSchema)]
pub(crate) struct TaskResult {
    /// From 1.
    task_number: usize,
    /// What was run.
    task_description: String,
    /// The exit code; null if there is none, or not yet.
    exit_code: Option<i32>,
    /// What it printed.
    stdout: String,
    /// `base64` if that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_encoding: Option<&'static str>,
    /// What it printed to standard error.
    stderr: String,
    /// `base64` if that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_encoding: Option<&'static str>,
    /// Seconds from start to end.
    execution_time: Option<f64>,
    /// When it ended.
    completed_at: Option<String>,
}

/// How far an execution is.
#[utoipa::path(
    get, path = "/executions/{id}/status", tag = "executions",
    params(("id" = String, Path, description = "The execution")),
    responses(
        (status = 200, description = "How it is getting on", body = StatusReport),
        (status = 404, description = "There is no such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn status(
    state: web::Data<State>,
    http: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    Params::read(&http, &[])?;
    let record = find(&state, &execution_id(&path)?).await?;
    let Progress { completed, failed } = progress(&record);
    let total = record.spec.tasks.len();
    let current = match record.state {
        Phase::Running(_) => record.spec.tasks.get(completed + failed),
        Phase::Queued(_) | Phase::Ended(_) => None,
    };
    Ok(HttpResponse::Ok().json(StatusReport {
        execution_id: record.id.to_string(),
        status: record.state.status(),
        progress: format!("{completed}/{total} tasks completed"),
        current_task: current.map(shared::spec::Program::description),
    }))
}

/// What an execution's tasks printed and how they ended.
#[utoipa::path(
    get, path = "/executions/{id}/results", tag = "executions",
    params(("id" = String, Path, description = "The execution")),
    responses(
        (status = 200, description = "What there is so far", body = Results),
        (status = 404, description = "There is no such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn results(
    state: web::Data<State>,
    http: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    Params::read(&http, &[])?;
    let record = find(&state, &execution_id(&path)?).await?;
    let transcript = Transcript::read(state.store.as_ref(), &record).await?;
    let Progress { completed, failed } = progress(&record);
    let (started_at, completed_at) = match &record.state {
        Phase::Queued(_) => (None, None),
        Phase::Running(running) => (Some(running.started_at), None),
        Phase::Ended(ended) => (ended.started_at, Some(ended.ended_at)),
    };
    let descriptions = record
        .spec
        .tasks
        .iter()
        .map(shared::spec::Program::description);
    let results = transcript.tasks.into_iter().zip(descriptions).enumerate();
    Ok(HttpResponse::Ok().json(Results {
        execution_id: record.id.to_string(),
        status: record.state.status(),
        total_tasks: record.spec.tasks.len(),
        completed_tasks: completed,
        failed_tasks: failed,
        results: results
            .filter(|(_, (task, _))| task.is_started || task.completed_at.is_some())
            .map(|(index, (task, description))| result(index, task, description))
            .collect(),
        started_at,
        completed_at,
        total_execution_time: started_at
            .zip(completed_at)
            .map(|(from, to)| seconds(to.ms_since(from))),
        output_cut: transcript.is_cut,
    }))
}

fn result(index: usize, task: TaskTranscript, description: String) -> TaskResult {
    let (stdout, stdout_encoding) = text(task.stdout);
    let (stderr, stderr_encoding) = text(task.stderr);
    TaskResult {
        task_number: index + 1,
        task_description: description,
        exit_code: task.exit_code,
        stdout,
        stdout_encoding,
        stderr,
        stderr_encoding,
        execution_time: task.duration_ms.map(seconds),
        completed_at: task.completed_at,
    }
}

/// How the tasks are getting on; a single command is a list of one.
fn progress(record: &Record) -> Progress {
    match &record.state {
        Phase::Queued(_) => Progress::default(),
        Phase::Running(running) => running.progress,
        Phase::Ended(ended) if record.spec.is_task_list => ended.progress,
        Phase::Ended(ended) => {
            let completed = usize::from(ended.outcome.ending == shared::outcome::Ending::Succeeded);
            Progress {
                completed,
                failed: 1 - completed,
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "executions take far fewer milliseconds than a double has bits"
)]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
