//! `GET /executions` and `GET /executions/{id}`: what there is, and one of them in three forms.

use actix_web::http::header::{ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::id::ExecutionId;
use shared::record::Record;
use shared::state::Status;
use shared::store::Filter;
use utoipa::ToSchema;

use super::execute::shared_docs;
use crate::State;
use crate::body::{CancelOnDrop, respond};
use crate::error::{ApiError, ProblemBody};
use crate::params::{Form, Params, execution_id, form};
use crate::reader::LogReader;
use crate::view::{Snapshot, etag};

const DEFAULT_LIMIT: usize = 50;
const MOST: usize = 500;

/// A part of the list of executions.
#[derive(Serialize, ToSchema)]
pub(crate) struct List {
    /// The newest first.
    executions: Vec<Snapshot>,
    /// For `?cursor=`, to go on; null at the end.
    next_cursor: Option<String>,
}

/// List executions, newest first.
#[utoipa::path(
    get, path = "/executions", tag = "executions",
    params(
        ("status" = Option<Status>, Query, description = "Only those of this status"),
        ("queue" = Option<String>, Query, description = "Only those of this queue"),
        ("label" = Option<String>, Query, description = "Only those with this label, as `name=value`; may be repeated"),
        ("limit" = Option<usize>, Query, description = "How many, 1 to 500. Default: 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "One page", body = List),
        (status = 400, description = "A parameter is not right", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    state: web::Data<State>,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let params = Params::read(&http, &["status", "queue", "label", "limit", "cursor"])?;
    let cursor = params.get("cursor").map(str::parse).transpose();
    let cursor = cursor
        .map_err(|_| ApiError::parameter("cursor", "is the `next_cursor` of another page"))?;
    let page = state
        .store
        .list(&filter(&params)?, cursor.as_ref(), limit(&params)?)
        .await?;
    Ok(HttpResponse::Ok().json(List {
        executions: page.records.iter().map(Snapshot::of).collect(),
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

fn filter(params: &Params) -> Result<Filter, ApiError> {
    let status = params.get("status").map(|word| {
        let unknown = || {
            ApiError::parameter(
                "status",
                format!("is a status like queued, running or succeeded, not {word:?}"),
            )
        };
        Status::from_word(word).ok_or_else(unknown)
    });
    let labels = params.all("label").map(|label| {
        let malformed =
            || ApiError::parameter("label", format!("is written name=value, not {label:?}"));
        let (name, value) = label.split_once('=').ok_or_else(malformed)?;
        Ok((name.to_owned(), value.to_owned()))
    });
    Ok(Filter {
        owner: None,
        status: status.transpose()?,
        queue: params.get("queue").map(str::to_owned),
        labels: labels.collect::<Result<_, ApiError>>()?,
    })
}

fn limit(params: &Params) -> Result<usize, ApiError> {
    let Some(text) = params.get("limit") else {
        return Ok(DEFAULT_LIMIT);
    };
    match text.parse() {
        Ok(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        _ => Err(ApiError::parameter(
            "limit",
            format!("is a whole number from 1 to {MOST}, not {text:?}"),
        )),
    }
}

/// Follow an execution, or look at it.
///
/// `Accept: application/json` gives one snapshot, with an `ETag` for polling. `text/event-stream` gives
/// server-sent events, resumed by `Last-Event-ID`. Anything else gives NDJSON: everything after `?after=`,
/// then live until `complete`.
#[utoipa::path(
    get, path = "/executions/{id}", tag = "executions",
    params(
        ("id" = String, Path, description = "The execution"),
        ("after" = Option<String>, Query, description = "The `id` of the last line seen. Default: from the start"),
        ("follow" = Option<bool>, Query, description = "False ends the stream at what exists now. Default: true"),
        ("cancel_on_disconnect" = Option<bool>, Query, description = "Cancel the execution if this client leaves before its end. Default: false"),
        ("Last-Event-ID" = Option<String>, Header, description = "As `after`, sent by clients of server-sent events"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the last snapshot seen"),
    ),
    responses(
        (status = 200, description = "The event log, or a snapshot", content((shared_docs::Event = "application/x-ndjson"), (shared_docs::Event = "text/event-stream"), (Snapshot = "application/json"))),
        (status = 304, description = "The snapshot has not changed"),
        (status = 400, description = "A parameter is not right", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "There is no such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    state: web::Data<State>,
    http: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let params = Params::read(&http, &["after", "follow", "cancel_on_disconnect"])?;
    let cursor = params.cursor(&http)?;
    let follow = params.flag("follow", true)?;
    let cancels = params.flag("cancel_on_disconnect", false)?;
    let id = execution_id(&path)?;
    let record = find(&state, &id).await?;
    match form(&http) {
        Form::Json => Ok(snapshot(&http, &record)),
        form @ (Form::Sse | Form::Ndjson) => {
            let watch = state.store.watch(&id).await;
            let reader = LogReader::new(state.clone(), id.clone(), watch, cursor, follow);
            let guard = cancels.then(|| CancelOnDrop::new(state, id));
            Ok(respond(HttpResponse::Ok(), reader, form, guard))
        }
    }
}

/// An execution's record.
pub(crate) async fn find(state: &State, id: &ExecutionId) -> Result<Record, ApiError> {
    state
        .store
        .load(id)
        .await?
        .ok_or(ApiError::UnknownExecution)
}

fn snapshot(http: &HttpRequest, record: &Record) -> HttpResponse {
    let etag = etag(record);
    let seen = http
        .headers()
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let mut seen = seen.unwrap_or_default().split(',');
    if seen.any(|tag| tag.trim().trim_start_matches("W/") == etag) {
        return HttpResponse::NotModified()
            .insert_header((ETAG, etag))
            .finish();
    }
    HttpResponse::Ok()
        .insert_header((ETAG, etag))
        .json(Snapshot::of(record))
}
