//! The description of this API, generated from the handlers.

use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::routes::{control, execute, executions, health, output, queues, results, workers};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "cc-executor",
        description = "Runs command-line jobs dependably: a job goes in by HTTP, a worker runs it, and every byte streams back live, to anybody, from any point, as often as they ask.\n\nErrors are `application/problem+json` with a stable `code`. Where API keys are configured, every path but `/health`, `/health/live`, `/docs` and `/openapi.json` wants `Authorization: Bearer <key>`.",
    ),
    paths(
        execute::execute, executions::list, executions::show, control::delete, control::control,
        results::status, results::results, output::output, workers::workers, queues::queues,
        health::health, health::live,
    ),
    tags(
        (name = "executions", description = "Jobs, and what they print"),
        (name = "operations", description = "Workers, queues, health"),
    ),
    modifiers(&Bearer),
    security((), ("bearer" = [])),
)]
struct Api;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The description as a document.
pub fn document() -> Document {
    Api::openapi()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make openapi` runs this with `UPDATE_OPENAPI=1`, which writes the file instead.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch of this test, not a setting"
    )]
    fn the_committed_description_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi/openapi.json");
        let mut current = document().to_pretty_json().expect("serializes");
        current.push('\n');
        if std::env::var("UPDATE_OPENAPI").is_ok() {
            std::fs::write(path, &current).expect("can be written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == current,
            "openapi/openapi.json is not current: run `make openapi`"
        );
    }
}
