//! Changes of state that take more than one step: read the record, apply the event, commit, and
//! begin again if somebody else was faster.

use std::time::Duration;

use thiserror::Error;

use crate::event::{self, Head, Line};
use crate::id::{EventId, ExecutionId};
use crate::record::Record;
use crate::state::{Event, Refusal, Running, State, apply};
use crate::store::{Action, Commit, CommitError, Control, Store, StoreError};
use crate::time::Timestamp;

/// Why an execution's state was not changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// There is no such execution.
    #[error("find the execution")]
    Unknown,
    /// It is in a state in which this cannot happen.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its worker has renewed the lease that seemed to have run out.
    #[error("take over an execution whose lease holds")]
    LeaseHeld,
    /// Somebody else was faster every time.
    #[error("change an execution that others keep changing")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lets `event` happen to an execution, and writes what follows from it into the log.
///
/// For everybody but the worker that holds the lease, who uses [`change_as_holder`].
pub async fn change(
    store: &dyn Store,
    id: &ExecutionId,
    event: &Event,
) -> Result<Record, ChangeError> {
    for round in 0.. {
        let Some(before) = store.load(id).await? else {
            return Err(ChangeError::Unknown);
        };
        let Some((after, lines)) = next(store, &before, event, round).await? else {
            return Ok(before);
        };
        let commit = Commit {
            before: &before,
            after,
            lines: &lines,
            only_if_lapsed: matches!(event, Event::LapseLease { .. }),
        };
        match store.commit(commit).await {
            Ok(record) => return Ok(record),
            Err(CommitError::Conflict) if round < MAX_ROUNDS => back_off(round).await,
            Err(CommitError::Conflict) => break,
            Err(CommitError::LeaseHeld) => return Err(ChangeError::LeaseHeld),
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(ChangeError::Contended)
}

/// Lets `event` happen to the execution that the caller holds the lease on, with `pending` lines
/// that are still to be written before what the log needs. The holder alone knows which ids of its
/// attempt are free: `first_free` is the one after the pending lines.
///
/// Trying again after a store error is safe, also where the first try succeeded unseen.
pub async fn change_as_holder(
    store: &dyn Store,
    held: &Record,
    event: &Event,
    pending: &[Line],
    first_free: EventId,
) -> Result<Record, ChangeError> {
    let mut before = held.clone();
    for _ in 0..MAX_ROUNDS {
        if is_done(&before.state, event) {
            return Ok(before);
        }
        let after = apply(
            &before.state,
            event,
            before.spec.max_attempts,
            Timestamp::now(),
        )?;
        let mut lines = pending.to_vec();
        lines.extend(lines_of(&before, &after, event, first_free));
        let commit = Commit {
            before: &before,
            after,
            lines: &lines,
            only_if_lapsed: false,
        };
        match store.commit(commit).await {
            Ok(record) => return Ok(record),
            Err(CommitError::Store(error)) => return Err(error.into()),
            Err(CommitError::Conflict | CommitError::LeaseHeld) => {
                before = store.load(&held.id).await?.ok_or(ChangeError::Unknown)?;
            }
        }
    }
    Err(ChangeError::Contended)
}

/// Whether an earlier try, whose answer was lost, has made the change already.
fn is_done(state: &State, event: &Event) -> bool {
    match (state, event) {
        (
            State::Ended(ended),
            Event::Finish {
                attempt, outcome, ..
            },
        ) => ended.attempt == *attempt && ended.outcome == *outcome,
        (State::Running(running), Event::Progress { attempt, progress }) => {
            running.attempt == *attempt && running.progress == *progress
        }
        (State::Queued(queued), Event::HandBack { attempt, .. }) => queued.attempt == *attempt,
        _ => false,
    }
}

/// More rounds than there are ever writers of one record at a time.
const MAX_ROUNDS: u32 = 12;

async fn back_off(round: u32) {
    tokio::time::sleep(Duration::from_millis(1 << round.min(6))).await;
}

/// The state after `event` and the lines that tell of it; none if the event changes nothing.
async fn next(
    store: &dyn Store,
    before: &Record,
    event: &Event,
    round: u32,
) -> Result<Option<(State, Vec<Line>)>, ChangeError> {
    let after = apply(
        &before.state,
        event,
        before.spec.max_attempts,
        Timestamp::now(),
    )?;
    if after == before.state {
        return Ok(None);
    }
    let lines = match &after {
        State::Running(_) => Vec::new(),
        State::Queued(_) | State::Ended(_) => {
            let first = free_id(store, before, round).await?;
            lines_of(before, &after, event, first)
        }
    };
    Ok(Some((after, lines)))
}

/// An id that nobody has used.
async fn free_id(store: &dyn Store, record: &Record, round: u32) -> Result<EventId, StoreError> {
    let last = store.last_event(&record.id).await?;
    match &record.state {
        // The part of the log that belongs to the last attempt was closed with it.
        State::Queued(queued) if queued.attempt > 0 => Ok(EventId {
            attempt: queued.attempt + 1,
            sequence: 1,
        }),
        State::Queued(_) | State::Ended(_) => Ok(last.next()),
        State::Running(running) => Ok(beyond(last, running.attempt, round)),
    }
}

/// An id that the worker of an attempt has not reached. If its lease has lapsed it may still be
/// writing: each round leaves it more room, since ids need not be without gaps.
fn beyond(last: EventId, attempt: u32, round: u32) -> EventId {
    let sequence = if last.attempt == attempt {
        last.sequence
    } else {
        0
    };
    let room = if round == 0 {
        1
    } else {
        1 << (round * 2).min(40)
    };
    EventId {
        attempt,
        sequence: sequence + room,
    }
}

fn lines_of(before: &Record, after: &State, event: &Event, first: EventId) -> Vec<Line> {
    match after {
        State::Running(_) => Vec::new(),
        State::Ended(ended) => event::ending(first, &before.id, &ended.outcome),
        State::Queued(queued) => {
            let attempts_left = before.spec.max_attempts - queued.attempt;
            let reason = before.running().and_then(|running| running.loss(event));
            let retry = reason.map(|reason| Head::now(first).retry(attempts_left, &reason));
            retry.into_iter().collect()
        }
    }
}

/// Asks for an execution's end: a queued one ends here and now, the worker of a running one is told.
pub async fn cancel(store: &dyn Store, id: &ExecutionId) -> Result<Record, ChangeError> {
    ask(store, id, &Event::RequestCancel, Action::Cancel).await
}

/// Asks for a running execution to be paused.
pub async fn pause(store: &dyn Store, id: &ExecutionId) -> Result<Record, ChangeError> {
    ask(store, id, &Event::RequestPause, Action::Pause).await
}

/// Asks for a paused execution to go on.
pub async fn resume(store: &dyn Store, id: &ExecutionId) -> Result<Record, ChangeError> {
    ask(store, id, &Event::RequestResume, Action::Resume).await
}

async fn ask(
    store: &dyn Store,
    id: &ExecutionId,
    event: &Event,
    action: Action,
) -> Result<Record, ChangeError> {
    let record = change(store, id, event).await?;
    if let Some(Running {
        worker, attempt, ..
    }) = record.running()
    {
        let control = Control {
            id: id.clone(),
            attempt: *attempt,
            action,
        };
        // The request is durable by now: the worker hears of it at the latest when it renews.
        if let Err(error) = store.control(worker, &control).await {
            tracing::warn!(execution_id = %id, %error, ?action, "failed to tell the worker at once");
        }
    }
    Ok(record)
}
