//! How a process ended, from what `wait(2)` says.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by the signal of this name.
    Signal(String),
}

impl Exit {
    pub(crate) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(number)) => Self::Signal(name(number)),
            // Only a stopped process has neither, and nobody waits for that.
            (None, None) => Self::Signal("unknown".to_owned()),
        }
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
        assert_eq!(Exit::of(ExitStatus::from_raw(3 << 8)), Exit::Code(3));
        assert_eq!(
            Exit::of(ExitStatus::from_raw(9)),
            Exit::Signal("SIGKILL".to_owned())
        );
        assert_eq!(
            Exit::of(ExitStatus::from_raw(40)),
            Exit::Signal("signal 40".to_owned())
        );
    }
}
