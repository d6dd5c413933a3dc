//! A log as the body of a response: NDJSON, or server-sent events.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use actix_web::{Error, HttpResponse, HttpResponseBuilder, web};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use shared::event;
use shared::id::ExecutionId;

use crate::State;
use crate::feed::Chunk;
use crate::params::Form;
use crate::reader::{LogReader, Step};

/// The last line of a stream whose execution has gone before its end.
const VANISHED: &[u8] = b"{\"type\":\"error\",\"error\":\"the execution is gone: the store has lost it\",\"code\":\"vanished\"}\n";

/// Cancels an execution unless its stream has come to its end: for clients who asked for that.
pub(crate) struct CancelOnDrop {
    state: web::Data<State>,
    id: ExecutionId,
    is_armed: bool,
}

impl CancelOnDrop {
    pub(crate) fn new(state: web::Data<State>, id: ExecutionId) -> Self {
        Self {
            state,
            id,
            is_armed: true,
        }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.is_armed && !self.state.ending.is_cancelled() {
            // The receiver lives as long as the server.
            let _ = self.state.abandoned.send(self.id.clone());
        }
    }
}

/// Sends a log as it grows.
pub(crate) fn respond(
    mut response: HttpResponseBuilder,
    reader: LogReader,
    form: Form,
    guard: Option<CancelOnDrop>,
) -> HttpResponse {
    let media_type = match form {
        Form::Sse => "text/event-stream",
        Form::Ndjson | Form::Json => "application/x-ndjson",
    };
    response
        .insert_header((CONTENT_TYPE, media_type))
        .insert_header((CACHE_CONTROL, "no-cache"))
        // Asks nginx not to hold lines back.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"));
    response.streaming(stream_of(reader, form, guard))
}

fn stream_of(
    reader: LogReader,
    form: Form,
    guard: Option<CancelOnDrop>,
) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::unfold((reader, guard), move |(mut reader, mut guard)| async move {
        let step = reader.next().await?;
        if let Some(guard) = &mut guard {
            // Once the end has been read there is nothing left to cancel.
            guard.is_armed = !reader.is_done();
        }
        Some((Ok(encode(&step, form)), (reader, guard)))
    })
}

fn encode(step: &Step, form: Form) -> Bytes {
    match (step, form) {
        (Step::Chunk(chunk), Form::Ndjson | Form::Json) => chunk.ndjson.clone(),
        (Step::Chunk(chunk), Form::Sse) => sse(chunk),
        (Step::Heartbeat, Form::Ndjson | Form::Json) => event::heartbeat(),
        (Step::Heartbeat, Form::Sse) => Bytes::from_static(b": heartbeat\n\n"),
        (Step::Vanished, Form::Ndjson | Form::Json) => Bytes::from_static(VANISHED),
        (Step::Vanished, Form::Sse) => [b"data: ", VANISHED, b"\n"].concat().into(),
    }
}

fn sse(chunk: &Chunk) -> Bytes {
    let mut events = BytesMut::with_capacity(chunk.ndjson.len() + chunk.lines.len() * 32);
    if let Some(before) = chunk.gap_before {
        events.extend_from_slice(b"data: ");
        events.extend_from_slice(&event::gap(chunk.after, before));
        events.extend_from_slice(b"\n");
    }
    for line in &chunk.lines {
        events.extend_from_slice(format!("id: {}\ndata: ", line.id).as_bytes());
        // A line ends with a newline; an empty one ends the event.
        events.extend_from_slice(&line.json);
        events.extend_from_slice(b"\n");
    }
    events.freeze()
}
