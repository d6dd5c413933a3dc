//! Every state × every event: a store does what [`apply`] says, and nothing else.

use super::Bench;
use super::scene::{Scene, event_id, finish, success};
use crate::life::{ChangeError, change_as_holder};
use crate::outcome::{Ending, Failure, Outcome};
use crate::record::Record;
use crate::state::{Cause, Ended, Event, Progress, Refusal, Running, State, apply};
use crate::time::Timestamp;

/// A state in which an execution of two attempts can be.
#[derive(Clone, Copy, Debug)]
enum Situation {
    New,
    WaitsAgain,
    Running,
    OnLastAttempt,
    Paused,
    ToBeCancelled,
    PausedAndToBeCancelled,
    Cancelled,
    Succeeded,
}

/// Who lets an event happen.
#[derive(Clone, Copy, Debug)]
enum By {
    Anybody,
    Holder,
}

pub async fn a_new_execution_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::New).await;
}

pub async fn an_execution_that_waits_again_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::WaitsAgain).await;
}

pub async fn a_running_execution_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::Running).await;
}

pub async fn an_execution_on_its_last_attempt_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::OnLastAttempt).await;
}

pub async fn a_paused_execution_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::Paused).await;
}

pub async fn an_execution_that_is_to_be_cancelled_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::ToBeCancelled).await;
}

pub async fn a_paused_execution_that_is_to_be_cancelled_changes_as_the_table_says(
    bench: &dyn Bench,
) {
    check(bench, Situation::PausedAndToBeCancelled).await;
}

pub async fn a_cancelled_execution_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::Cancelled).await;
}

pub async fn an_ended_execution_changes_as_the_table_says(bench: &dyn Bench) {
    check(bench, Situation::Succeeded).await;
}

async fn check(bench: &dyn Bench, situation: Situation) {
    let scene = Scene::new(bench).await;
    let attempt = match situation {
        Situation::New => 0,
        Situation::OnLastAttempt => 2,
        _ => 1,
    };
    for (number, event) in events(attempt).into_iter().enumerate() {
        for by in [By::Anybody, By::Holder] {
            if matches!(by, By::Holder) && !is_of_holder(situation, &event) {
                continue;
            }
            let id = format!("{situation:?}-{number}-{by:?}");
            let before = bring_about(&scene, situation, &id).await;
            assert_eq!(before.state.attempt(), attempt);
            cause(&scene, &before, &event, by).await;
        }
    }
}

/// All events, of the present attempt, the one before it and the one after it.
fn events(attempt: u32) -> Vec<Event> {
    let mut events = vec![
        Event::Claim {
            worker: "a \"third\" worker".to_owned(),
        },
        Event::RequestCancel,
        Event::RequestPause,
        Event::RequestResume,
    ];
    for attempt in attempt.saturating_sub(1)..=attempt + 1 {
        let progress = Progress {
            completed: 2,
            failed: 1,
        };
        let failure = Failure::new("timed_out", "timed out after 1 s");
        events.extend([
            Event::Progress { attempt, progress },
            Event::Finish {
                attempt,
                progress,
                outcome: Outcome::unseen(Ending::TimedOut, 1_000, failure),
            },
            Event::HandBack {
                attempt,
                cause: Cause::Shutdown,
            },
            Event::HandBack {
                attempt,
                cause: Cause::GuardianLost,
            },
            Event::LapseLease { attempt },
        ]);
    }
    events
}

fn is_of_holder(situation: Situation, event: &Event) -> bool {
    let is_held = matches!(
        situation,
        Situation::Running
            | Situation::OnLastAttempt
            | Situation::Paused
            | Situation::ToBeCancelled
            | Situation::PausedAndToBeCancelled
    );
    let is_workers = matches!(
        event,
        Event::Progress { .. } | Event::Finish { .. } | Event::HandBack { .. }
    );
    is_held && is_workers
}

/// An execution in a queue of its own.
async fn bring_about(scene: &Scene, situation: Situation, id: &str) -> Record {
    let new = scene
        .submit(id, |spec| {
            spec.queue = id.into();
            spec.max_attempts = 2;
        })
        .await;
    let id = new.id.clone();
    match situation {
        Situation::New => {}
        Situation::WaitsAgain => {
            wait_again(scene, &new).await;
        }
        Situation::Running => {
            claim(scene, &new, "first").await;
        }
        Situation::OnLastAttempt => {
            wait_again(scene, &new).await;
            claim(scene, &new, "second").await;
        }
        Situation::Paused => {
            claim(scene, &new, "first").await;
            pause(scene, &new).await;
        }
        Situation::ToBeCancelled => {
            claim(scene, &new, "first").await;
            cancel(scene, &new).await;
        }
        Situation::PausedAndToBeCancelled => {
            claim(scene, &new, "first").await;
            pause(scene, &new).await;
            cancel(scene, &new).await;
        }
        Situation::Cancelled => {
            claim(scene, &new, "first").await;
            cancel(scene, &new).await;
            let failure = Failure::new("cancelled", "cancelled");
            let event = Event::Finish {
                attempt: 1,
                progress: Progress::default(),
                outcome: Outcome::unseen(Ending::Cancelled, 5, failure),
            };
            scene.change(&id, &event).await.expect("is cancelled");
        }
        Situation::Succeeded => {
            claim(scene, &new, "first").await;
            scene.change(&id, &finish(1)).await.expect("finishes");
        }
    }
    scene.load(&id).await
}

async fn claim(scene: &Scene, record: &Record, worker: &str) -> Record {
    let claimed = scene.try_claim(worker, &[&record.spec.queue]).await;
    claimed.expect("can be claimed")
}

async fn wait_again(scene: &Scene, record: &Record) {
    claim(scene, record, "first").await;
    let hand_back = Event::HandBack {
        attempt: 1,
        cause: Cause::Shutdown,
    };
    let waits = scene.change(&record.id, &hand_back).await;
    waits.expect("waits again");
}

async fn pause(scene: &Scene, record: &Record) {
    let asked = scene.change(&record.id, &Event::RequestPause).await;
    asked.expect("is asked to stand still");
}

async fn cancel(scene: &Scene, record: &Record) {
    let asked = scene.change(&record.id, &Event::RequestCancel).await;
    asked.expect("is asked to end");
}

/// Lets an event happen, and compares what has become of the execution with what should have.
async fn cause(scene: &Scene, before: &Record, event: &Event, by: By) {
    let what = format!("{:?} × {event:?} by {by:?}", before.state);
    let expected = apply(
        &before.state,
        event,
        before.spec.max_attempts,
        Timestamp::now(),
    );
    let result = match (event, by) {
        (Event::Claim { worker }, _) => {
            let claimed = scene.try_claim(worker, &[&before.spec.queue]).await;
            claimed.ok_or(ChangeError::Refused(refusal_of_claim(&before.state)))
        }
        (_, By::Holder) => {
            let next = event_id(before.state.attempt(), 1);
            change_as_holder(scene.store.as_ref(), before, event, &[], next).await
        }
        (Event::LapseLease { .. }, By::Anybody) => {
            if before.running().is_some() {
                scene.let_lapse(before).await;
            }
            scene.change(&before.id, event).await
        }
        (_, By::Anybody) => scene.change(&before.id, event).await,
    };
    let stored = scene.load(&before.id).await;
    match (expected, result) {
        (Ok(state), Ok(record)) => {
            assert_eq!(record, stored, "{what}: what is returned is what is stored");
            assert_eq!(timeless(&stored.state), timeless(&state), "{what}");
            let changes = u64::from(state != before.state);
            assert_eq!(stored.revision, before.revision + changes, "{what}");
            let unchanged = Record {
                state: before.state.clone(),
                revision: before.revision,
                ..stored
            };
            assert_eq!(unchanged, *before, "{what}: nothing else changes");
        }
        (Err(expected), Err(ChangeError::Refused(refusal))) => {
            assert_eq!(refusal, expected, "{what}");
            assert_eq!(stored, *before, "{what}: nothing changes");
        }
        (expected, result) => panic!("{what}: {expected:?} was expected, not {result:?}"),
    }
}

/// A claim has no way to say why there is nothing.
fn refusal_of_claim(state: &State) -> Refusal {
    match state {
        State::Queued(_) | State::Running(_) => Refusal::NotQueued,
        State::Ended(_) => Refusal::AlreadyEnded,
    }
}

/// A state but for the moments at which it came about.
fn timeless(state: &State) -> State {
    let then = Timestamp::default();
    match state.clone() {
        State::Queued(queued) => State::Queued(queued),
        State::Running(running) => State::Running(Running {
            started_at: then,
            ..running
        }),
        State::Ended(ended) => State::Ended(Ended {
            started_at: ended.started_at.map(|_| then),
            ended_at: then,
            outcome: Outcome {
                duration_ms: success().duration_ms,
                ..ended.outcome
            },
            ..ended
        }),
    }
}
