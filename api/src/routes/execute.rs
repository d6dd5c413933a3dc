//! `POST /execute`: a job goes in.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{ACCEPT, ETAG, LOCATION};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::id::{EventId, ExecutionId, Owner};
use shared::record::Record;
use shared::request::{Problem, Request};
use shared::spec::Spec;
use shared::store::{Submission, Submitted};
use utoipa::ToSchema;

use crate::State;
use crate::body::{CancelOnDrop, respond};
use crate::error::{ApiError, ProblemBody};
use crate::params::{Form, Params, form};
use crate::reader::LogReader;
use crate::transcript::{Transcript, text};
use crate::view::{Snapshot, etag};

const LONGEST_KEY: usize = 255;

/// An execution that has ended, with what it printed.
#[derive(Serialize, ToSchema)]
pub(crate) struct FullResult {
    #[serde(flatten)]
    snapshot: Snapshot,
    /// Standard output, of all tasks one after the other.
    stdout: String,
    /// `base64` if standard output is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_encoding: Option<&'static str>,
    /// Standard error, of all tasks one after the other.
    stderr: String,
    /// `base64` if standard error is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_encoding: Option<&'static str>,
    /// Whether there is more than this reply holds (16 MiB); `GET …/output` has everything.
    output_cut: bool,
}

/// Run a job.
///
/// With `"stream": true` (the default) the reply is the execution's event log as NDJSON, from its first
/// line on and live until `complete`. Leaving does not end the job: `GET /executions/{id}?after=<id>`
/// resumes behind the last line seen, at any server.
#[utoipa::path(
    post, path = "/execute", tag = "executions",
    params(
        ("cancel_on_disconnect" = Option<bool>, Query, description = "Cancel the execution if this client leaves before its end. Default: false"),
        ("Idempotency-Key" = Option<String>, Header, description = "For callers who want a generated id: the same key attaches to the same execution. 1 to 255 characters"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: as `\"stream\": false`"),
    ),
    request_body = Request,
    responses(
        (status = 200, description = "The event log as NDJSON (or server-sent events, if accepted); or, with `wait`, the ended execution as JSON",
         content((shared_docs::Event = "application/x-ndjson"), (shared_docs::Event = "text/event-stream"), (FullResult = "application/json"))),
        (status = 202, description = "Queued durably; `Location` says where to ask", body = Snapshot),
        (status = 400, description = "The job is not right; `field` says where", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No valid API key", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The id belongs to another job", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is not sent as application/json", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached; nothing was queued", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn execute(
    state: web::Data<State>,
    http: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let params = Params::read(&http, &["cancel_on_disconnect"])?;
    let cancels = params.flag("cancel_on_disconnect", false)?;
    let body = read_body(payload, state.config.max_body_bytes).await?;
    let request = Request::parse(&body).map_err(|problem| ApiError::Invalid(vec![problem]))?;
    let owner = http
        .extensions()
        .get()
        .cloned()
        .unwrap_or_else(Owner::local);
    let id = choose_id(&http, &request, &owner)?;
    let is_stream = wants_stream(&http, &request);
    let wait = request.wait.filter(|_| !is_stream);
    if request.wait.is_some() && is_stream {
        return Err(ApiError::parameter(
            "wait",
            "only means something together with \"stream\": false",
        ));
    }
    let submission = Submission {
        id: id.clone(),
        owner,
        fingerprint: request.fingerprint(),
        spec: Arc::new(Spec::check(request, &state.config.policy).map_err(ApiError::Invalid)?),
    };
    if is_stream {
        let watched = state.store.watch(&id);
        let (submitted, watch) = tokio::join!(submit(&state, &submission), watched);
        submitted?;
        let reader = LogReader::new(state.clone(), id.clone(), watch, EventId::START, true);
        let guard = cancels.then(|| CancelOnDrop::new(state, id));
        let form = if form(&http) == Form::Sse {
            Form::Sse
        } else {
            Form::Ndjson
        };
        return Ok(respond(HttpResponse::Ok(), reader, form, guard));
    }
    let record = submit(&state, &submission).await?;
    match wait {
        Some(seconds) => wait_for_end(&state, record, Duration::from_secs_f64(seconds)).await,
        None => Ok(accepted(&record)),
    }
}

pub(crate) async fn read_body(
    payload: web::Payload,
    limit: usize,
) -> Result<bytes::Bytes, ApiError> {
    match payload.to_bytes_limited(limit).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(ApiError::BrokenBody),
        Err(_) => Err(ApiError::TooLarge { limit }),
    }
}

fn choose_id(
    http: &HttpRequest,
    request: &Request,
    owner: &Owner,
) -> Result<ExecutionId, ApiError> {
    let header = http.headers().get("Idempotency-Key");
    let key = header.map(|value| value.to_str().unwrap_or_default());
    match (&request.execution_id, key) {
        (Some(_), Some(_)) => Err(ApiError::parameter(
            "Idempotency-Key",
            "is for callers who want a generated id; `execution_id` is given, and is an idempotency key itself",
        )),
        (Some(id), None) => id.parse().map_err(|error| {
            ApiError::Invalid(vec![Problem::invalid(
                "execution_id",
                format!("{error}, not {id:?}"),
            )])
        }),
        (None, Some(key)) if (1..=LONGEST_KEY).contains(&key.len()) => {
            Ok(ExecutionId::from_idempotency_key(owner, key))
        }
        (None, Some(_)) => Err(ApiError::parameter(
            "Idempotency-Key",
            format!("is 1 to {LONGEST_KEY} visible ASCII characters"),
        )),
        (None, None) => Ok(ExecutionId::generate()),
    }
}

/// A stream, unless the body says otherwise, or the headers do and the body says nothing.
fn wants_stream(http: &HttpRequest, request: &Request) -> bool {
    let header = |name| {
        http.headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let prefers_async = || {
        let preferences = header("Prefer").unwrap_or_default().split([',', ';']);
        preferences
            .map(str::trim)
            .any(|preference| preference.eq_ignore_ascii_case("respond-async"))
    };
    let accepts_only_json = || {
        let accepted = header(ACCEPT.as_str()).unwrap_or_default().split(',');
        let mut types = accepted.map(|part| part.split(';').next().unwrap_or_default().trim());
        types.all(|media_type| media_type.eq_ignore_ascii_case("application/json"))
    };
    request
        .stream
        .unwrap_or_else(|| !prefers_async() && !accepts_only_json())
}

async fn submit(state: &State, submission: &Submission) -> Result<Record, ApiError> {
    match state.store.submit(submission).await? {
        Submitted::Created(record) => {
            tracing::debug!(execution_id = %record.id, queue = record.spec.queue, "queued");
            Ok(record)
        }
        Submitted::Existing(record) if record.fingerprint == submission.fingerprint => Ok(record),
        Submitted::Existing(_) => Err(ApiError::IdInUse),
    }
}

fn accepted(record: &Record) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((LOCATION, format!("/executions/{}", record.id)))
        .insert_header((ETAG, etag(record)))
        .json(Snapshot::of(record))
}

/// Holds the reply until the end, or for as long as the caller wants to wait.
async fn wait_for_end(
    state: &State,
    mut record: Record,
    at_most: Duration,
) -> Result<HttpResponse, ApiError> {
    let deadline = tokio::time::Instant::now() + at_most;
    let mut watch = state.store.watch(&record.id).await;
    loop {
        // A notice that got lost costs one heartbeat interval.
        let look_again = tokio::time::Instant::now() + state.config.heartbeat;
        record = match state.store.load(&record.id).await? {
            Some(record) => record,
            None => return Err(ApiError::UnknownExecution),
        };
        if matches!(record.state, shared::state::State::Ended(_)) {
            return full_result(state, &record).await;
        }
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep_until(look_again.min(deadline)) => {}
            () = state.ending.cancelled() => return Ok(accepted(&record)),
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(accepted(&record));
        }
    }
}

async fn full_result(state: &State, record: &Record) -> Result<HttpResponse, ApiError> {
    let transcript = Transcript::read(state.store.as_ref(), record).await?;
    let mut stdout = Vec::new();
    let mut stderr = Vec::new();
    for task in transcript.tasks {
        stdout.extend(task.stdout);
        stderr.extend(task.stderr);
    }
    let ((stdout, stdout_encoding), (stderr, stderr_encoding)) = (text(stdout), text(stderr));
    let result = FullResult {
        snapshot: Snapshot::of(record),
        stdout,
        stdout_encoding,
        stderr,
        stderr_encoding,
        output_cut: transcript.is_cut,
    };
    Ok(HttpResponse::Ok()
        .insert_header((ETAG, etag(record)))
        .json(result))
}

/// Shapes that only the documentation needs.
pub(crate) mod shared_docs {
    use super::{Serialize, ToSchema};

    /// One line of an event log. Fields depend on `type`; clients ignore types they do not know.
    #[derive(Serialize, ToSchema)]
    #[schema(example = json!({"id": "1-2", "type": "output", "ts": "2026-11-21T10:00:00.000Z", "stream": "stdout", "data": "hello\n"}))]
    pub(crate) struct Event {
        /// `<attempt>-<sequence>`: strictly increasing, and the cursor to resume from. Lines that are
        /// not stored (`heartbeat`, `gap`) have none.
        pub(crate) id: Option<String>,
        /// `queued`, `started`, `output`, `paused`, `resumed`, `error`, `task_complete`, `retry`, `complete`,
        /// `heartbeat` or `gap`.
        pub(crate) r#type: String,
        /// When the line was written (RFC 3339, UTC).
        pub(crate) ts: Option<String>,
        /// Of `started`: how its processes are confined, `off`, `workspace` or `strict`.
        pub(crate) sandbox: Option<String>,
        /// Of `output`: `stdout` or `stderr`.
        pub(crate) stream: Option<String>,
        /// Of `output`: what was written. All `data` of a stream, concatenated, are its exact bytes.
        pub(crate) data: Option<String>,
        /// Of `output`: `base64` if the bytes are not UTF-8.
        pub(crate) encoding: Option<String>,
        /// Of lines that belong to one of several tasks: its index.
        pub(crate) task: Option<usize>,
        /// Of `error`: the reason in a sentence.
        pub(crate) error: Option<String>,
        /// Of `error`: its stable name.
        pub(crate) code: Option<String>,
        /// Of `queued` and `complete`: where the execution stands.
        pub(crate) status: Option<String>,
        /// Of `complete`: the exit code, if there is one.
        pub(crate) exit_code: Option<i32>,
        /// Of `complete`: the signal that killed it.
        pub(crate) signal: Option<String>,
        /// Of `complete`: from start to end.
        pub(crate) duration_ms: Option<u64>,
        /// Of `complete`: bytes of output delivered.
        pub(crate) output_bytes: Option<u64>,
        /// Of `complete`: SHA-256 of that output in the order of its lines.
        pub(crate) output_sha256: Option<String>,
        /// Of `complete`: whether there was more output than the limit.
        pub(crate) truncated: Option<bool>,
        /// Of `complete`: how many of its processes were left, and were ended, when its leader had gone;
        /// null if nobody saw that.
        pub(crate) reaped: Option<u32>,
    }
}
