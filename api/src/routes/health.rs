//! `GET /health` and `/health/live`: whether it is worth talking to this server.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::State;
use crate::error::{ApiError, ProblemBody};

/// That all is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `healthy`.
    status: &'static str,
    /// The version of this server.
    version: &'static str,
    /// The engine of the store: `redis` or `embedded`.
    store: &'static str,
    /// How many workers are alive; without any, jobs are taken and wait.
    workers: usize,
}

/// Whether this server can take and serve jobs.
#[utoipa::path(
    get, path = "/health", tag = "operations",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "It cannot: the store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn health(state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    state.store.ping().await?;
    let workers = state.store.workers().await?.len();
    Ok(HttpResponse::Ok().json(Health {
        status: "healthy",
        version: env!("CARGO_PKG_VERSION"),
        store: state.store.engine(),
        workers,
    }))
}

/// Whether this server runs at all.
#[utoipa::path(
    get, path = "/health/live", tag = "operations",
    responses((status = 200, description = "It runs"))
)]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({"status": "alive"}))
}
