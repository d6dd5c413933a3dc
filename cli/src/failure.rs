//! What can go wrong with a request, and whether it may go away by itself.

use std::error::Error as _;

use reqwest::StatusCode;
use serde::Deserialize;
use thiserror::Error;

use crate::client::SILENCE;

/// Why a request was not answered as hoped.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// HTTP itself cannot be had.
    #[error("cannot set up HTTP: {}", root(cause))]
    Setup { cause: reqwest::Error },
    /// There is no connection to be had.
    #[error("cannot reach {url}: {}", root(cause))]
    Unreachable { url: String, cause: reqwest::Error },
    /// The connection broke.
    #[error("the connection to {url} broke: {}", root(cause))]
    Broken { url: String, cause: reqwest::Error },
    /// A stream came to its end before the execution did.
    #[error("{url} ended the stream before the job had ended")]
    Cut { url: String },
    /// Nothing came for too long.
    #[error("{url} has been silent for {} s", SILENCE.as_secs())]
    Silent { url: String },
    /// The server says no.
    #[error("{0}")]
    Refused(Refusal),
    /// Something else than cc-executor answered.
    #[error(
        "{url} answers ({status}), but not as cc-executor does; does CC_URL name the right server?"
    )]
    Foreign { url: String, status: StatusCode },
}

/// What the server says is wrong.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    problems: Vec<Problem>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
    field: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ProblemBody {
    #[serde(flatten)]
    first: Problem,
    #[serde(default)]
    problems: Vec<Problem>,
}

impl Refusal {
    /// Reads the server's answer, if it is one of cc-executor's.
    pub(crate) fn parse(status: StatusCode, text: &str) -> Option<Self> {
        let body: ProblemBody = serde_json::from_str(text).ok()?;
        let problems = if body.problems.is_empty() {
            vec![body.first]
        } else {
            body.problems
        };
        Some(Self { status, problems })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let field = problem.field.as_deref().unwrap_or_default();
            let colon = if field.is_empty() { "" } else { ": " };
            write!(formatter, "{separator}{field}{colon}{}", problem.detail)?;
        }
        if self.status == StatusCode::UNAUTHORIZED {
            formatter.write_str(" (CC_API_KEY sets it)")?;
        }
        Ok(())
    }
}

impl ClientError {
    /// Whether it may go away by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Cut { .. }
            | Self::Silent { .. } => true,
            Self::Refused(Refusal { status, .. }) | Self::Foreign { status, .. } => matches!(
                *status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            Self::Setup { .. } => false,
        }
    }

    /// What helps where there is no server.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => {
                Some("`cc-executor serve` starts a server, CC_URL names another")
            }
            _ => None,
        }
    }

    /// The status of a server that says no.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }
}

/// The innermost reason, which is what a person understands.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match error.source() {
        Some(_) => cause.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_with_its_field() {
        let text = r#"{"status":400,"detail":"is 0 to 9, not 10","field":"priority","problems":[
            {"detail":"is 0 to 9, not 10","field":"priority"},{"detail":"something"}]}"#;
        let refusal = Refusal::parse(StatusCode::BAD_REQUEST, text).expect("is read");
        assert_eq!(
            refusal.to_string(),
            "priority: is 0 to 9, not 10; something"
        );
        assert!(Refusal::parse(StatusCode::BAD_GATEWAY, "<html>").is_none());
    }
}
