//! Where an execution stands, and the one function by which that changes.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::outcome::{Ending, Failure, Outcome};
use crate::time::Timestamp;

/// Where an execution stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum State {
    /// It waits for a worker.
    Queued(Queued),
    /// A worker holds the lease on it.
    Running(Running),
    /// It is over.
    Ended(Ended),
}

/// What is known of an execution that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// How many attempts have been made.
    pub attempt: u32,
}

/// What is known of an execution that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The worker that holds the lease.
    pub worker: String,
    /// When the worker claimed it.
    pub started_at: Timestamp,
    /// Whether somebody has asked for its end.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Whether somebody has asked for it to be paused, and not to be resumed since.
    #[serde(default)]
    pub paused: bool,
    /// How its tasks are getting on.
    #[serde(default)]
    pub progress: Progress,
}

/// How many tasks of an execution are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Tasks that exited with 0.
    pub completed: usize,
    /// Tasks that ended otherwise.
    pub failed: usize,
}

/// What is known of an execution that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How many attempts were made.
    pub attempt: u32,
    /// The worker of the last attempt.
    pub worker: Option<String>,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How its tasks got on.
    pub progress: Progress,
    /// How it ended.
    pub outcome: Outcome,
}

/// The word for where an execution stands, as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for a worker.
    Queued,
    /// A worker runs it.
    Running,
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

impl Status {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => Ending::Succeeded.as_str(),
            Self::Failed => Ending::Failed.as_str(),
            Self::TimedOut => Ending::TimedOut.as_str(),
            Self::Stalled => Ending::Stalled.as_str(),
            Self::Cancelled => Ending::Cancelled.as_str(),
            Self::Lost => Ending::Lost.as_str(),
            Self::Rejected => Ending::Rejected.as_str(),
        }
    }

    /// The status that a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        let waiting = [Self::Queued, Self::Running].into_iter();
        waiting
            .chain(Ending::ALL.into_iter().map(Self::from))
            .find(|status| status.as_str() == word)
    }
}

impl From<Ending> for Status {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Succeeded => Self::Succeeded,
            Ending::Failed => Self::Failed,
            Ending::TimedOut => Self::TimedOut,
            Ending::Stalled => Self::Stalled,
            Ending::Cancelled => Self::Cancelled,
            Ending::Lost => Self::Lost,
            Ending::Rejected => Self::Rejected,
        }
    }
}

impl State {
    /// The state of a new execution.
    pub fn new() -> Self {
        Self::Queued(Queued::default())
    }

    /// The word for it.
    pub fn status(&self) -> Status {
        match self {
            Self::Queued(_) => Status::Queued,
            Self::Running(_) => Status::Running,
            Self::Ended(ended) => ended.outcome.ending.into(),
        }
    }

    /// How many attempts have been made, the present one included.
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Queued(queued) => queued.attempt,
            Self::Running(running) => running.attempt,
            Self::Ended(ended) => ended.attempt,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// What can happen to an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker takes it out of its queue.
    Claim {
        /// That worker.
        worker: String,
    },
    /// Somebody asks for its end.
    RequestCancel,
    /// Somebody asks for it to be paused.
    RequestPause,
    /// Somebody asks for it to go on.
    RequestResume,
    /// Its worker has come to the end of a task.
    Progress {
        /// The attempt that the worker is at.
        attempt: u32,
        /// How its tasks are getting on.
        progress: Progress,
    },
    /// Its worker has seen it end.
    Finish {
        /// The attempt that the worker was at.
        attempt: u32,
        /// How its tasks got on.
        progress: Progress,
        /// How it ended.
        outcome: Outcome,
    },
    /// Its worker has stopped it, for a reason that is not the execution's, and gives it back.
    HandBack {
        /// The attempt that the worker was at.
        attempt: u32,
        /// That reason.
        cause: Cause,
    },
    /// Its worker has not been heard of for longer than the lease.
    LapseLease {
        /// The attempt that the worker was at.
        attempt: u32,
    },
}

/// Why a worker gives an execution back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The worker shuts down.
    Shutdown,
    /// The process between the worker and the execution's was killed, and they with it.
    GuardianLost,
}

/// Why an event cannot happen to an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is not in a queue.
    #[error("the execution is not queued")]
    NotQueued,
    /// No worker holds a lease on it.
    #[error("the execution is not running")]
    NotRunning,
    /// The attempt is not the present one.
    #[error("the attempt has been superseded")]
    StaleAttempt,
    /// It is about to end.
    #[error("the execution is being cancelled")]
    CancelRequested,
    /// It is over already.
    #[error("the execution has ended already")]
    AlreadyEnded,
}

/// The state after `event`, or why it cannot happen. Pure and total.
pub fn apply(
    state: &State,
    event: &Event,
    max_attempts: u32,
    now: Timestamp,
) -> Result<State, Refusal> {
    match state {
        State::Queued(queued) => apply_to_queued(queued, event, now),
        State::Running(running) => apply_to_running(running, event, max_attempts, now),
        State::Ended(ended) => apply_to_ended(ended, event),
    }
}

fn apply_to_queued(queued: &Queued, event: &Event, now: Timestamp) -> Result<State, Refusal> {
    match event {
        Event::Claim { worker } => Ok(State::Running(Running {
            attempt: queued.attempt + 1,
            worker: worker.clone(),
            started_at: now,
            cancel_requested: false,
            paused: false,
            progress: Progress::default(),
        })),
        Event::RequestCancel => Ok(State::Ended(Ended {
            attempt: queued.attempt,
            worker: None,
            started_at: None,
            ended_at: now,
            progress: Progress::default(),
            outcome: Outcome::unseen(
                Ending::Cancelled,
                0,
                Failure::new("cancelled", "cancelled while it was queued"),
            ),
        })),
        Event::RequestPause
        | Event::RequestResume
        | Event::Progress { .. }
        | Event::Finish { .. }
        | Event::HandBack { .. }
        | Event::LapseLease { .. } => Err(Refusal::NotRunning),
    }
}

fn apply_to_running(
    running: &Running,
    event: &Event,
    max_attempts: u32,
    now: Timestamp,
) -> Result<State, Refusal> {
    let of_this_attempt = |attempt: &u32| {
        if *attempt == running.attempt {
            Ok(())
        } else {
            Err(Refusal::StaleAttempt)
        }
    };
    match event {
        Event::Claim { .. } => Err(Refusal::NotQueued),
        Event::RequestCancel => Ok(State::Running(Running {
            cancel_requested: true,
            ..running.clone()
        })),
        Event::RequestPause if running.cancel_requested => Err(Refusal::CancelRequested),
        Event::RequestPause | Event::RequestResume => Ok(State::Running(Running {
            paused: *event == Event::RequestPause,
            ..running.clone()
        })),
        Event::Progress { attempt, progress } => of_this_attempt(attempt).map(|()| {
            State::Running(Running {
                progress: *progress,
                ..running.clone()
            })
        }),
        Event::Finish {
            attempt,
            progress,
            outcome,
        } => of_this_attempt(attempt)
            .map(|()| State::Ended(running.end(*progress, outcome.clone(), now))),
        Event::HandBack { attempt, .. } | Event::LapseLease { attempt } => {
            of_this_attempt(attempt).map(|()| running.release(max_attempts, event, now))
        }
    }
}

fn apply_to_ended(ended: &Ended, event: &Event) -> Result<State, Refusal> {
    match event {
        Event::RequestCancel if ended.outcome.ending == Ending::Cancelled => {
            Ok(State::Ended(ended.clone()))
        }
        Event::Claim { .. }
        | Event::RequestCancel
        | Event::RequestPause
        | Event::RequestResume
        | Event::Progress { .. }
        | Event::Finish { .. }
        | Event::HandBack { .. }
        | Event::LapseLease { .. } => Err(Refusal::AlreadyEnded),
    }
}

impl Running {
    /// Its worker is gone: back into the queue if it may be tried again, else it is lost. Whoever
    /// asked for its end does not want another attempt.
    fn release(&self, max_attempts: u32, event: &Event, now: Timestamp) -> State {
        if self.attempt < max_attempts && !self.cancel_requested {
            return State::Queued(Queued {
                attempt: self.attempt,
            });
        }
        let duration_ms = now.ms_since(self.started_at);
        let outcome = Outcome::unseen(Ending::Lost, duration_ms, self.loss(event));
        State::Ended(self.end(self.progress, outcome, now))
    }

    /// Why an event takes the execution away from its worker, if it does.
    pub(crate) fn loss(&self, event: &Event) -> Option<Failure> {
        match event {
            Event::HandBack {
                cause: Cause::Shutdown,
                ..
            } => Some(Failure::new(
                "worker_shutdown",
                format!("worker {} shut down before it had ended", self.worker),
            )),
            Event::HandBack {
                cause: Cause::GuardianLost,
                ..
            } => Some(Failure::new(
                "guardian_lost",
                format!("what guarded it on worker {} was killed", self.worker),
            )),
            Event::LapseLease { .. } => Some(Failure::new(
                "worker_lost",
                format!("worker {} died or lost contact with the store", self.worker),
            )),
            Event::Claim { .. }
            | Event::RequestCancel
            | Event::RequestPause
            | Event::RequestResume
            | Event::Progress { .. }
            | Event::Finish { .. } => None,
        }
    }

    fn end(&self, progress: Progress, outcome: Outcome, now: Timestamp) -> Ended {
        Ended {
            attempt: self.attempt,
            worker: Some(self.worker.clone()),
            started_at: Some(self.started_at),
            ended_at: now,
            progress,
            outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(state: &State, event: &Event) -> Result<State, Refusal> {
        apply(state, event, 2, Timestamp::default())
    }

    fn running() -> State {
        let worker = "w".to_owned();
        after(&State::new(), &Event::Claim { worker }).expect("is claimed")
    }

    fn paused() -> State {
        after(&running(), &Event::RequestPause).expect("is paused")
    }

    fn is_paused(state: &State) -> bool {
        matches!(state, State::Running(running) if running.paused)
    }

    #[test]
    fn pausing_and_resuming_twice_is_once() {
        let paused = paused();
        assert!(is_paused(&paused));
        assert_eq!(after(&paused, &Event::RequestPause), Ok(paused.clone()));
        assert_eq!(after(&paused, &Event::RequestResume), Ok(running()));
        assert_eq!(after(&running(), &Event::RequestResume), Ok(running()));
    }

    #[test]
    fn only_what_runs_can_be_paused_or_resumed() {
        let queued = State::new();
        let ended = after(&queued, &Event::RequestCancel).expect("is cancelled");
        for event in [Event::RequestPause, Event::RequestResume] {
            assert_eq!(after(&queued, &event), Err(Refusal::NotRunning));
            assert_eq!(after(&ended, &event), Err(Refusal::AlreadyEnded));
        }
    }

    #[test]
    fn what_is_to_end_cannot_be_paused_but_what_is_paused_can_be_ended() {
        let to_end = after(&running(), &Event::RequestCancel).expect("is asked to end");
        let refused = Err(Refusal::CancelRequested);
        assert_eq!(after(&to_end, &Event::RequestPause), refused);
        assert_eq!(after(&to_end, &Event::RequestResume), Ok(to_end.clone()));

        let to_end = after(&paused(), &Event::RequestCancel).expect("is asked to end");
        assert!(matches!(&to_end, State::Running(running) if running.cancel_requested));
        assert_eq!(after(&to_end, &Event::RequestPause), refused);
    }

    #[test]
    fn another_attempt_is_not_paused() {
        let lapsed = after(&paused(), &Event::LapseLease { attempt: 1 }).expect("waits again");
        let worker = "another".to_owned();
        let again = after(&lapsed, &Event::Claim { worker }).expect("is claimed");
        assert!(!is_paused(&again));
        assert_eq!(again.attempt(), 2);
    }

    #[test]
    fn a_state_that_an_older_version_has_stored_is_read() {
        let stored = r#"{"status":"running","attempt":1,"worker":"w",
            "started_at":"2026-11-21T10:00:00.000Z","cancel_requested":true,
            "progress":{"completed":1,"failed":0}}"#;
        let state: State = serde_json::from_str(stored).expect("is read");
        assert!(matches!(&state, State::Running(running) if running.cancel_requested));
        assert!(!is_paused(&state));

        let stored = r#"{"status":"ended","attempt":1,"worker":"w",
            "started_at":"2026-11-21T10:00:00.000Z","ended_at":"2026-11-21T10:00:01.000Z",
            "progress":{"completed":0,"failed":0},"outcome":{"ending":"failed","exit_code":3,
            "signal":null,"duration_ms":1000,"output_bytes":0,"output_sha256":"","truncated":false,
            "error":null}}"#;
        let State::Ended(ended) = serde_json::from_str(stored).expect("is read") else {
            panic!("it has ended");
        };
        assert_eq!(
            (ended.outcome.reaped, ended.outcome.stderr_tail),
            (None, None)
        );
    }
}
