//! `GET /workers`: who is alive.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::store::WorkerInfo;
use utoipa::ToSchema;

use crate::State;
use crate::error::{ApiError, ProblemBody};
use crate::params::Params;

/// The workers that are alive.
#[derive(Serialize, ToSchema)]
pub(crate) struct Workers {
    /// By name.
    workers: Vec<WorkerInfo>,
}

/// The workers that are alive, and what they run.
#[utoipa::path(
    get, path = "/workers", tag = "operations",
    responses(
        (status = 200, description = "The workers", body = Workers),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn workers(
    state: web::Data<State>,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    Params::read(&http, &[])?;
    let workers = state.store.workers().await?;
    Ok(HttpResponse::Ok().json(Workers { workers }))
}
