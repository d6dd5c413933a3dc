//! Leases: who may write, for how long, and who no longer may.

use std::sync::Arc;
use std::time::Duration;

use super::Bench;
use super::scene::{LONG, Scene, event_id, finish, lease, output, soon};
use crate::life::{ChangeError, change_as_holder};
use crate::record::Record;
use crate::state::{Event, Progress, Refusal, State};
use crate::store::{AppendError, Lease, Renewal};

/// Whatever the worker that has lost `held` tries, nothing comes of it.
async fn assert_is_fenced_off(scene: &Scene, held: &Record, refusal: Refusal) {
    let before = scene.load(&held.id).await;
    let log = scene.lines(&held.id).await;
    let lease = lease(held);
    for lines in [
        output(lease.attempt, 2..=3),
        output(lease.attempt, 1..=3),
        output(lease.attempt, 900..=900),
    ] {
        let appended = scene.store.append(&lease, &lines).await;
        assert!(matches!(appended, Err(AppendError::Fenced)), "{appended:?}");
    }
    let renewed = scene.store.renew(std::slice::from_ref(&lease), LONG).await;
    assert_eq!(renewed.expect("answers"), [Renewal::Lost]);
    for event in [
        finish_with_pride(lease.attempt),
        Event::Progress {
            attempt: lease.attempt,
            progress: Progress {
                completed: 9,
                failed: 9,
            },
        },
    ] {
        let pending = output(lease.attempt, 4..=4);
        let next = event_id(lease.attempt, 5);
        let changed = change_as_holder(scene.store.as_ref(), held, &event, &pending, next).await;
        assert!(
            matches!(changed, Err(ChangeError::Refused(_))),
            "{changed:?}"
        );
    }
    let refused = scene
        .change(&held.id, &finish_with_pride(lease.attempt))
        .await;
    assert!(
        matches!(refused, Err(ChangeError::Refused(why)) if why == refusal),
        "{refused:?}"
    );
    assert_eq!(scene.load(&held.id).await, before);
    assert_eq!(scene.lines(&held.id).await, log);
}

pub async fn a_stale_worker_is_fenced_off_from_the_moment_of_the_reclaim(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let stale = scene.start("x", "stale", 2).await;
    scene
        .store
        .append(&lease(&stale), &output(1, 1..=1))
        .await
        .expect("appends");
    let waiting = scene.reclaim(&stale).await;
    assert_is_fenced_off(&scene, &stale, Refusal::NotRunning).await;
    let held = scene.claim("fresh").await;
    assert_eq!(
        (held.id.as_str(), held.state.attempt()),
        ("x", waiting.state.attempt() + 1)
    );
    assert_is_fenced_off(&scene, &stale, Refusal::StaleAttempt).await;
    scene
        .store
        .append(&lease(&held), &output(2, 1..=2))
        .await
        .expect("appends");
    assert_is_fenced_off(&scene, &stale, Refusal::StaleAttempt).await;
    scene.finish(&held, 2).await.expect("finishes");
    assert_is_fenced_off(&scene, &stale, Refusal::AlreadyEnded).await;
    let log = scene.log(&stale.id).await;
    let expected = [
        "0-1 queued",
        "1-1 output",
        "1-2 retry",
        "2-1 output",
        "2-2 output",
        "2-3 complete",
    ];
    assert_eq!(log, expected);
}

pub async fn a_stale_attempt_of_the_same_worker_is_fenced_off(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let stale = scene.start("x", "w", 2).await;
    scene.reclaim(&stale).await;
    let held = scene.claim("w").await;
    assert_is_fenced_off(&scene, &stale, Refusal::StaleAttempt).await;
    scene
        .store
        .append(&lease(&held), &output(2, 1..=1))
        .await
        .expect("appends");
    scene.finish(&held, 1).await.expect("finishes");
}

pub async fn a_worker_is_fenced_off_once_its_execution_has_ended(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let lost = scene.start("lost", "w", 1).await;
    let ended = scene.reclaim(&lost).await;
    assert!(matches!(ended.state, State::Ended(_)));
    assert_is_fenced_off(&scene, &lost, Refusal::AlreadyEnded).await;
    let finished = scene.start("finished", "w", 1).await;
    scene.finish(&finished, 0).await.expect("finishes");
    assert_is_fenced_off(&scene, &finished, Refusal::AlreadyEnded).await;
    let retried = scene.start("cancelled-while-it-waited-again", "w", 2).await;
    scene.reclaim(&retried).await;
    scene
        .change(&retried.id, &Event::RequestCancel)
        .await
        .expect("is cancelled");
    assert_is_fenced_off(&scene, &retried, Refusal::AlreadyEnded).await;
}

pub async fn a_worker_is_fenced_off_once_its_execution_is_removed(bench: &dyn Bench) {
    let scene = Scene::with_retention(bench, Duration::ZERO).await;
    let held = scene.start("x", "w", 1).await;
    scene.reclaim(&held).await;
    assert_eq!(scene.store.sweep().await.expect("sweeps"), 1);
    let appended = scene.store.append(&lease(&held), &output(1, 1..=1)).await;
    assert!(matches!(appended, Err(AppendError::Fenced)), "{appended:?}");
    let renewed = scene.store.renew(&[lease(&held)], LONG).await;
    assert_eq!(renewed.expect("answers"), [Renewal::Lost]);
    let finished = scene.finish(&held, 0).await;
    assert!(
        matches!(finished, Err(ChangeError::Unknown)),
        "{finished:?}"
    );
    assert_eq!(scene.store.load(&held.id).await.expect("loads"), None);
    assert_eq!(scene.log(&held.id).await, [""; 0]);
}

pub async fn somebody_elses_lease_is_not_renewed(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = lease(&scene.start("x", "w", 1).await);
    let others = [
        Lease {
            worker: "v".to_owned(),
            ..held.clone()
        },
        Lease {
            attempt: 2,
            ..held.clone()
        },
        Lease {
            id: "y".parse().expect("is an id"),
            ..held.clone()
        },
    ];
    let renewed = scene.store.renew(&others, Duration::ZERO).await;
    assert_eq!(renewed.expect("answers"), [Renewal::Lost; 3]);
    let lapsed = scene.store.lapsed(10).await.expect("looks");
    assert_eq!(lapsed, [], "its own lease holds as long as it did");
}

pub async fn a_lease_that_is_renewed_is_not_taken_over(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 2).await;
    scene.let_lapse(&held).await;
    // Found to have lapsed by somebody who is slower than the worker.
    assert_eq!(
        scene.store.lapsed(10).await.expect("looks"),
        std::slice::from_ref(&held)
    );
    scene
        .store
        .renew(&[lease(&held)], LONG)
        .await
        .expect("renews");
    let reclaimed = scene
        .change(&held.id, &Event::LapseLease { attempt: 1 })
        .await;
    assert!(
        matches!(reclaimed, Err(ChangeError::LeaseHeld)),
        "{reclaimed:?}"
    );
    assert_eq!(scene.store.lapsed(10).await.expect("looks"), []);
    assert_eq!(scene.load(&held.id).await, held);
}

pub async fn a_lease_that_has_run_out_is_taken_over(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    scene.submit("x", |_| {}).await;
    let mut claimant = scene.claimant("w", &[]);
    claimant.lease = Duration::from_millis(1);
    scene.store.claim(&claimant).await.expect("claims");
    let lapsed = async {
        loop {
            let lapsed = scene.store.lapsed(10).await.expect("looks");
            if let [record] = lapsed.as_slice() {
                break record.clone();
            }
        }
    };
    let lapsed = soon("running out", lapsed).await;
    let event = Event::LapseLease { attempt: 1 };
    let ended = scene.change(&lapsed.id, &event).await.expect("reclaims");
    assert!(matches!(ended.state, State::Ended(_)));
    assert_eq!(scene.store.lapsed(10).await.expect("looks"), []);
    assert_eq!(
        scene.log(&lapsed.id).await,
        ["0-1 queued", "1-1 error", "1-2 complete"]
    );
}

pub async fn a_lease_that_has_run_out_may_still_be_renewed(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 1).await;
    scene.let_lapse(&held).await;
    let appended = scene.store.append(&lease(&held), &output(1, 1..=1)).await;
    appended.expect("nobody has taken it over");
    let renewed = scene.store.renew(&[lease(&held)], LONG).await;
    assert_eq!(renewed.expect("answers"), [Renewal::Renewed]);
    scene.finish(&held, 1).await.expect("finishes");
}

pub async fn leases_are_renewed_in_the_order_given(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let mut leases = Vec::new();
    let mut expected = Vec::new();
    for number in 0..12 {
        let held = scene.start(&format!("x{number}"), "w", 1).await;
        expected.push(match number % 4 {
            0 => Renewal::Renewed,
            1 => {
                scene
                    .change(&held.id, &Event::RequestCancel)
                    .await
                    .expect("is asked to end");
                Renewal::CancelRequested
            }
            2 => {
                scene
                    .change(&held.id, &Event::RequestPause)
                    .await
                    .expect("is asked to stand still");
                Renewal::PauseRequested
            }
            _ => {
                scene.finish(&held, 0).await.expect("finishes");
                Renewal::Lost
            }
        });
        leases.push(lease(&held));
    }
    let renewed = scene.store.renew(&leases, LONG).await;
    assert_eq!(renewed.expect("answers"), expected);
    assert_eq!(scene.store.renew(&[], LONG).await.expect("answers"), []);
}

pub async fn a_writer_that_races_with_a_reclaim_adds_nothing_after_it(bench: &dyn Bench) {
    let scene = Arc::new(Scene::new(bench).await);
    for (id, max_attempts, last) in [("ends", 1, "complete"), ("goes-back", 2, "retry")] {
        let held = scene.start(id, "w", max_attempts).await;
        scene.let_lapse(&held).await;
        let write = async {
            for sequence in 1.. {
                let lines = output(1, sequence..=sequence);
                match scene.store.append(&lease(&held), &lines).await {
                    Ok(()) => {}
                    Err(AppendError::Fenced) => break,
                    Err(AppendError::Store(error)) => panic!("{error}"),
                }
            }
        };
        let reclaim = async {
            loop {
                let event = Event::LapseLease { attempt: 1 };
                match scene.change(&held.id, &event).await {
                    Ok(_) => break,
                    Err(ChangeError::Contended) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        soon("the race", async { tokio::join!(write, reclaim) }).await;
        let lines = scene.lines(&held.id).await;
        assert!(lines.is_sorted_by(|one, other| one.id < other.id));
        let log = scene.log(&held.id).await;
        assert!(log.last().expect("has lines").ends_with(last), "{log:?}");
        assert_eq!(log.iter().filter(|line| line.ends_with(last)).count(), 1);
        if max_attempts > 1 {
            let held = scene.claim("w").await;
            scene.finish(&held, 0).await.expect("finishes");
        }
    }
}

/// An end that differs from every other one, so that it cannot pass for a repetition.
fn finish_with_pride(attempt: u32) -> Event {
    match finish(attempt) {
        Event::Finish {
            attempt,
            progress,
            mut outcome,
        } => {
            outcome.duration_ms = 123_456;
            Event::Finish {
                attempt,
                progress,
                outcome,
            }
        }
        other => other,
    }
}
