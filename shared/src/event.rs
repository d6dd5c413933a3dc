//! The NDJSON lines of an execution's log, written once by whoever causes them and passed through
//! by everybody else.
//!
//! Every line begins with `{"id":"<id>","type":"<kind>"`, in this order, so that [`kind`] can tell
//! lines apart without parsing them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{EventId, ExecutionId};
use crate::outcome::{Ending, Failure, Outcome};
use crate::output::{Piece, encode_binary};
use crate::time::Timestamp;

/// A finished line of a log, its newline included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its id, the cursor of a reader who has seen it.
    pub id: EventId,
    /// The JSON text with a newline at its end.
    pub json: Bytes,
}

impl Line {
    /// Whether it is the last line of its execution.
    pub fn is_complete(&self) -> bool {
        kind(&self.json) == Some("complete")
    }
}

/// The `type` of a line, read from its beginning.
pub fn kind(line: &[u8]) -> Option<&str> {
    const OPENING: &[u8] = b"\",\"type\":\"";
    let after_id = line.strip_prefix(b"{\"id\":\"")?;
    let id_length = after_id.iter().take(40).position(|&byte| byte == b'"')?;
    let kind = after_id[id_length..].strip_prefix(OPENING)?;
    let length = kind.iter().take(40).position(|&byte| byte == b'"')?;
    std::str::from_utf8(&kind[..length]).ok()
}

/// Which pipe of a process output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The parts that all lines have.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The line's id.
    pub id: EventId,
    /// When it was written.
    pub at: Timestamp,
}

#[derive(Serialize)]
struct Body<'a, T: Serialize> {
    id: EventId,
    #[serde(rename = "type")]
    kind: &'a str,
    ts: Timestamp,
    #[serde(flatten)]
    rest: T,
}

impl Head {
    /// A line written now.
    pub fn now(id: EventId) -> Self {
        Self {
            id,
            at: Timestamp::now(),
        }
    }

    fn line(self, kind: &str, rest: impl Serialize) -> Line {
        let body = Body {
            id: self.id,
            kind,
            ts: self.at,
            rest,
        };
        // Structs of strings and numbers always serialize.
        let mut json = serde_json::to_vec(&body).unwrap_or_default();
        json.push(b'\n');
        Line {
            id: self.id,
            json: json.into(),
        }
    }

    /// It has been accepted and waits for a worker.
    pub fn queued(self, execution_id: &ExecutionId) -> Line {
        self.line(
            "queued",
            serde_json::json!({"execution_id": execution_id, "status": "queued"}),
        )
    }

    /// A process has started.
    pub fn started(self, execution_id: &ExecutionId, started: &Started<'_>) -> Line {
        #[derive(Serialize)]
        struct Rest<'a> {
            execution_id: &'a ExecutionId,
            #[serde(flatten)]
            started: &'a Started<'a>,
        }
        self.line(
            "started",
            Rest {
                execution_id,
                started,
            },
        )
    }

    /// A process has written something.
    pub fn output(self, stream: Stream, task: Option<usize>, piece: Piece<'_>) -> Line {
        #[derive(Serialize)]
        struct Rest<'a> {
            stream: Stream,
            #[serde(skip_serializing_if = "Option::is_none")]
            task: Option<usize>,
            data: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            encoding: Option<&'static str>,
        }
        let rest = |data, encoding| Rest {
            stream,
            task,
            data,
            encoding,
        };
        match piece {
            Piece::Text(text) => self.line("output", rest(text, None)),
            Piece::Binary(bytes) => {
                self.line("output", rest(&encode_binary(bytes), Some("base64")))
            }
        }
    }

    /// One of several tasks is over.
    pub fn task_complete(self, task: &TaskComplete) -> Line {
        self.line("task_complete", task)
    }

    /// Why what follows is not a success.
    pub fn error(self, task: Option<usize>, failure: &Failure) -> Line {
        #[derive(Serialize)]
        struct Rest<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            task: Option<usize>,
            error: &'a str,
            code: &'a str,
        }
        self.line(
            "error",
            Rest {
                task,
                error: &failure.message,
                code: &failure.code,
            },
        )
    }

    /// All its processes stand still.
    pub fn paused(self) -> Line {
        self.line("paused", serde_json::json!({}))
    }

    /// They go on.
    pub fn resumed(self) -> Line {
        self.line("resumed", serde_json::json!({}))
    }

    /// It goes back into its queue for another attempt.
    pub fn retry(self, attempts_left: u32, reason: &Failure) -> Line {
        self.line(
            "retry",
            serde_json::json!({
                "attempts_left": attempts_left, "reason": reason.message, "code": reason.code,
            }),
        )
    }

    /// It is over; the last line.
    pub fn complete(self, execution_id: &ExecutionId, outcome: &Outcome) -> Line {
        #[derive(Serialize)]
        struct Rest<'a> {
            execution_id: &'a ExecutionId,
            status: Ending,
            exit_code: Option<i32>,
            signal: Option<&'a str>,
            duration_ms: u64,
            output_bytes: Option<u64>,
            output_sha256: Option<&'a str>,
            truncated: bool,
            reaped: Option<u32>,
        }
        self.line(
            "complete",
            Rest {
                execution_id,
                status: outcome.ending,
                exit_code: outcome.exit_code,
                signal: outcome.signal.as_deref(),
                duration_ms: outcome.duration_ms,
                output_bytes: outcome.output_bytes,
                output_sha256: outcome.output_sha256.as_deref(),
                truncated: outcome.truncated,
                reaped: outcome.reaped,
            },
        )
    }
}

/// How the processes of a job are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Not at all: they may do what their user may.
    #[default]
    Off,
    /// They read what their user may read, and write only to their own directories.
    Workspace,
    /// They do not even read anything but the system's programs.
    Strict,
}

impl Sandbox {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Workspace => "workspace",
            Self::Strict => "strict",
        }
    }
}

/// What `started` says of a process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Started<'a> {
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The worker that runs it.
    pub worker: &'a str,
    /// The process id on that worker's host.
    pub pid: u32,
    /// How it is confined.
    pub sandbox: Sandbox,
    /// Which task this is, in a list of tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<usize>,
}

/// What `task_complete` says of a task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskComplete {
    /// Which task it was.
    pub task: usize,
    /// How it ended.
    pub status: Ending,
    /// The exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The name of the signal that killed it.
    pub signal: Option<String>,
    /// From its start to its end.
    pub duration_ms: u64,
}

/// The lines that end an execution: an `error` line where one is due, then `complete`.
pub fn ending(first: EventId, execution_id: &ExecutionId, outcome: &Outcome) -> Vec<Line> {
    let mut lines = Vec::with_capacity(2);
    let mut head = Head::now(first);
    if let Some(failure) = &outcome.error {
        lines.push(head.error(None, failure));
        head.id = head.id.next();
    }
    lines.push(head.complete(execution_id, outcome));
    lines
}

/// The line that tells an idle client that the connection lives; never stored.
pub fn heartbeat() -> Bytes {
    let ts = Timestamp::now();
    format!("{{\"type\":\"heartbeat\",\"ts\":\"{ts}\"}}\n").into()
}

/// The line that stands for lines which retention has removed; never stored.
pub fn gap(after: EventId, before: EventId) -> Bytes {
    format!("{{\"type\":\"gap\",\"after\":\"{after}\",\"before\":\"{before}\"}}\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: &str) -> Head {
        Head {
            id: id.parse().expect("is an id"),
            at: Timestamp::from_millis(1_795_255_200_000),
        }
    }

    fn text(line: &Line) -> &str {
        std::str::from_utf8(&line.json).expect("is text")
    }

    #[test]
    fn lines_have_the_documented_form() {
        let id: ExecutionId = "x".parse().expect("is an id");
        assert_eq!(
            text(&head("0-1").queued(&id)),
            "{\"id\":\"0-1\",\"type\":\"queued\",\"ts\":\"2026-11-21T10:00:00.000Z\",\"execution_id\":\"x\",\"status\":\"queued\"}\n"
        );
        assert_eq!(
            text(&head("1-3").output(Stream::Stderr, None, Piece::Binary(b"\xff\x00"))),
            "{\"id\":\"1-3\",\"type\":\"output\",\"ts\":\"2026-11-21T10:00:00.000Z\",\"stream\":\"stderr\",\"data\":\"/wA=\",\"encoding\":\"base64\"}\n"
        );
        let started = Started {
            attempt: 1,
            worker: "w",
            pid: 7,
            sandbox: Sandbox::Workspace,
            task: None,
        };
        assert_eq!(
            text(&head("1-1").started(&id, &started)),
            "{\"id\":\"1-1\",\"type\":\"started\",\"ts\":\"2026-11-21T10:00:00.000Z\",\"execution_id\":\"x\",\"attempt\":1,\"worker\":\"w\",\"pid\":7,\"sandbox\":\"workspace\"}\n"
        );
        assert_eq!(
            text(&head("1-4").paused()),
            "{\"id\":\"1-4\",\"type\":\"paused\",\"ts\":\"2026-11-21T10:00:00.000Z\"}\n"
        );
        assert_eq!(
            text(&head("1-5").resumed()),
            "{\"id\":\"1-5\",\"type\":\"resumed\",\"ts\":\"2026-11-21T10:00:00.000Z\"}\n"
        );
    }

    #[test]
    fn the_last_line_tells_how_many_were_reaped_but_not_what_was_on_stderr() {
        let id: ExecutionId = "x".parse().expect("is an id");
        let outcome = Outcome {
            exit_code: Some(1),
            output_bytes: Some(4),
            output_sha256: Some("e3b0".to_owned()),
            reaped: Some(2),
            stderr_tail: Some("oops".to_owned()),
            ..Outcome::unseen(Ending::Failed, 5, None)
        };
        assert_eq!(
            text(&head("1-6").complete(&id, &outcome)),
            "{\"id\":\"1-6\",\"type\":\"complete\",\"ts\":\"2026-11-21T10:00:00.000Z\",\"execution_id\":\"x\",\"status\":\"failed\",\"exit_code\":1,\"signal\":null,\"duration_ms\":5,\"output_bytes\":4,\"output_sha256\":\"e3b0\",\"truncated\":false,\"reaped\":2}\n"
        );
        let unseen = Outcome::unseen(Ending::Lost, 5, None);
        let line = head("1-6").complete(&id, &unseen);
        assert!(text(&line).ends_with("\"reaped\":null}\n"));
    }

    #[test]
    fn a_sandbox_is_named_as_it_is_written() {
        for sandbox in [Sandbox::Off, Sandbox::Workspace, Sandbox::Strict] {
            let json = serde_json::to_string(&sandbox).expect("serializes");
            assert_eq!(json, format!("\"{}\"", sandbox.as_str()));
        }
        assert_eq!(Sandbox::default(), Sandbox::Off);
    }

    #[test]
    fn an_error_line_precedes_an_unhappy_end() {
        let id: ExecutionId = "x".parse().expect("is an id");
        let outcome = Outcome::unseen(Ending::Lost, 5, Failure::new("worker_lost", "gone"));
        let lines = ending(head("1-4").id, &id, &outcome);
        let kinds: Vec<_> = lines.iter().map(|line| kind(&line.json)).collect();
        assert_eq!(kinds, [Some("error"), Some("complete")]);
        assert_eq!(lines[1].id, head("1-5").id);
        assert!(lines[1].is_complete());
    }

    #[test]
    fn the_kind_of_a_line_is_its_own_and_not_its_outputs() {
        let fake = "{\"id\":\"9-9\",\"type\":\"complete\"";
        let line = head("1-2").output(Stream::Stdout, Some(0), Piece::Text(fake));
        assert_eq!(kind(&line.json), Some("output"));
        assert_eq!(kind(b"{}"), None);
    }
}
