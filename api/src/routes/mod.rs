//! The paths, one resource a file.

pub(crate) mod control;
pub(crate) mod execute;
pub(crate) mod executions;
pub(crate) mod health;
pub(crate) mod output;
pub(crate) mod queues;
pub(crate) mod results;
pub(crate) mod workers;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, Route, guard, web};
use utoipa_swagger_ui::SwaggerUi;

use crate::error::ApiError;
use crate::openapi;

/// All paths there are.
pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/execute").route(web::post().to(execute::execute)))
        .service(resource("/executions").route(web::get().to(executions::list)))
        .service(
            resource("/executions/{id}")
                .route(web::get().to(executions::show))
                .route(web::delete().to(control::delete)),
        )
        .service(resource("/executions/{id}/control").route(web::post().to(control::control)))
        .service(resource("/executions/{id}/status").route(web::get().to(results::status)))
        .service(resource("/executions/{id}/results").route(web::get().to(results::results)))
        .service(resource("/executions/{id}/output").route(web::get().to(output::output)))
        .service(resource("/workers").route(web::get().to(workers::workers)))
        .service(resource("/queues").route(web::get().to(queues::queues)))
        .service(resource("/health").route(get_or_head().to(health::health)))
        .service(resource("/health/live").route(get_or_head().to(health::live)))
        .service(resource("/docs").route(get_or_head().to(docs)))
        .service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", openapi::document()));
}

fn resource(path: &str) -> actix_web::Resource {
    web::resource(path.to_owned()).default_service(web::to(method_not_allowed))
}

/// For what monitors ask for.
fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

async fn method_not_allowed() -> Result<HttpResponse, ApiError> {
    Err(ApiError::MethodNotAllowed)
}

async fn docs() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header(("Location", "/docs/"))
        .finish()
}

/// The answer where there is no path.
pub(crate) async fn nothing_here(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    if request.path() == "/" && request.method() == Method::GET {
        return Ok(docs().await);
    }
    Err(ApiError::UnknownPath)
}
