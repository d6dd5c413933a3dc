//! How an execution ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The word for how an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Everything exited with 0.
    Succeeded,
    /// Something exited with another code, or was killed by a signal of somebody else's.
    Failed,
    /// It took longer than `timeout`.
    TimedOut,
    /// It was silent for longer than `stall_timeout`.
    Stalled,
    /// Somebody asked for its end.
    Cancelled,
    /// Its worker died, or had to let it go.
    Lost,
    /// It could not be started.
    Rejected,
}

impl Ending {
    /// All endings.
    pub const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Stalled,
        Self::Cancelled,
        Self::Lost,
        Self::Rejected,
    ];

    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Stalled => "stalled",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Rejected => "rejected",
        }
    }
}

/// Why an execution ended other than by its own exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The stable name of the reason, like `timed_out` or `worker_lost`.
    pub code: String,
    /// The reason in a sentence.
    pub message: String,
}

impl Failure {
    /// A reason.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// All that is known about an execution once it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The exit code; none if it was killed, never started, or nobody saw it end.
    pub exit_code: Option<i32>,
    /// The name of the signal that killed it, like `SIGKILL`.
    pub signal: Option<String>,
    /// From the start to the end; 0 if it never started.
    pub duration_ms: u64,
    /// How many bytes of output were delivered; none if nobody saw it end.
    pub output_bytes: Option<u64>,
    /// SHA-256 of the delivered output, in the order of its lines, in hex.
    pub output_sha256: Option<String>,
    /// Whether there was more output than the limit.
    pub truncated: bool,
    /// The reason, unless it simply exited.
    pub error: Option<Failure>,
    /// How many of its processes were left when its leader had gone; none if nobody saw that.
    #[serde(default)]
    pub reaped: Option<u32>,
    /// The last that it wrote to standard error, unless it succeeded.
    #[serde(default)]
    pub stderr_tail: Option<String>,
}

impl Outcome {
    /// The outcome of an execution that nobody saw end or that never ran.
    pub fn unseen(ending: Ending, duration_ms: u64, error: impl Into<Option<Failure>>) -> Self {
        Self {
            ending,
            exit_code: None,
            signal: None,
            duration_ms,
            output_bytes: None,
            output_sha256: None,
            truncated: false,
            error: error.into(),
            reaped: None,
            stderr_tail: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_an_older_version_has_stored_is_read() {
        let stored = r#"{"ending":"lost","exit_code":null,"signal":null,"duration_ms":5,"output_bytes":null,
            "output_sha256":null,"truncated":false,"error":{"code":"worker_lost","message":"gone"}}"#;
        let outcome: Outcome = serde_json::from_str(stored).expect("is read");
        let failure = Failure::new("worker_lost", "gone");
        assert_eq!(outcome, Outcome::unseen(Ending::Lost, 5, failure));
    }
}
