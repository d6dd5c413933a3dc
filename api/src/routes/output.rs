//! `GET /executions/{id}/output`: the raw bytes.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{Error, HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use shared::id::EventId;
use shared::output::OutputLine;

use super::executions::find;
use crate::State;
use crate::error::{ApiError, ProblemBody};
use crate::params::{Params, execution_id};
use crate::reader::{LogReader, Step};

/// The bytes an execution has written.
///
/// Those of its last attempt, exactly as they were written.
#[utoipa::path(
    get, path = "/executions/{id}/output", tag = "executions",
    params(
        ("id" = String, Path, description = "The execution"),
        ("stream" = Option<String>, Query, description = "`stdout` or `stderr`. Default: both, in the order in which they came"),
        ("follow" = Option<bool>, Query, description = "True goes on until the execution has ended. Default: false"),
    ),
    responses(
        (status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, description = "A parameter is not right", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "There is no such execution", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn output(
    state: web::Data<State>,
    http: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let params = Params::read(&http, &["stream", "follow"])?;
    let follow = params.flag("follow", false)?;
    let stream = match params.get("stream") {
        None => None,
        Some("stdout") => Some("stdout"),
        Some("stderr") => Some("stderr"),
        Some(other) => {
            return Err(ApiError::parameter(
                "stream",
                format!("is stdout or stderr, not {other:?}"),
            ));
        }
    };
    let id = execution_id(&path)?;
    let record = find(&state, &id).await?;
    let start = EventId {
        attempt: record.state.attempt(),
        sequence: 0,
    };
    let watch = state.store.watch(&id).await;
    let reader = LogReader::new(state, id, watch, start, follow);
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/octet-stream"))
        .streaming(bytes_of(reader, stream)))
}

fn bytes_of(
    reader: LogReader,
    stream: Option<&'static str>,
) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::unfold(reader, move |mut reader| async move {
        loop {
            let Step::Chunk(chunk) = reader.next().await? else {
                continue;
            };
            let mut bytes = BytesMut::new();
            for line in &chunk.lines {
                let output = OutputLine::parse(&line.json);
                let wanted =
                    output.filter(|output| stream.is_none_or(|stream| output.stream == stream));
                if let Some(output) = wanted {
                    bytes.extend_from_slice(&output.bytes());
                }
            }
            if !bytes.is_empty() {
                return Some((Ok(bytes.freeze()), reader));
            }
        }
    })
}
