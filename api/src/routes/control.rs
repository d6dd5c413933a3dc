//! `DELETE /executions/{id}` and `POST /executions/{id}/control`: having an execution ended.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use shared::id::ExecutionId;
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
    /// End it: SIGTERM, a grace, SIGKILL.
    Cancel,
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
    cancel(&state, &execution_id(&path)?).await
}

/// Control an execution.
#[utoipa::path(
    post, path = "/executions/{id}/control", tag = "executions",
    params(("id" = String, Path, description = "The execution")),
    request_body = Control,
    responses(
        (status = 200, description = "It has ended as cancelled", body = Snapshot),
        (status = 202, description = "Its worker has been asked to end it", body = Snapshot),
        (status = 400, description = "The action is not known", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "There is no such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It has ended otherwise already", body = ProblemBody, content_type = "application/problem+json"),
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
            format!("the body is {{\"action\": \"cancel\"}}: {error}"),
        )])
    })?;
    match control.action {
        Action::Cancel => cancel(&state, &id).await,
    }
}

async fn cancel(state: &State, id: &ExecutionId) -> Result<HttpResponse, ApiError> {
    let record = shared::life::cancel(state.store.as_ref(), id).await?;
    let mut response = match record.state {
        Phase::Queued(_) | Phase::Running(_) => HttpResponse::Accepted(),
        Phase::Ended(_) => HttpResponse::Ok(),
    };
    Ok(response.json(Snapshot::of(&record)))
}
