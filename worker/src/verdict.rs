//! How a task, or a whole execution, came to an end, and the words for it.

use shared::outcome::{Ending, Failure};
use shared::spec::Spec;

use crate::process::exit::Exit;

/// How a task, or all of them, came to an end.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// By itself.
    Exited(Exit),
    /// It could not be started.
    Rejected(Failure),
    /// Because the worker ended it.
    Stopped(Stop, Exit),
}

/// Why the worker ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    TimedOut,
    TaskTimedOut,
    Stalled,
    Cancelled,
    HandBack,
    LeaseLost,
}

impl Verdict {
    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Exited(Exit::Code(0)))
    }

    /// Whether no further task may run, whatever the caller wants.
    pub(crate) fn ends_execution(&self) -> bool {
        match self {
            Self::Exited(_) | Self::Rejected(_) | Self::Stopped(Stop::TaskTimedOut, _) => false,
            Self::Stopped(..) => true,
        }
    }

    pub(crate) fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Exited(exit) | Self::Stopped(_, exit) => Some(exit),
            Self::Rejected(_) => None,
        }
    }

    pub(crate) fn ending(&self) -> Ending {
        match self {
            Self::Exited(Exit::Code(0)) => Ending::Succeeded,
            Self::Exited(_) => Ending::Failed,
            Self::Rejected(_) => Ending::Rejected,
            Self::Stopped(Stop::TimedOut | Stop::TaskTimedOut, _) => Ending::TimedOut,
            Self::Stopped(Stop::Stalled, _) => Ending::Stalled,
            Self::Stopped(Stop::Cancelled, _) => Ending::Cancelled,
            Self::Stopped(Stop::HandBack | Stop::LeaseLost, _) => Ending::Lost,
        }
    }

    pub(crate) fn failure(&self, spec: &Spec) -> Option<Failure> {
        let (code, message) = match self {
            Self::Exited(_) => return None,
            Self::Rejected(failure) => return Some(failure.clone()),
            Self::Stopped(Stop::TimedOut, _) => (
                "timed_out",
                format!("timed out after {}", seconds(spec.timeout_ms)),
            ),
            Self::Stopped(Stop::TaskTimedOut, _) => {
                let limit = seconds(spec.timeout_per_task_ms.unwrap_or_default());
                ("timed_out", format!("the task timed out after {limit}"))
            }
            Self::Stopped(Stop::Stalled, _) => {
                let limit = seconds(spec.stall_timeout_ms.unwrap_or_default());
                ("stalled", format!("no output for {limit}"))
            }
            Self::Stopped(Stop::Cancelled, _) => ("cancelled", "cancelled on request".to_owned()),
            Self::Stopped(Stop::HandBack, _) => (
                "worker_shutdown",
                "its worker shut down before it had ended".to_owned(),
            ),
            Self::Stopped(Stop::LeaseLost, _) => {
                ("worker_lost", "its worker lost the lease".to_owned())
            }
        };
        Some(Failure::new(code, message))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "limits have far fewer milliseconds than a double has bits"
)]
fn seconds(ms: u64) -> String {
    format!("{} s", ms as f64 / 1_000.0)
}
