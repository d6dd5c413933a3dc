//! An execution as the server's JSON shows it, for people to read.

use serde::Deserialize;
use shared::outcome::Failure;
use shared::time::Timestamp;
use std::collections::BTreeMap;

use crate::format;

/// An execution as it stands. Words that a newer server may know are kept as they are, and what another
/// one leaves out is left out.
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
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) worker: Option<String>,
    #[serde(default)]
    cancel_requested: bool,
    #[serde(default)]
    paused: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    exit_code: Option<i32>,
    signal: Option<String>,
    duration_ms: Option<u64>,
    pub(crate) output_bytes: Option<u64>,
    pub(crate) output_sha256: Option<String>,
    #[serde(default)]
    pub(crate) truncated: bool,
    pub(crate) error: Option<Failure>,
    pub(crate) reaped: Option<u32>,
    pub(crate) stderr_tail: Option<String>,
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

    /// Its status, that it is about to change, or that nothing happens for now.
    pub(crate) fn standing(&self) -> String {
        match self.ended_at {
            None if self.cancel_requested => format!("{}, being cancelled", self.status),
            None if self.paused => "paused".to_owned(),
            _ => self.status.clone(),
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

    fn execution(more: &str) -> Execution {
        let json = format!(
            r#"{{"execution_id":"x","command":"true","queue":"default","priority":5,"attempt":1,
                "max_attempts":1,"created_at":"2026-11-21T10:00:00.000Z",{more}}}"#
        );
        Execution::parse(&json).expect("is read")
    }

    #[test]
    fn what_has_been_asked_of_a_job_is_seen_until_it_ends() {
        for (more, standing) in [
            (r#""status":"running""#, "running"),
            (r#""status":"running","paused":false"#, "running"),
            (r#""status":"running","paused":true"#, "paused"),
            (
                r#""status":"running","paused":true,"cancel_requested":true"#,
                "running, being cancelled",
            ),
            (
                r#""status":"lost","paused":true,"ended_at":"2026-11-21T10:00:01.000Z""#,
                "lost",
            ),
        ] {
            assert_eq!(execution(more).standing(), standing, "{more}");
        }
    }

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
