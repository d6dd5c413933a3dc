//! The lines of an event log as a client sees them, and what is true of every log.

use std::ops::Index;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::id::EventId;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(pub Value);

impl Event {
    /// Its `type`.
    pub fn kind(&self) -> &str {
        self.0["type"].as_str().expect("every line has a type")
    }

    /// Its `id`, which is the cursor after it.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().expect("a stored line has an id")
    }

    /// A field that is a string.
    pub fn text(&self, field: &str) -> &str {
        let value = self.0[field].as_str();
        value.unwrap_or_else(|| panic!("{field} is a string in {}", self.0))
    }

    /// The bytes of an `output` line.
    pub fn bytes(&self) -> Vec<u8> {
        let data = self.text("data");
        match self.0.get("encoding").and_then(Value::as_str) {
            None => data.as_bytes().to_vec(),
            Some("base64") => BASE64.decode(data).expect("base64 as it says"),
            Some(other) => panic!("no client knows the encoding {other}"),
        }
    }

    fn position(&self) -> EventId {
        self.id().parse().expect("ids have the documented form")
    }
}

impl Index<&str> for Event {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.0[field]
    }
}

/// The stored lines of a log that has come to its end, in the order in which they were received.
#[derive(Clone, Debug, PartialEq)]
pub struct Log(Vec<Event>);

impl Log {
    /// Checks what is true of every log, whatever ran: its ids go up, it ends with the only
    /// `complete`, an end that needs a reason has one, and what was printed is what `complete` says.
    pub fn new(events: Vec<Event>) -> Self {
        let stored = events
            .into_iter()
            .filter(|event| event.kind() != "heartbeat");
        let log = Self(stored.collect());
        for pair in log.0.windows(2) {
            assert!(
                pair[0].position() < pair[1].position(),
                "ids go up: {pair:?}"
            );
        }
        let completes = log.0.iter().filter(|event| event.kind() == "complete");
        assert_eq!(completes.count(), 1, "one complete: {:?}", log.kinds());
        let complete = log.complete();
        assert_eq!(
            complete.kind(),
            "complete",
            "it is the last: {:?}",
            log.kinds()
        );
        if !["succeeded", "failed"].contains(&complete.text("status")) && log.0.len() > 1 {
            let before = &log.0[log.0.len() - 2];
            assert_eq!(before.kind(), "error", "a reason precedes {complete:?}");
        }
        if log.0[0].kind() == "queued" {
            log.check_output();
        }
        log
    }

    /// Counts and hashes what the last attempt has printed.
    fn check_output(&self) {
        let complete = self.complete();
        let Some(sha256) = complete["output_sha256"].as_str() else {
            return;
        };
        let attempt = complete.position().attempt;
        let mut hash = Sha256::new();
        let mut length = 0;
        for event in self
            .outputs()
            .filter(|event| event.position().attempt == attempt)
        {
            let bytes = event.bytes();
            length += bytes.len();
            hash.update(bytes);
        }
        assert_eq!(complete["output_bytes"], length);
        assert_eq!(sha256, hex(&hash.finalize()));
    }

    /// All lines.
    pub fn events(&self) -> &[Event] {
        &self.0
    }

    /// The lines of one type.
    pub fn of_kind(&self, kind: &str) -> Vec<&Event> {
        self.0.iter().filter(|event| event.kind() == kind).collect()
    }

    /// The types of all lines, runs of `output` as one.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = self.0.iter().map(Event::kind).collect();
        kinds.dedup_by(|next, last| next == last && *last == "output");
        kinds
    }

    /// The last line.
    pub fn complete(&self) -> &Event {
        self.0.last().expect("a log has lines")
    }

    /// How it ended.
    pub fn status(&self) -> &str {
        self.complete().text("status")
    }

    /// The `code` of the last error line.
    pub fn error_code(&self) -> Option<&str> {
        let errors = self.of_kind("error");
        errors.last().map(|error| error.text("code"))
    }

    /// What was written to `stdout` or `stderr`, of all attempts.
    pub fn output(&self, stream: &str) -> Vec<u8> {
        let of_stream = self.outputs().filter(|event| event["stream"] == stream);
        of_stream.flat_map(Event::bytes).collect()
    }

    /// Standard output, which is text.
    pub fn stdout(&self) -> String {
        String::from_utf8(self.output("stdout")).expect("this job prints text")
    }

    /// Asserts that standard output is `line 1` to `line COUNT`: every line, once, in order.
    pub fn assert_lines(&self, count: usize) {
        let stdout = self.stdout();
        for (index, line) in stdout.lines().enumerate() {
            assert_eq!(line, format!("line {}", index + 1));
        }
        assert_eq!(stdout.lines().count(), count);
    }

    fn outputs(&self) -> impl Iterator<Item = &Event> {
        self.0.iter().filter(|event| event.kind() == "output")
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
