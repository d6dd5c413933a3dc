//! What is removed, and when.

use std::time::Duration;

use super::Bench;
use super::scene::{Scene, lease, output, soon};
use crate::state::{Event, State};
use crate::store::Filter;

pub async fn executions_are_removed_after_their_retention(bench: &dyn Bench) {
    let scene = Scene::with_retention(bench, Duration::from_millis(1)).await;
    for number in 0..25 {
        let held = scene.start(&format!("x{number}"), "w", 1).await;
        scene
            .store
            .append(&lease(&held), &output(1, 1..=3))
            .await
            .expect("appends");
        scene.finish(&held, 3).await.expect("finishes");
    }
    let cancelled = scene.submit("cancelled", |_| {}).await;
    scene
        .change(&cancelled.id, &Event::RequestCancel)
        .await
        .expect("is cancelled");
    let removal = async {
        let mut removed = 0;
        while removed < 26 {
            removed += scene.store.sweep().await.expect("sweeps");
        }
        removed
    };
    assert_eq!(soon("removal", removal).await, 26);
    assert_eq!(scene.store.sweep().await.expect("sweeps"), 0);
    let listed = scene
        .store
        .list(&Filter::default(), None, 100)
        .await
        .expect("lists");
    assert_eq!(listed.records, []);
    for id in ["x0", "x24", "cancelled"].map(|id| id.parse().expect("is an id")) {
        assert_eq!(scene.store.load(&id).await.expect("loads"), None);
        assert_eq!(scene.log(&id).await, [""; 0]);
    }
}

pub async fn executions_that_have_not_ended_are_kept(bench: &dyn Bench) {
    let scene = Scene::with_retention(bench, Duration::ZERO).await;
    let running = scene.start("running", "w", 1).await;
    let again = scene.start("again", "w", 2).await;
    let again = scene.reclaim(&again).await;
    let delayed = scene
        .submit("delayed", |spec| spec.delay_ms = 3_600_000)
        .await;
    assert_eq!(scene.store.sweep().await.expect("sweeps"), 0);
    for record in [running, again, delayed] {
        assert_eq!(scene.load(&record.id).await, record);
        assert!(!scene.log(&record.id).await.is_empty());
    }
}

pub async fn executions_are_kept_until_their_retention_is_over(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let ended = scene.start("ended", "w", 1).await;
    scene.finish(&ended, 0).await.expect("finishes");
    assert_eq!(scene.store.sweep().await.expect("sweeps"), 0);
    assert!(matches!(scene.load(&ended.id).await.state, State::Ended(_)));
    assert_eq!(scene.log(&ended.id).await, ["0-1 queued", "1-1 complete"]);
}

pub async fn an_id_that_was_removed_may_be_used_again(bench: &dyn Bench) {
    let scene = Scene::with_retention(bench, Duration::ZERO).await;
    for _ in 0..2 {
        let held = scene.start("x", "w", 1).await;
        assert_eq!((held.revision, held.state.attempt()), (2, 1));
        scene.finish(&held, 0).await.expect("finishes");
        assert_eq!(scene.log(&held.id).await, ["0-1 queued", "1-1 complete"]);
        assert_eq!(scene.store.sweep().await.expect("sweeps"), 1);
    }
}
