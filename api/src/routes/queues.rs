//! `GET /queues`: how full they are.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::store::QueueInfo;
use utoipa::ToSchema;

use crate::State;
use crate::error::{ApiError, ProblemBody};
use crate::params::Params;

/// The queues that have anything in them.
#[derive(Serialize, ToSchema)]
pub(crate) struct Queues {
    /// By name.
    queues: Vec<QueueInfo>,
}

/// The queues that have anything in them.
#[utoipa::path(
    get, path = "/queues", tag = "operations",
    responses(
        (status = 200, description = "The queues", body = Queues),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn queues(
    state: web::Data<State>,
    http: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    Params::read(&http, &[])?;
    let queues = state.store.queues().await?;
    Ok(HttpResponse::Ok().json(Queues { queues }))
}
