//! An execution as the server's JSON shows it, for people to read.

use serde::Deserialize;
use shared::outcome::Failure;
use shared::time::Timestamp;
use std::collections::BTreeMap;

use crate::format;

/// An execution as it stands. Words that a newer server may know are kept as they are.
#[derive(Debug, Deserialize)]
pub(crate) struct Execution {
    #[serde(rename = "execution_id")]
    pub(crate) id: String,
    pub(crate) status: String,
    #[serde(flatten)]
    program: Program,
    tasks: Option<Vec<Program>>,
    pub(crate) queue: String,
    pub(crate) priority: u8,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) worker: Option<String>,
    pub(crate) cancel_requested: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    exit_code: Option<i32>,
    signal: Option<String>,
    duration_ms: Option<u64>,
    pub(crate) output_bytes: Option<u64>,
    pub(crate) output_sha256: Option<String>,
    pub(crate) truncated: bool,
    pub(crate) error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Program {
    command: Option<String>,
    argv: Option<Vec<String>>,
}

impl Program {
    fn describe(&self) -> String {
        let words = self.argv.iter().flatten().map(|word| quoted(word));
        let argv = || words.collect::<Vec<_>>().join(" ");
        format::one_line(&self.command.clone().unwrap_or_else(argv))
    }
}

/// A word as one would have to write it in a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Execution {
    pub(crate) fn parse(json: &str) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        serde_json::from_str(json).context("the server's answer is not an execution")
    }

    /// What it runs, on one line.
    pub(crate) fn program(&self) -> String {
        match &self.tasks {
            None => self.program.describe(),
            Some(tasks) => {
                let tasks: Vec<_> = tasks.iter().map(Program::describe).collect();
                format!("{} tasks: {}", tasks.len(), tasks.join("; "))
            }
        }
    }

    /// Its status, and that it is about to change.
    pub(crate) fn standing(&self) -> String {
        if self.cancel_requested && self.ended_at.is_none() {
            format!("{}, being cancelled", self.status)
        } else {
            self.status.clone()
        }
    }

    /// The exit code, or the signal that killed it.
    pub(crate) fn exit(&self) -> Option<String> {
        let code = self.exit_code.map(|code| code.to_string());
        code.or_else(|| self.signal.clone())
    }

    /// How long it took, or has been taking.
    pub(crate) fn duration(&self) -> Option<String> {
        let since = |started_at| Timestamp::now().ms_since(started_at);
        let ms = self.duration_ms.or_else(|| self.started_at.map(since));
        ms.map(format::duration)
    }

    /// How long ago it was submitted.
    pub(crate) fn age(&self) -> String {
        format::duration(Timestamp::now().ms_since(self.created_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_shown_as_one_would_write_them() {
        let program = |command: Option<&str>, argv: &[&str]| Program {
            command: command.map(str::to_owned),
            argv: Some(argv.iter().map(|&word| word.to_owned()).collect()),
        };
        assert_eq!(program(Some("a | b\nc"), &[]).describe(), "a | b\\nc");
        assert_eq!(
            program(None, &["echo", "it's", ""]).describe(),
            r"echo 'it'\''s' ''"
        );
    }
}
