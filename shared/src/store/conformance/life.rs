//! Changes of state, the lines that tell of them, and what happens when many make them at once.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Bench;
use super::scene::{Scene, event_id, finish, lease, output, soon};
use crate::life::{ChangeError, cancel, change_as_holder, pause, resume};
use crate::state::{Cause, Event, Refusal, State, Status};
use crate::store::{Action, Commit, CommitError, Control, Renewal};

pub async fn the_lines_of_each_change_follow_the_rule_of_ids(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let new = scene.submit("new", |_| {}).await;
    scene
        .change(&new.id, &Event::RequestCancel)
        .await
        .expect("is cancelled");
    assert_eq!(
        scene.log(&new.id).await,
        ["0-1 queued", "0-2 error", "0-3 complete"]
    );

    let silent = scene.start("silent", "w", 1).await;
    scene.reclaim(&silent).await;
    assert_eq!(
        scene.log(&silent.id).await,
        ["0-1 queued", "1-1 error", "1-2 complete"]
    );

    let talks = scene.start("talks", "w", 1).await;
    scene
        .store
        .append(&lease(&talks), &output(1, 1..=2))
        .await
        .expect("appends");
    scene.reclaim(&talks).await;
    let expected = [
        "0-1 queued",
        "1-1 output",
        "1-2 output",
        "1-3 error",
        "1-4 complete",
    ];
    assert_eq!(scene.log(&talks.id).await, expected);

    let again = scene.start("again", "w", 3).await;
    scene
        .store
        .append(&lease(&again), &output(1, 1..=1))
        .await
        .expect("appends");
    scene.reclaim(&again).await;
    let again = scene.claim("w").await;
    scene.reclaim(&again).await;
    // Its second part was closed when it went back, so the next line opens the third.
    scene
        .change(&again.id, &Event::RequestCancel)
        .await
        .expect("is cancelled");
    let expected = [
        "0-1 queued",
        "1-1 output",
        "1-2 retry",
        "2-1 retry",
        "3-1 error",
        "3-2 complete",
    ];
    assert_eq!(scene.log(&again.id).await, expected);
    assert_eq!(scene.load(&again.id).await.state.attempt(), 2);
    assert_eq!(
        scene.store.last_event(&again.id).await.expect("looks"),
        event_id(3, 2)
    );
}

pub async fn an_end_is_written_together_with_what_is_pending(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 1).await;
    scene
        .store
        .append(&lease(&held), &output(1, 1..=2))
        .await
        .expect("appends");
    let pending = output(1, 3..=4);
    let ended = change_as_holder(
        scene.store.as_ref(),
        &held,
        &finish(1),
        &pending,
        event_id(1, 5),
    )
    .await;
    assert_eq!(ended.expect("finishes").state.status(), Status::Succeeded);
    let expected = [
        "0-1 queued",
        "1-1 output",
        "1-2 output",
        "1-3 output",
        "1-4 output",
        "1-5 complete",
    ];
    assert_eq!(scene.log(&held.id).await, expected);
    assert_eq!(scene.lines(&held.id).await[3..5], pending);
}

pub async fn a_finish_that_is_repeated_changes_nothing(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 1).await;
    let (pending, event) = (output(1, 1..=1), finish(1));
    let mut ended = Vec::new();
    // The worker does not know that its first try was a success.
    for _ in 0..2 {
        let tried = change_as_holder(
            scene.store.as_ref(),
            &held,
            &event,
            &pending,
            event_id(1, 2),
        );
        ended.push(tried.await.expect("finishes"));
    }
    assert_eq!(ended[0], ended[1]);
    assert_eq!(
        scene.log(&held.id).await,
        ["0-1 queued", "1-1 output", "1-2 complete"]
    );
}

pub async fn a_hand_back_that_is_repeated_changes_nothing(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 2).await;
    let event = Event::HandBack {
        attempt: 1,
        cause: Cause::Shutdown,
    };
    for _ in 0..2 {
        let tried = change_as_holder(scene.store.as_ref(), &held, &event, &[], event_id(1, 1));
        assert_eq!(
            tried.await.expect("is handed back").state.status(),
            Status::Queued
        );
    }
    assert_eq!(scene.log(&held.id).await, ["0-1 queued", "1-1 retry"]);
}

pub async fn an_end_is_not_written_over_a_line_that_is_there(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let held = scene.start("x", "w", 2).await;
    scene
        .store
        .append(&lease(&held), &output(1, 1..=3))
        .await
        .expect("appends");
    let lines = output(1, 3..=4);
    let commit = Commit {
        before: &held,
        after: State::new(),
        lines: &lines,
        only_if_lapsed: false,
    };
    let refused = scene.store.commit(commit).await;
    assert!(matches!(refused, Err(CommitError::Conflict)), "{refused:?}");
    assert_eq!(scene.load(&held.id).await, held, "all or nothing");
    assert_eq!(scene.lines(&held.id).await.len(), 4);
    assert!(scene.try_claim("w", &[]).await.is_none());
}

pub async fn a_queued_execution_that_is_cancelled_ends_here_and_now(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let delayed = scene
        .submit("delayed", |spec| spec.delay_ms = 3_600_000)
        .await;
    let ready = scene.submit("ready", |_| {}).await;
    for record in [delayed, ready] {
        let ended = cancel(scene.store.as_ref(), &record.id)
            .await
            .expect("is cancelled");
        assert_eq!(ended.state.status(), Status::Cancelled);
        let log = scene.log(&record.id).await;
        assert_eq!(log, ["0-1 queued", "0-2 error", "0-3 complete"]);
        let again = cancel(scene.store.as_ref(), &record.id)
            .await
            .expect("is no error");
        assert_eq!(again, ended);
        assert_eq!(scene.log(&record.id).await, log);
    }
    assert!(scene.try_claim("w", &[]).await.is_none());
    assert_eq!(scene.store.queues().await.expect("tells of queues"), []);
    let unknown = cancel(scene.store.as_ref(), &"unknown".parse().expect("is an id")).await;
    assert!(matches!(unknown, Err(ChangeError::Unknown)), "{unknown:?}");
}

pub async fn the_worker_of_a_running_execution_hears_of_a_cancel(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let mut controls = scene.store.controls("w").await;
    let held = scene.start("x", "w", 1).await;
    let renewed = scene.store.renew(&[lease(&held)], super::scene::LONG).await;
    assert_eq!(renewed.expect("answers"), [Renewal::Renewed]);
    let running = cancel(scene.store.as_ref(), &held.id)
        .await
        .expect("is asked to end");
    assert!(running.running().expect("runs on").cancel_requested);
    let expected = Control {
        id: held.id.clone(),
        attempt: 1,
        action: Action::Cancel,
    };
    assert_eq!(soon("the message", controls.recv()).await, Some(expected));
    let renewed = scene.store.renew(&[lease(&held)], super::scene::LONG).await;
    assert_eq!(renewed.expect("answers"), [Renewal::CancelRequested]);
    assert_eq!(
        scene.log(&held.id).await,
        ["0-1 queued"],
        "the worker will tell of its end"
    );
    scene
        .finish(&held, 0)
        .await
        .expect("finishes, although it had read the record before");
    let late = cancel(scene.store.as_ref(), &held.id).await;
    assert!(
        matches!(late, Err(ChangeError::Refused(Refusal::AlreadyEnded))),
        "{late:?}"
    );
}

pub async fn the_worker_of_a_running_execution_hears_of_a_pause_and_its_end(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let store = scene.store.as_ref();
    let mut controls = scene.store.controls("w").await;
    let held = scene.start("x", "w", 1).await;
    let mut last = held.clone();
    for (action, is_paused, renewal) in [
        (Action::Pause, true, Renewal::PauseRequested),
        (Action::Resume, false, Renewal::Renewed),
        (Action::Pause, true, Renewal::PauseRequested),
        (Action::Cancel, true, Renewal::CancelRequested),
    ] {
        // Asked twice, it is told twice, since a message may get lost, and changed once.
        for round in 0..2 {
            let told = match action {
                Action::Cancel => cancel(store, &held.id).await,
                Action::Pause => pause(store, &held.id).await,
                Action::Resume => resume(store, &held.id).await,
            };
            let told = told.expect("is told");
            assert_eq!(told.running().expect("runs on").paused, is_paused);
            assert_eq!(told.revision, last.revision + u64::from(round == 0));
            last = told;
            let expected = Control {
                id: held.id.clone(),
                attempt: 1,
                action,
            };
            assert_eq!(soon("the message", controls.recv()).await, Some(expected));
        }
        let renewed = store.renew(&[lease(&held)], super::scene::LONG).await;
        assert_eq!(renewed.expect("answers"), [renewal]);
    }
    let late = pause(store, &held.id).await;
    assert!(
        matches!(late, Err(ChangeError::Refused(Refusal::CancelRequested))),
        "{late:?}"
    );
    assert_eq!(
        scene.log(&held.id).await,
        ["0-1 queued"],
        "the worker will tell of it"
    );
    let finished = scene.finish(&held, 0).await;
    finished.expect("finishes, although it had read the record before");
}

pub async fn what_does_not_run_cannot_be_paused(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let store = scene.store.as_ref();
    let held = scene.start("ended", "w", 1).await;
    let ended = scene.finish(&held, 0).await.expect("finishes");
    let queued = scene.submit("queued", |_| {}).await;
    for (record, why) in [
        (&queued, Refusal::NotRunning),
        (&ended, Refusal::AlreadyEnded),
    ] {
        for refused in [
            pause(store, &record.id).await,
            resume(store, &record.id).await,
        ] {
            assert!(
                matches!(refused, Err(ChangeError::Refused(refusal)) if refusal == why),
                "{refused:?}"
            );
        }
        assert_eq!(scene.load(&record.id).await, *record);
    }
    let unknown = pause(store, &"unknown".parse().expect("is an id")).await;
    assert!(matches!(unknown, Err(ChangeError::Unknown)), "{unknown:?}");
}

pub async fn a_pause_does_not_outlive_its_attempt(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let store = scene.store.as_ref();
    let held = scene.start("x", "w", 2).await;
    pause(store, &held.id).await.expect("is told");
    scene.reclaim(&held).await;
    let again = scene.claim("w").await;
    assert!(!again.running().expect("runs").paused);
    let renewed = store.renew(&[lease(&again)], super::scene::LONG).await;
    assert_eq!(renewed.expect("answers"), [Renewal::Renewed]);
}

pub async fn a_cancel_that_races_with_the_end_leaves_one_complete_line(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    for number in 0..10 {
        let held = scene.start(&format!("x{number}"), "w", 1).await;
        let (cancelled, finished) = tokio::join!(
            cancel(scene.store.as_ref(), &held.id),
            scene.finish(&held, 0)
        );
        assert_eq!(
            finished.expect("finishes").state.status(),
            Status::Succeeded
        );
        assert!(matches!(
            cancelled,
            Ok(_) | Err(ChangeError::Refused(Refusal::AlreadyEnded))
        ));
        assert_eq!(scene.log(&held.id).await, ["0-1 queued", "1-1 complete"]);
    }
}

pub async fn many_reclaims_at_once_make_one_change(bench: &dyn Bench) {
    let scene = Arc::new(Scene::new(bench).await);
    let held = scene.start("x", "w", 1).await;
    scene.let_lapse(&held).await;
    let mut reclaims = JoinSet::new();
    for _ in 0..8 {
        let (scene, id) = (Arc::clone(&scene), held.id.clone());
        reclaims.spawn(async move { scene.change(&id, &Event::LapseLease { attempt: 1 }).await });
    }
    let results = reclaims.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for refused in results.into_iter().filter_map(Result::err) {
        assert!(
            matches!(refused, ChangeError::Refused(Refusal::AlreadyEnded)),
            "{refused:?}"
        );
    }
    assert_eq!(
        scene.log(&held.id).await,
        ["0-1 queued", "1-1 error", "1-2 complete"]
    );
}
