//! What the tasks of an execution printed, collected from its log.

use std::borrow::Cow;

use serde::Deserialize;
use shared::event::{self, Line};
use shared::id::EventId;
use shared::output::{OutputLine, encode_binary};
use shared::record::Record;
use shared::store::{Store, StoreError};

/// A collection holds no more than this; `GET …/output` has everything.
const MOST_BYTES: usize = 16 << 20;
const LINES_PER_READ: usize = 32;

/// What one task printed and how it ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskTranscript {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) is_started: bool,
    pub(crate) started_at: Option<String>,
    pub(crate) completed_at: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) duration_ms: Option<u64>,
}

/// What the last attempt at an execution printed.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) tasks: Vec<TaskTranscript>,
    /// Whether there was more than a collection holds.
    pub(crate) is_cut: bool,
    collected: usize,
}

/// The fields that matter of lines other than output.
#[derive(Deserialize)]
struct Mark<'a> {
    ts: Cow<'a, str>,
    #[serde(default)]
    task: usize,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    duration_ms: Option<u64>,
}

impl Transcript {
    /// Reads the part of the log that belongs to the last attempt.
    pub(crate) async fn read(store: &dyn Store, record: &Record) -> Result<Self, StoreError> {
        let mut transcript = Self {
            tasks: vec![TaskTranscript::default(); record.spec.tasks.len()],
            ..Self::default()
        };
        let mut cursor = EventId {
            attempt: record.state.attempt(),
            sequence: 0,
        };
        loop {
            let batch = store.read(&record.id, cursor, LINES_PER_READ).await?;
            let Some(last) = batch.lines.last() else {
                return Ok(transcript);
            };
            cursor = last.id;
            for line in &batch.lines {
                transcript.add(line);
            }
        }
    }

    fn add(&mut self, line: &Line) {
        match event::kind(&line.json) {
            Some("output") => self.add_output(line),
            Some(kind @ ("started" | "task_complete" | "complete")) => self.add_mark(kind, line),
            _ => {}
        }
    }

    fn add_output(&mut self, line: &Line) {
        let Some(output) = OutputLine::parse(&line.json) else {
            return;
        };
        let bytes = output.bytes();
        let room = MOST_BYTES - self.collected;
        let kept = bytes.len().min(room);
        self.is_cut |= kept < bytes.len();
        self.collected += kept;
        if let Some(task) = self.tasks.get_mut(output.task.unwrap_or(0)) {
            let stream = if output.stream == "stdout" {
                &mut task.stdout
            } else {
                &mut task.stderr
            };
            stream.extend_from_slice(&bytes[..kept]);
        }
    }

    fn add_mark(&mut self, kind: &str, line: &Line) {
        let Ok(mark) = serde_json::from_slice::<Mark<'_>>(&line.json) else {
            return;
        };
        let is_list = self.tasks.len() > 1;
        let Some(task) = self.tasks.get_mut(mark.task) else {
            return;
        };
        match kind {
            "started" => {
                task.is_started = true;
                task.started_at = Some(mark.ts.into_owned());
            }
            // The end of a list is not the end of its first task.
            "complete" if is_list || task.completed_at.is_some() => {}
            _ => {
                task.completed_at = Some(mark.ts.into_owned());
                task.exit_code = mark.exit_code;
                task.duration_ms = mark.duration_ms;
            }
        }
    }
}

/// Bytes as a JSON string, and its encoding unless it is plain text.
pub(crate) fn text(bytes: Vec<u8>) -> (String, Option<&'static str>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => (encode_binary(error.as_bytes()), Some("base64")),
    }
}
