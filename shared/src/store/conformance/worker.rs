//! The registry of workers, and messages to them.

use std::time::Duration;

use super::Bench;
use super::scene::{LONG, Scene, soon};
use crate::store::{Action, Control, WorkerInfo};
use crate::time::Timestamp;

fn info(name: &str) -> WorkerInfo {
    WorkerInfo {
        name: name.to_owned(),
        host: "host".to_owned(),
        pid: 7,
        version: "1.2.3".to_owned(),
        slots: 4,
        queues: vec!["red".to_owned()],
        executions: vec!["x".parse().expect("is an id")],
        draining: false,
        started_at: Timestamp::from_millis(1),
        seen_at: Timestamp::now(),
    }
}

pub async fn workers_are_listed_until_they_withdraw(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    assert_eq!(scene.store.workers().await.expect("lists"), []);
    let (first, mut second) = (info("a"), info("b"));
    for worker in [&second, &first] {
        scene.store.announce(worker, LONG).await.expect("announces");
    }
    second.draining = true;
    second.executions.clear();
    scene
        .store
        .announce(&second, LONG)
        .await
        .expect("announces");
    assert_eq!(
        scene.store.workers().await.expect("lists"),
        [first, second.clone()]
    );
    scene.store.withdraw("a").await.expect("withdraws");
    scene.store.withdraw("unknown").await.expect("is no error");
    assert_eq!(scene.store.workers().await.expect("lists"), [second]);
}

pub async fn workers_that_are_silent_are_forgotten(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let an_hour_ago = Timestamp::from_millis(Timestamp::now().as_millis() - 3_600_000);
    let silent = WorkerInfo {
        seen_at: an_hour_ago,
        ..info("silent")
    };
    scene
        .store
        .announce(&silent, Duration::from_mins(30))
        .await
        .expect("announces");
    assert_eq!(scene.store.workers().await.expect("lists"), []);
    scene
        .store
        .announce(&silent, LONG * 2)
        .await
        .expect("announces");
    assert_eq!(scene.store.workers().await.expect("lists"), [silent]);
}

pub async fn messages_reach_the_worker_that_is_meant(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let mut first = scene.store.controls("first").await;
    let mut second = scene.store.controls("second").await;
    let message = |id: &str| Control {
        id: id.parse().expect("is an id"),
        attempt: 3,
        action: Action::Cancel,
    };
    for (worker, id) in [
        ("nobody", "0"),
        ("second", "1"),
        ("first", "2"),
        ("first", "3"),
        ("second", "4"),
    ] {
        scene
            .store
            .control(worker, &message(id))
            .await
            .expect("sends");
    }
    for (inbox, ids) in [(&mut first, ["2", "3"]), (&mut second, ["1", "4"])] {
        for id in ids {
            assert_eq!(soon("the message", inbox.recv()).await, Some(message(id)));
        }
    }
    assert!(first.is_empty() && second.is_empty());
}
