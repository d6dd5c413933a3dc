//! `DELETE /executions/{id}` and `POST /executions/{id}/control`: having an execution ended, paused, resumed.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use shared::life;
use shared::record::Record;
use shared::request::Problem;
use shared::state::State as Phase;
use utoipa::ToSchema;

use super::execute::read_body;
use crate::State;
use crate::error::{ApiError, ProblemBody};
use crate::params::{Params, execution_id};
use crate::view::Snapshot;

/// What to do with an execution.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Control {
    /// What to do.
    action: Action,
}

/// What can be done with an execution.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// End it, with all its processes: SIGTERM, a grace, SIGKILL.
    Cancel,
    /// Let all its processes stand still; its timeouts do too.
    Pause,
    /// Let them go on.
    Resume,
}

/// Cancel an execution.
///
/// A queued one ends at once (200). The worker of a running one is told (202); the log says when it has
/// ended. Asking twice is as good as asking once.
#[utoipa::path(
    delete, path = "/executions/{id}", tag = "executions",
    params(("id" = String, Path, description = "The execution")),
    responses(
        (status = 200, description = "It has ended as cancelled", body = Snapshot),
        (status = 202, description = "Its worker has been asked to end it", body = Snapshot),
        (status = 404, description = "There is no such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It has ended otherwise already", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    state: web::Data<State>,
    http: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    Params::read(&http, &[])?;
    let record = life::cancel(state.store.as_ref(), &execution_id(&path)?).await?;
    Ok(answer(&record))
}

/// Cancel, pause or resume an execution.
///
/// The worker of a running one is told (202); the log says when it has obeyed. Asking twice is as good as
/// asking once. Only a running execution can be paused or resumed.
#[utoipa::path(
    post, path = "/executions/{id}/control", tag = "executions",
    params(("id" = String, Path, description = "The execution")),
    request_body = Control,
    responses(
        (status = 200, description = "It has ended as cancelled", body = Snapshot),
        (status = 202, description = "Its worker has been told", body = Snapshot),
        (status = 400, description = "The action is not known", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "There is no such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It has ended otherwise already, or is not in a state for this", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn control(
    state: web::Data<State>,
    http: HttpRequest,
    path: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    Params::read(&http, &[])?;
    let id = execution_id(&path)?;
    let body = read_body(payload, state.config.max_body_bytes).await?;
    let control: Control = serde_json::from_slice(&body).map_err(|error| {
        ApiError::Invalid(vec![Problem::invalid(
            "action",
            format!("the body is {{\"action\": \"cancel\"}}, or `pause`, or `resume`: {error}"),
        )])
    })?;
    let store = state.store.as_ref();
    let record = match control.action {
        Action::Cancel => life::cancel(store, &id).await?,
        Action::Pause => life::pause(store, &id).await?,
        Action::Resume => life::resume(store, &id).await?,
    };
    Ok(answer(&record))
}

fn answer(record: &Record) -> HttpResponse {
    let mut response = match record.state {
        Phase::Queued(_) | Phase::Running(_) => HttpResponse::Accepted(),
        Phase::Ended(_) => HttpResponse::Ok(),
    };
    response.json(Snapshot::of(record))
}
