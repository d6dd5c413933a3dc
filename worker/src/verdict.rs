//! How a task, or a whole execution, came to an end, and the words for it.

use nix::sys::signal::Signal;
use shared::outcome::{Ending, Failure};
use shared::spec::{Limits, Spec};
use shared::state::Cause;

use crate::guard::wire::Limit;
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
    OutputLimit,
    Limit(Limit),
    HandBack(Cause),
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
            Self::Exited(_) | Self::Stopped(Stop::OutputLimit | Stop::Limit(_), _) => {
                Ending::Failed
            }
            Self::Rejected(_) => Ending::Rejected,
            Self::Stopped(Stop::TimedOut | Stop::TaskTimedOut, _) => Ending::TimedOut,
            Self::Stopped(Stop::Stalled, _) => Ending::Stalled,
            Self::Stopped(Stop::Cancelled, _) => Ending::Cancelled,
            Self::Stopped(Stop::HandBack(_) | Stop::LeaseLost, _) => Ending::Lost,
        }
    }

    /// Why it is not a success, if more can be said than how it exited. What it wrote last to standard error
    /// is looked at only to tell a process that was refused memory from others.
    pub(crate) fn failure(&self, spec: &Spec, stderr_tail: &str) -> Option<Failure> {
        let (code, message) = match self {
            Self::Exited(exit) => return limit_of(exit, &spec.limits, stderr_tail),
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
            Self::Stopped(Stop::OutputLimit, _) => (
                "output_limit",
                format!("it printed more than {} bytes", spec.output_bytes),
            ),
            Self::Stopped(Stop::Limit(limit), _) => return Some(exceeded(*limit, &spec.limits)),
            Self::Stopped(Stop::HandBack(Cause::Shutdown), _) => (
                "worker_shutdown",
                "its worker shut down before it had ended".to_owned(),
            ),
            Self::Stopped(Stop::HandBack(Cause::GuardianLost), _) => (
                "guardian_lost",
                "what guarded it on its worker was killed".to_owned(),
            ),
            Self::Stopped(Stop::LeaseLost, _) => {
                ("worker_lost", "its worker lost the lease".to_owned())
            }
        };
        Some(Failure::new(code, message))
    }
}

fn exceeded(limit: Limit, limits: &Limits) -> Failure {
    let (code, most, what) = match limit {
        Limit::Memory => ("memory_limit", limits.memory_bytes, "bytes of memory"),
        Limit::CpuTime => ("cpu_limit", limits.cpu_seconds, "seconds of processor time"),
        Limit::Processes => ("process_limit", limits.processes, "processes"),
    };
    let most = most.unwrap_or_default();
    Failure::new(code, format!("it used more than {most} {what}"))
}

/// What shells add to the number of the signal that ended a command.
const SIGNAL_BASE: i32 = 128;

/// The limit that the kernel ended it with, if that can be told.
fn limit_of(exit: &Exit, limits: &Limits, stderr_tail: &str) -> Option<Failure> {
    let too_large = match exit {
        Exit::Code(code) => *code == SIGNAL_BASE + Signal::SIGXFSZ as i32,
        Exit::Signal(name) => name == Signal::SIGXFSZ.as_str(),
    };
    if let Some(most) = limits.file_bytes.filter(|_| too_large) {
        let message = format!("it wrote a file of more than {most} bytes");
        return Some(Failure::new("file_size_limit", message));
    }
    let is_success = *exit == Exit::Code(0);
    if limits.memory_bytes.is_some() && !is_success && tells_of_too_little_memory(stderr_tail) {
        return Some(exceeded(Limit::Memory, limits));
    }
    None
}

/// A process that is refused memory ends as it likes, and says so in its own words.
fn tells_of_too_little_memory(stderr_tail: &str) -> bool {
    const WORDS: [&str; 6] = [
        "cannot allocate memory",
        "out of memory",
        "outofmemory",
        "memoryerror",
        "bad_alloc",
        "memory allocation of",
    ];
    let text = stderr_tail.to_ascii_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "limits have far fewer milliseconds than a double has bits"
)]
fn seconds(ms: u64) -> String {
    format!("{} s", ms as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(exit: &Exit, limits: Limits, stderr: &str) -> Option<String> {
        limit_of(exit, &limits, stderr).map(|failure| failure.code)
    }

    #[test]
    fn a_limit_is_told_from_how_a_process_ended_only_if_there_was_one() {
        let file = Limits {
            file_bytes: Some(1),
            ..Limits::default()
        };
        let memory = Limits {
            memory_bytes: Some(1),
            ..Limits::default()
        };
        let killed = || Exit::Signal("SIGXFSZ".to_owned());
        assert_eq!(
            code(&killed(), file, ""),
            Some("file_size_limit".to_owned())
        );
        assert_eq!(
            code(&Exit::Code(153), file, ""),
            Some("file_size_limit".to_owned())
        );
        assert_eq!(code(&killed(), memory, ""), None);
        let told = "Traceback\nMemoryError\n";
        assert_eq!(
            code(&Exit::Code(1), memory, told),
            Some("memory_limit".to_owned())
        );
        assert_eq!(code(&Exit::Code(1), file, told), None);
        assert_eq!(code(&Exit::Code(0), memory, told), None);
        assert_eq!(code(&Exit::Code(1), memory, "no such file"), None);
    }
}
