//! Who gets what out of a queue, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Bench;
use super::scene::{LONG, Scene, soon};
use crate::id::ExecutionId;
use crate::record::Record;
use crate::spec::DEFAULT_QUEUE;
use crate::state::{Cause, Event};
use crate::store::{Claim, QueueInfo};

async fn claim_all(scene: &Scene) -> Vec<Record> {
    let mut claimed = Vec::new();
    while let Some(record) = scene.try_claim("w", &[]).await {
        claimed.push(record);
    }
    claimed
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.id.as_str()).collect()
}

pub async fn the_most_urgent_is_claimed_first_and_equals_in_the_order_of_submission(
    bench: &dyn Bench,
) {
    let scene = Scene::new(bench).await;
    let ids = bench.ids_in_one_order(6);
    for (id, priority) in ids.iter().zip([5, 0, 9, 5, 0, 9]) {
        scene
            .submit(id.as_str(), |spec| spec.priority = priority)
            .await;
    }
    let expected = [2, 5, 0, 3, 1, 4].map(|place: usize| ids[place].as_str());
    assert_eq!(names(&claim_all(&scene).await), expected);
}

pub async fn an_execution_that_is_handed_back_keeps_its_place(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let ids = bench.ids_in_one_order(3);
    for id in &ids {
        scene
            .submit(id.as_str(), |spec| spec.max_attempts = 2)
            .await;
    }
    let first = scene.claim("w").await;
    let hand_back = Event::HandBack {
        attempt: 1,
        cause: Cause::Shutdown,
    };
    scene
        .change(&first.id, &hand_back)
        .await
        .expect("is handed back");
    let claimed = claim_all(&scene).await;
    assert_eq!(
        names(&claimed),
        ids.iter().map(ExecutionId::as_str).collect::<Vec<_>>()
    );
    assert_eq!(claimed[0].state.attempt(), 2);
}

pub async fn a_delayed_execution_is_not_claimed_before_it_is_due(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let an_hour = 3_600_000;
    for (id, queue, delay_ms) in [
        ("a", "x", 3 * an_hour),
        ("b", "x", 2 * an_hour),
        ("c", "y", an_hour),
    ] {
        scene
            .submit(id, |spec| {
                spec.queue = queue.into();
                spec.delay_ms = delay_ms;
            })
            .await;
    }
    for (queues, hours) in [(&[][..], 1), (&["x"], 2), (&["x", "y"], 1)] {
        let Claim::Nothing {
            next_due: Some(next_due),
        } = scene.ask("w", queues).await
        else {
            panic!("{queues:?}: nothing is due, and something is delayed");
        };
        let due = LONG * hours;
        assert!(
            next_due <= due && next_due > due / 100 * 99,
            "{queues:?}: {next_due:?}"
        );
    }
    let answer = scene.ask("w", &["z"]).await;
    assert!(
        matches!(answer, Claim::Nothing { next_due: None }),
        "{answer:?}"
    );
    let cancelled = scene
        .change(&"a".parse().expect("is an id"), &Event::RequestCancel)
        .await;
    cancelled.expect("a delayed one can be cancelled");
    let infos = scene.store.queues().await.expect("tells of queues");
    let delayed: Vec<_> = infos
        .iter()
        .map(|queue| (queue.name.as_str(), queue.delayed))
        .collect();
    assert_eq!(delayed, [("x", 1), ("y", 1)]);
}

pub async fn a_delayed_execution_is_claimed_once_it_is_due(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let ids = bench.ids_in_one_order(2);
    let delayed = scene
        .submit(ids[0].as_str(), |spec| spec.delay_ms = 60)
        .await;
    let claim = async {
        loop {
            match scene.ask("w", &[]).await {
                Claim::Claimed(record) => break record,
                Claim::Nothing { next_due } => {
                    let claimant = scene.claimant("w", &[]);
                    let next_due = next_due.expect("is told when to ask again");
                    scene.store.wait_for_work(&claimant, next_due).await;
                }
            }
        }
    };
    let claimed = soon("becoming due", claim).await;
    assert_eq!(claimed.id, delayed.id);
    let started_at = claimed.running().expect("runs").started_at;
    assert!(started_at.ms_since(delayed.created_at) >= 60);
}

pub async fn a_claimant_gets_only_what_is_in_its_queues(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    for (id, queue) in [("a", "red"), ("b", "green"), ("c", "red"), ("d", "blue")] {
        scene.submit(id, |spec| spec.queue = queue.into()).await;
    }
    assert!(scene.try_claim("w", &["white"]).await.is_none());
    assert_eq!(
        scene
            .try_claim("w", &["green", "white"])
            .await
            .expect("is green")
            .id
            .as_str(),
        "b"
    );
    assert!(scene.try_claim("w", &["green", "white"]).await.is_none());
    let mut red = Vec::new();
    while let Some(record) = scene.try_claim("w", &["red"]).await {
        red.push(record);
    }
    red.sort_by_key(|record| record.rank);
    assert_eq!(names(&red), ["a", "c"]);
    assert_eq!(names(&claim_all(&scene).await), ["d"]);
}

pub async fn a_claimant_of_many_queues_gets_the_most_urgent_of_them(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    let ids = bench.ids_in_one_order(4);
    for (id, (queue, priority)) in ids.iter().zip([("a", 3), ("b", 4), ("c", 9), ("b", 2)]) {
        scene
            .submit(id.as_str(), |spec| {
                spec.queue = queue.into();
                spec.priority = priority;
            })
            .await;
    }
    let mut claimed = Vec::new();
    while let Some(record) = scene.try_claim("w", &["a", "b"]).await {
        claimed.push(record);
    }
    assert_eq!(
        names(&claimed),
        [1, 0, 3].map(|place: usize| ids[place].as_str())
    );
}

pub async fn many_claimants_get_each_execution_once_and_in_order(bench: &dyn Bench) {
    const EXECUTIONS: usize = 60;
    let scene = Arc::new(Scene::new(bench).await);
    let ids = bench.ids_in_one_order(EXECUTIONS);
    for id in &ids {
        scene.submit(id.as_str(), |_| {}).await;
    }
    let mut claimants = JoinSet::new();
    for number in 0..6 {
        let scene = Arc::clone(&scene);
        claimants.spawn(async move {
            let worker = format!("w{number}");
            let mut claimed = Vec::new();
            while let Some(record) = scene.try_claim(&worker, &[]).await {
                assert_eq!(record.running().expect("runs").worker, worker);
                claimed.push(record);
            }
            claimed
        });
    }
    let mut all = Vec::new();
    for claimed in claimants.join_all().await {
        assert!(
            claimed.is_sorted_by_key(|record| record.rank),
            "older ones first"
        );
        all.extend(claimed);
    }
    all.sort_by_key(|record| record.rank);
    assert_eq!(
        names(&all),
        ids.iter().map(ExecutionId::as_str).collect::<Vec<_>>()
    );
    for record in &all {
        assert_eq!(
            *record,
            scene.load(&record.id).await,
            "its claimant and nobody else has it"
        );
    }
}

pub async fn a_submission_between_the_claim_and_the_wait_ends_the_wait(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    for queues in [&[][..], &[DEFAULT_QUEUE], &["other", DEFAULT_QUEUE]] {
        let id = format!("for-{}", queues.len());
        assert!(scene.try_claim("w", queues).await.is_none());
        scene.submit(&id, |_| {}).await;
        let claimant = scene.claimant("w", queues);
        soon("the wait", scene.store.wait_for_work(&claimant, LONG)).await;
        assert_eq!(scene.claim("w").await.id.as_str(), id);
    }
}

pub async fn whoever_waits_for_work_is_woken(bench: &dyn Bench) {
    let scene = Arc::new(Scene::new(bench).await);
    wake_with(&scene, &[], |scene| async move {
        scene
            .submit("submitted", |spec| spec.max_attempts = 2)
            .await;
    })
    .await;
    let held = scene.claim("w").await;
    wake_with(&scene, &[], |scene| async move {
        let hand_back = Event::HandBack {
            attempt: 1,
            cause: Cause::Shutdown,
        };
        scene
            .change(&held.id, &hand_back)
            .await
            .expect("is handed back");
    })
    .await;
    scene.claim("w").await;
    wake_with(&scene, &[], |scene| async move {
        scene
            .submit("delayed", |spec| spec.delay_ms = 3_600_000)
            .await;
    })
    .await;
}

pub async fn whoever_waits_for_a_named_queue_is_woken(bench: &dyn Bench) {
    let scene = Arc::new(Scene::new(bench).await);
    for queue in ["red", "green"] {
        wake_with(&scene, &["red", "green"], |scene| async move {
            scene.submit(queue, |spec| spec.queue = queue.into()).await;
        })
        .await;
        scene.claim("w").await;
    }
}

/// Somebody finds nothing and waits, `act` happens, and the wait is over.
async fn wake_with<F: Future<Output = ()>>(
    scene: &Arc<Scene>,
    queues: &[&str],
    act: impl FnOnce(Arc<Scene>) -> F,
) {
    assert!(scene.try_claim("w", queues).await.is_none());
    let claimant = scene.claimant("w", queues);
    let wait = scene.store.wait_for_work(&claimant, LONG);
    soon("the wait", async {
        tokio::join!(wait, act(Arc::clone(scene)))
    })
    .await;
}

pub async fn a_wait_without_work_comes_to_an_end(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    for at_most in [
        Duration::ZERO,
        Duration::from_micros(10),
        Duration::from_millis(20),
    ] {
        let claimant = scene.claimant("w", &[]);
        soon("the wait", scene.store.wait_for_work(&claimant, at_most)).await;
    }
}

pub async fn queues_tell_how_much_waits_in_them_and_how_long(bench: &dyn Bench) {
    let scene = Scene::new(bench).await;
    assert_eq!(scene.store.queues().await.expect("tells of queues"), []);
    let oldest = scene.submit("a", |spec| spec.priority = 2).await;
    scene.submit("b", |spec| spec.priority = 7).await;
    scene.submit("c", |spec| spec.delay_ms = 3_600_000).await;
    scene
        .submit("d", |spec| {
            spec.queue = "another".into();
            spec.delay_ms = 3_600_000;
        })
        .await;
    let old_enough = async {
        loop {
            let infos = scene.store.queues().await.expect("tells of queues");
            if infos[1].oldest_age_ms >= Some(20) {
                break infos;
            }
        }
    };
    let infos = soon("growing old", old_enough).await;
    let age = infos[1].oldest_age_ms;
    let at_most = crate::time::Timestamp::now().ms_since(oldest.created_at) + 1;
    assert!(
        age <= Some(at_most),
        "{age:?} is not older than {at_most} ms"
    );
    let expected = |name: &str, ready, delayed, oldest_age_ms| QueueInfo {
        name: name.to_owned(),
        ready,
        delayed,
        oldest_age_ms,
    };
    assert_eq!(
        infos,
        [
            expected("another", 0, 1, None),
            expected(DEFAULT_QUEUE, 2, 1, age)
        ]
    );
    claim_all(&scene).await;
    let infos = scene.store.queues().await.expect("tells of queues");
    assert_eq!(
        infos,
        [
            expected("another", 0, 1, None),
            expected(DEFAULT_QUEUE, 0, 1, None)
        ]
    );
}
