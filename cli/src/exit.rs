//! Exit codes, and the one line that says why.

use std::process::ExitCode;
use std::str::FromStr;

use nix::sys::signal::Signal;
use serde::Deserialize;
use shared::outcome::Ending;

use crate::failure::ClientError;
use crate::output::{self, Closed};

/// Flags or settings that are not right.
pub(crate) const BAD_USAGE: u8 = 2;
/// Any other failure, where there is no job's exit code to be told from it.
pub(crate) const FAILURE: u8 = 1;
/// `run` and `wait` have no exit code of the job to give.
pub(crate) const NO_JOB_CODE: u8 = 125;
/// The job took too long, or the waiting for it did.
pub(crate) const TIMED_OUT: u8 = 124;
/// The job was cancelled, or left by Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;
/// To a signal's number this is added, as shells do.
const SIGNALLED: u8 = 128;

/// What `run --help` and `wait --help` say.
pub(crate) const HELP: &str = "\
Exit codes:
  the job's own   if it exited by itself
  128+n           it was killed by signal n
  124             it took longer than its timeout, or was silent for longer than its stall timeout
  125             it could not be started, its worker was lost, or the server cannot be reached
  130             it was cancelled, or Ctrl-C has left it
  2               the flags or settings are not right";

/// How an execution ended: what its `complete` line and its snapshot agree on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct End {
    status: Ending,
    exit_code: Option<i32>,
    pub(crate) signal: Option<String>,
}

impl End {
    /// Reads a `complete` line or a snapshot; none if it has not ended.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Whether it ended by itself, with a code or by a signal: that of somebody else, or of one of its limits.
    pub(crate) fn is_its_own(&self) -> bool {
        matches!(self.status, Ending::Succeeded | Ending::Failed)
    }

    /// The exit code that stands for it.
    pub(crate) fn code(&self) -> u8 {
        match self.status {
            Ending::Succeeded | Ending::Failed => self.own_code(),
            Ending::TimedOut | Ending::Stalled => TIMED_OUT,
            Ending::Cancelled => INTERRUPTED,
            Ending::Lost | Ending::Rejected => NO_JOB_CODE,
        }
    }

    fn own_code(&self) -> u8 {
        let signal = self.signal.as_deref().and_then(number);
        match (self.exit_code, signal) {
            (Some(code), _) => u8::try_from(code).unwrap_or(NO_JOB_CODE),
            (None, Some(number)) => SIGNALLED.saturating_add(number),
            (None, None) if self.status == Ending::Succeeded => 0,
            (None, None) => NO_JOB_CODE,
        }
    }
}

/// The number of a signal: of `SIGKILL`, or of `signal 34`, which has no name.
fn number(name: &str) -> Option<u8> {
    match name.strip_prefix("signal ") {
        Some(number) => number.parse().ok(),
        None => u8::try_from(Signal::from_str(name).ok()? as i32).ok(),
    }
}

/// Says what went wrong, unless it is that nobody reads our output any more.
pub(crate) fn report(error: &anyhow::Error, code: u8) -> ExitCode {
    if error.downcast_ref::<Closed>().is_some() {
        // As if SIGPIPE had killed us, which is what the shell expects of a program in a pipeline.
        return ExitCode::from(SIGNALLED.saturating_add(Signal::SIGPIPE as u8));
    }
    let hint = error.downcast_ref().and_then(ClientError::hint);
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    let reason = shared::entry::chain(error.as_ref());
    output::say(&format!("{reason}{hint}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_exit_code() {
        for (json, code) in [
            (r#"{"status":"succeeded","exit_code":0,"signal":null}"#, 0),
            (r#"{"status":"failed","exit_code":42,"signal":null}"#, 42),
            (
                r#"{"status":"failed","exit_code":null,"signal":"SIGKILL"}"#,
                137,
            ),
            (
                r#"{"status":"failed","exit_code":null,"signal":"signal 40"}"#,
                168,
            ),
            (
                r#"{"status":"timed_out","exit_code":null,"signal":"SIGTERM"}"#,
                124,
            ),
            (r#"{"status":"stalled","exit_code":0,"signal":null}"#, 124),
            (r#"{"status":"cancelled","exit_code":0,"signal":null}"#, 130),
            (r#"{"status":"lost","exit_code":null,"signal":null}"#, 125),
            (
                r#"{"status":"rejected","exit_code":null,"signal":null}"#,
                125,
            ),
        ] {
            let end = End::parse(json.as_bytes()).expect(json);
            assert_eq!(end.code(), code, "{json}");
        }
        assert_eq!(
            End::parse(br#"{"status":"running","exit_code":null,"signal":null}"#),
            None
        );
    }
}
