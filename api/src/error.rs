//! What a client is told when something is wrong: `application/problem+json` (RFC 9457) with a
//! stable `code`. The one place that knows which problem is which HTTP status.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use shared::life::ChangeError;
use shared::request::Problem;
use shared::state::Refusal;
use shared::store::StoreError;
use thiserror::Error;
use utoipa::ToSchema;

/// Seconds after which it is worth trying again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Why a request is not answered as the client hoped.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    /// The body or a parameter is not right.
    #[error("the request is not right")]
    Invalid(Vec<Problem>),
    /// The body is too large.
    #[error("the body is larger than {limit} bytes; put less into it or raise CC_MAX_BODY_BYTES")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body is of another type than JSON.
    #[error("the body has to be sent with the header Content-Type: application/json")]
    NotJson,
    /// The body broke off.
    #[error("the body broke off before its end")]
    BrokenBody,
    /// No key, or one that is not known.
    #[error("a valid API key is needed, in the header Authorization: Bearer <key>")]
    Unauthorized,
    /// A `Host` that this server does not go by.
    #[error(
        "this server does not go by the name in the Host header; CC_ALLOWED_HOSTS lists its names"
    )]
    UnknownHost,
    /// A web page of another origin.
    #[error(
        "web pages of this Origin may not call this server; CC_ALLOWED_ORIGINS lists those that may"
    )]
    ForeignOrigin,
    /// There is no such execution.
    #[error("there is no execution with this id; it may be past its retention")]
    UnknownExecution,
    /// There is nothing at this path.
    #[error("there is nothing at this path; GET /docs shows what there is")]
    UnknownPath,
    /// The path does not know this method.
    #[error("this path does not know this method; GET /docs shows what there is")]
    MethodNotAllowed,
    /// The id belongs to another job.
    #[error("an execution with this id exists and was submitted with another job; use a new id")]
    IdInUse,
    /// The execution is over.
    #[error("the execution has ended already")]
    AlreadyEnded,
    /// Only a running execution can be paused.
    #[error("the execution is not running, so it can be neither paused nor resumed")]
    NotRunning,
    /// Its end has been asked for.
    #[error("the execution is being cancelled, so it cannot be paused")]
    BeingCancelled,
    /// Others keep changing the execution.
    #[error("the execution is being changed by others; try again")]
    Contended,
    /// The store cannot be reached.
    #[error("the store cannot be reached; try again")]
    Unavailable(#[source] StoreError),
}

/// An error as clients see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem.
    pub code: String,
    /// What is wrong, and what helps.
    pub detail: String,
    /// The field that is to blame, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// All problems, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl ApiError {
    /// A parameter that is not right.
    pub(crate) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem::invalid(name, detail)])
    }

    fn classify(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid(problems) => {
                let code = problems
                    .first()
                    .map_or("invalid_field", |problem| problem.code);
                (StatusCode::BAD_REQUEST, code)
            }
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::BrokenBody => (StatusCode::BAD_REQUEST, "broken_body"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::UnknownHost => (StatusCode::MISDIRECTED_REQUEST, "unknown_host"),
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin"),
            Self::UnknownExecution => (StatusCode::NOT_FOUND, "unknown_execution"),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::IdInUse => (StatusCode::CONFLICT, "id_in_use"),
            Self::AlreadyEnded => (StatusCode::CONFLICT, "already_ended"),
            Self::NotRunning => (StatusCode::CONFLICT, "not_running"),
            Self::BeingCancelled => (StatusCode::CONFLICT, "being_cancelled"),
            Self::Contended => (StatusCode::SERVICE_UNAVAILABLE, "contended"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        }
    }

    fn body(&self) -> ProblemBody {
        let (status, code) = self.classify();
        let (field, detail, problems) = match self {
            Self::Invalid(problems) => {
                let first = problems.first();
                let detail =
                    first.map_or_else(|| self.to_string(), |problem| problem.detail.clone());
                let all = if problems.len() > 1 {
                    problems.clone()
                } else {
                    Vec::new()
                };
                (first.and_then(|problem| problem.field.clone()), detail, all)
            }
            _ => (None, self.to_string(), Vec::new()),
        };
        ProblemBody {
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail,
            field,
            problems,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.classify().0
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        match self {
            Self::Unavailable(error) => {
                let error = shared::entry::chain(error);
                tracing::warn!(error, "failed to answer a request");
                response.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
            }
            Self::Contended => {
                response.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
            }
            Self::Unauthorized => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer"));
            }
            _ => {}
        }
        response.body(serde_json::to_vec(&self.body()).unwrap_or_default())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error)
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown => Self::UnknownExecution,
            ChangeError::Refused(Refusal::NotRunning) => Self::NotRunning,
            ChangeError::Refused(Refusal::CancelRequested) => Self::BeingCancelled,
            ChangeError::Refused(
                Refusal::AlreadyEnded | Refusal::NotQueued | Refusal::StaleAttempt,
            ) => Self::AlreadyEnded,
            ChangeError::LeaseHeld | ChangeError::Contended => Self::Contended,
            ChangeError::Store(error) => Self::Unavailable(error),
        }
    }
}
