//! What the stub answers, in the format of the Messages API.
//! <https://docs.claude.com/en/api/messages-streaming>

use std::convert::Infallible;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

/// Longer texts arrive in several pieces.
const PIECE_CHARACTERS: usize = 1000;

/// One answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The model says this, and is done.
    Text(String),
    /// The model wants this tool to be used.
    Tool {
        /// The tool.
        name: String,
        /// What it is to do.
        input: Value,
    },
    /// There is no answer of the model.
    Error {
        /// The HTTP status.
        status: u16,
        /// The body, usually JSON.
        body: String,
        /// More headers.
        headers: Vec<(String, String)>,
    },
    /// Nothing ever comes.
    Hang,
}

/// The model says this, and is done.
pub fn text(text: impl Into<String>) -> Answer {
    Answer::Text(text.into())
}

/// The model wants this command to be run.
pub fn bash_tool(command: impl Into<String>) -> Answer {
    let input = json!({"command": command.into(), "description": "What the test wants"});
    Answer::Tool {
        name: "Bash".to_owned(),
        input,
    }
}

/// The API refuses, for a reason such as `overloaded_error`.
pub fn error(status: u16, kind: &str, headers: &[(&str, &str)]) -> Answer {
    let error = json!({"type": kind, "message": "What the test wants"});
    let headers = headers.iter();
    Answer::Error {
        status,
        body: json!({"type": "error", "error": error}).to_string(),
        headers: headers
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// Nothing ever comes.
pub fn hang() -> Answer {
    Answer::Hang
}

impl Answer {
    /// The reply to a request for `model`, the `number`th that the stub has seen.
    pub(super) async fn reply(self, model: &Value, streams: bool, number: usize) -> HttpResponse {
        let (block, pieces, stop_reason) = match self {
            Self::Text(text) => {
                let pieces = pieces(&text, "text_delta", "text");
                (json!({"type": "text", "text": text}), pieces, "end_turn")
            }
            Self::Tool { name, input } => {
                let id = format!("toolu_{number}");
                let pieces = pieces(&input.to_string(), "input_json_delta", "partial_json");
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": input});
                (block, pieces, "tool_use")
            }
            Self::Error {
                status,
                body,
                headers,
            } => return refusal(status, body, &headers),
            Self::Hang => std::future::pending().await,
        };
        let message = json!({
            "id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": model,
            "content": [block], "stop_reason": stop_reason, "stop_sequence": null,
            "usage": {"input_tokens": 10, "output_tokens": 5},
        });
        if !streams {
            return HttpResponse::Ok().json(message);
        }
        let events = events(message, pieces).into_iter().map(|event| {
            let kind = event["type"].as_str().unwrap_or_default();
            Ok::<_, Infallible>(Bytes::from(format!("event: {kind}\ndata: {event}\n\n")))
        });
        HttpResponse::Ok()
            .content_type("text/event-stream")
            .streaming(stream::iter(events.collect::<Vec<_>>()))
    }
}

fn refusal(status: u16, body: String, headers: &[(String, String)]) -> HttpResponse {
    let status = StatusCode::from_u16(status).expect("tests know HTTP");
    let mut reply = HttpResponse::build(status);
    reply.content_type("application/json");
    for (name, value) in headers {
        reply.insert_header((name.as_str(), value.as_str()));
    }
    reply.body(body)
}

/// The events that bring a message of one block, which is empty until its pieces arrive.
fn events(message: Value, pieces: Vec<Value>) -> Vec<Value> {
    let mut block = message["content"][0].clone();
    match block["type"].as_str() {
        Some("text") => block["text"] = json!(""),
        _ => block["input"] = json!({}),
    }
    let end = json!({"stop_reason": message["stop_reason"], "stop_sequence": null});
    let mut start = message;
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let mut events = vec![
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "ping"}),
    ];
    let deltas = pieces.into_iter();
    events.extend(
        deltas.map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})),
    );
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": end, "usage": {"output_tokens": 5}}),
        json!({"type": "message_stop"}),
    ]);
    events
}

fn pieces(text: &str, kind: &str, field: &str) -> Vec<Value> {
    let characters: Vec<char> = text.chars().collect();
    let pieces = characters.chunks(PIECE_CHARACTERS);
    pieces
        .map(|piece| json!({"type": kind, field: String::from_iter(piece)}))
        .collect()
}
