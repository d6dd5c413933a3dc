//! How a process ended, from what `wait(2)` says.

use nix::sys::signal::Signal;
use rustix::process::WaitStatus;
use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by the signal of this name.
    Signal(String),
}

impl Exit {
    pub(crate) fn of(status: WaitStatus) -> Self {
        Self::from_parts(status.exit_status(), status.terminating_signal())
    }

    fn from_parts(code: Option<i32>, signal: Option<i32>) -> Self {
        match (code, signal) {
            (Some(code), _) => Self::Code(code),
            (None, Some(number)) => Self::Signal(name(number)),
            // Only a stopped process has neither, and nobody waits for that.
            (None, None) => Self::unknown(),
        }
    }

    /// Nobody saw it.
    pub(crate) fn unknown() -> Self {
        Self::Signal("unknown".to_owned())
    }

    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Signal(_) => None,
        }
    }

    pub(crate) fn signal(&self) -> Option<String> {
        match self {
            Self::Code(_) => None,
            Self::Signal(name) => Some(name.clone()),
        }
    }
}

fn name(number: i32) -> String {
    Signal::try_from(number).map_or_else(
        |_| format!("signal {number}"),
        |signal| signal.as_str().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals_are_told_apart() {
        assert_eq!(Exit::from_parts(Some(3), None), Exit::Code(3));
        let killed = Exit::Signal("SIGKILL".to_owned());
        assert_eq!(Exit::from_parts(None, Some(9)), killed);
        let real_time = Exit::Signal("signal 40".to_owned());
        assert_eq!(Exit::from_parts(None, Some(40)), real_time);
    }
}
