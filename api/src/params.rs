//! Query parameters and headers, read by hand so that an error names the parameter.

use actix_web::HttpRequest;
use actix_web::http::header::ACCEPT;
use shared::id::{EventId, ExecutionId};

use crate::error::ApiError;

/// The query of a request.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query; parameters that nobody knows are refused, because they are misspellings.
    pub(crate) fn read(request: &HttpRequest, known: &[&str]) -> Result<Self, ApiError> {
        let query =
            actix_web::web::Query::<Vec<(String, String)>>::from_query(request.query_string())
                .map_err(|_| ApiError::parameter("query", "is not a valid query string"))?;
        if let Some((name, _)) = query
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            let detail = if known.is_empty() {
                "is not known here; there are no parameters".to_owned()
            } else {
                format!("is not known here; the parameters are {}", known.join(", "))
            };
            return Err(ApiError::parameter(name, detail));
        }
        Ok(Self(query.into_inner()))
    }

    /// A parameter's text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The texts of a parameter that may be repeated.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of_name =
            move |(key, value): &'a (String, String)| (key == name).then_some(value.as_str());
        self.0.iter().filter_map(of_name)
    }

    /// A parameter that is true or false.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(ApiError::parameter(
                name,
                format!("is true or false, not {other:?}"),
            )),
        }
    }

    /// The cursor to resume from: `after`, or what an SSE client remembers.
    pub(crate) fn cursor(&self, request: &HttpRequest) -> Result<EventId, ApiError> {
        let header = || {
            request
                .headers()
                .get("Last-Event-ID")
                .and_then(|value| value.to_str().ok())
        };
        let (name, text) = match (self.get("after"), header()) {
            (Some(text), _) => ("after", text),
            (None, Some(text)) => ("Last-Event-ID", text),
            (None, None) => return Ok(EventId::START),
        };
        text.parse()
            .map_err(|error| ApiError::parameter(name, format!("{error}, not {text:?}")))
    }
}

/// The execution that a path names.
pub(crate) fn execution_id(path: &str) -> Result<ExecutionId, ApiError> {
    path.parse()
        .map_err(|error| ApiError::parameter("execution_id", format!("{error}")))
}

/// The forms in which executions are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Sse,
    Ndjson,
}

/// The form that a client wants, by its `Accept` header; NDJSON unless another one comes first.
pub(crate) fn form(request: &HttpRequest) -> Form {
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let types = accept.unwrap_or_default().split(',');
    for media_type in types.map(|part| part.split(';').next().unwrap_or_default().trim()) {
        match media_type.to_ascii_lowercase().as_str() {
            "application/json" => return Form::Json,
            "text/event-stream" => return Form::Sse,
            "application/x-ndjson" | "application/ndjson" | "*/*" | "application/*" => {
                return Form::Ndjson;
            }
            _ => {}
        }
    }
    Form::Ndjson
}
