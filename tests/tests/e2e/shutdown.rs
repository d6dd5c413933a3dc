//! Being asked to stop: a worker finishes what it can and hands back the rest; a server ends its
//! streams so that their readers go on elsewhere.

use harness::process::is_alive;
use harness::wait::eventually;
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_finishes_what_it_runs_and_takes_no_more() {
    let site = crate::on_redis();
    let gate = site.path("gate");
    let api = site.api().await;
    let mut worker = site.worker("leaving").await;
    let running = api.submit(&crate::waiting_at(&gate)).await;
    api.until(&running, "running").await;
    worker.terminate();
    worker.logs("waiting for running executions to end").await;
    eventually(
        Duration::from_secs(10),
        "the list of workers tells",
        async || {
            let workers = api.get("/workers").await.json();
            (workers["workers"][0]["draining"] == true).then_some(())
        },
    )
    .await;
    let later = api.submit(&json!({"command": "true"})).await;
    crate::open(&gate);
    api.until(&running, "succeeded").await;
    assert_eq!(worker.exit().await.code(), Some(0));
    assert_eq!(api.snapshot(&later).await["status"], "queued");
    assert_eq!(api.get("/workers").await.json()["workers"], json!([]));
    let _next = site.worker("next").await;
    assert_eq!(api.until(&later, "succeeded").await["worker"], "next");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_lost_or_tried_again() {
    let site = crate::on_redis().with(&[("CC_DRAIN_TIMEOUT", "0.3"), ("CC_SLOTS", "4")]);
    let api = site.api().await;
    let mut worker = site.worker("leaving").await;
    for (id, max_attempts) in [("once", 1), ("twice", 2)] {
        let marker = site.path(id);
        let command = format!(
            "mkdir {} 2>/dev/null && exec sleep 60; echo again",
            marker.display()
        );
        api.submit(&json!({"command": command, "execution_id": id, "max_attempts": max_attempts}))
            .await;
        let mut stream = api.follow(id, "0-0").await;
        stream.until_kind("started").await;
    }
    worker.terminate();
    assert_eq!(worker.exit().await.code(), Some(0));
    let log = api.log("once").await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("lost", Some("worker_shutdown"))
    );
    assert_eq!(api.snapshot("twice").await["status"], "queued");
    let _next = site.worker("next").await;
    let log = api.log("twice").await;
    assert_eq!(
        log.kinds(),
        [
            "queued", "started", "retry", "started", "output", "complete"
        ]
    );
    assert_eq!(
        (log.status(), log.stdout()),
        ("succeeded", "again\n".to_owned())
    );
    assert_eq!(log.of_kind("retry")[0].text("code"), "worker_shutdown");
}

#[tokio::test]
async fn a_worker_that_is_asked_twice_stops_at_once() {
    let site = crate::on_redis();
    let api = site.api().await;
    let mut worker = site.worker("leaving").await;
    let job = json!({"argv": [crate::CHILD, "ignore-term"], "execution_id": "x"});
    let mut stream = api.execute(&job).await;
    let seen = stream.until(|event| event.kind() == "output").await;
    let pid = seen.iter().find_map(|event| event["pid"].as_i64());
    let pid = i32::try_from(pid.expect("the process has an id")).expect("ids are small");
    worker.terminate();
    worker.logs("waiting for running executions to end").await;
    let asked_at = Instant::now();
    worker.terminate();
    assert_eq!(worker.exit().await.code(), Some(0));
    assert!(
        asked_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked_at.elapsed()
    );
    assert!(!is_alive(pid));
    let log = api.log("x").await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("lost", Some("worker_shutdown"))
    );
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_lets_its_readers_go_at_once() {
    let site = crate::on_redis();
    let gate = site.path("gate");
    let mut first = site.api().await;
    let second = site.api().await;
    let _worker = site.worker("worker").await;
    let mut job = crate::waiting_at(&gate);
    job["execution_id"] = json!("x");
    let mut stream = first.execute(&job).await;
    let seen = stream.until(|event| event.kind() == "started").await;
    let asked_at = Instant::now();
    first.process().terminate();
    assert_eq!(
        stream.rest().await,
        [],
        "the stream ends, without a complete"
    );
    assert_eq!(first.process().exit().await.code(), Some(0));
    assert!(
        asked_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked_at.elapsed()
    );
    crate::open(&gate);
    let after = seen.last().expect("there are some").id();
    let rest = second.follow("x", after).await.to_end().await;
    assert_eq!(rest.kinds(), ["complete"]);
}
