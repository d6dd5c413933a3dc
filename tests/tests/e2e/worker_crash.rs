//! A worker dies, or only seems to: its jobs end truthfully, and nothing is written twice.

use std::time::{Duration, Instant};

use harness::event::Log;
use harness::process::is_alive;
use harness::wait::eventually;
use serde_json::{Value, json};

const LEASE: &str = "1";
const SOON: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_job_whose_worker_dies_is_lost_soon_after_its_lease_ends() {
    let site = crate::on_redis().with(&[("CC_LEASE", LEASE)]);
    let api = site.api().await;
    let mut worker = site.worker("dies").await;
    let job = json!({"argv": [crate::CHILD, "lines", "100000", "10"], "execution_id": "x"});
    let mut stream = api.execute(&job).await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    let _survivor = site.worker("survives").await;
    worker.kill9();
    let killed_at = Instant::now();
    seen.extend(stream.rest().await);
    assert!(killed_at.elapsed() < SOON, "{:?}", killed_at.elapsed());
    let log = Log::new(seen);
    assert_eq!(
        (log.status(), log.error_code()),
        ("lost", Some("worker_lost"))
    );
    let snapshot = api.snapshot("x").await;
    assert_eq!(
        (&snapshot["worker"], &snapshot["attempt"]),
        (&json!("dies"), &json!(1))
    );
    assert_eq!(api.log("x").await, log);
}

#[tokio::test]
async fn a_job_that_may_be_tried_again_runs_on_another_worker() {
    let site = crate::on_redis().with(&[("CC_LEASE", LEASE)]);
    let api = site.api().await;
    let mut worker = site.worker("dies").await;
    let mut stream = api.execute(&twice(&site.path("first"))).await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    let _survivor = site.worker("survives").await;
    worker.kill9();
    seen.extend(stream.rest().await);
    assert_second_attempt(&Log::new(seen));
}

#[tokio::test]
async fn a_worker_that_was_only_slow_cannot_write_and_ends_its_process() {
    let site = crate::on_redis().with(&[("CC_LEASE", LEASE)]);
    let api = site.api().await;
    let mut stale = site.worker("stale").await;
    let job = twice(&site.path("first"));
    let mut stream = api.execute(&job).await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    let started = seen.iter().find(|event| event.kind() == "started");
    let pid = started.and_then(|event| event["pid"].as_i64());
    let pid = i32::try_from(pid.expect("the process has an id")).expect("ids are small");

    let _other = site.worker("other").await;
    stale.suspend();
    seen.extend(stream.rest().await);
    let log = Log::new(seen);
    assert_second_attempt(&log);
    assert!(
        is_alive(pid),
        "the first attempt's process has outlived its lease so far"
    );

    stale.resume();
    stale.logs("lease is lost").await;
    eventually(SOON, "the stale process ends", async || {
        (!is_alive(pid)).then_some(())
    })
    .await;
    assert_eq!(api.log("x").await, log, "nothing was added");
    assert_eq!(api.snapshot("x").await["worker"], "other");
    // It is as good as any other worker from now on.
    assert_eq!(
        api.run(&json!({"command": "echo on"})).await.stdout(),
        "on\n"
    );
}

/// A job whose first attempt prints for ever, and whose second one ends at once.
fn twice(marker: &std::path::Path) -> Value {
    let child = crate::CHILD;
    let marker = marker.display();
    let command =
        format!("mkdir {marker} 2>/dev/null && exec {child} lines 100000 10; echo second");
    json!({"command": command, "execution_id": "x", "max_attempts": 2})
}

fn assert_second_attempt(log: &Log) {
    let kinds = [
        "queued", "started", "output", "retry", "started", "output", "complete",
    ];
    assert_eq!(log.kinds(), kinds);
    let second = log
        .events()
        .iter()
        .position(|event| event.kind() == "retry")
        .expect("it is there")
        + 1;
    let (first, second) = log.events().split_at(second);
    assert!(first[1..].iter().all(|event| event.id().starts_with("1-")));
    assert_eq!(second[0].id(), "2-1");
    assert!(second.iter().all(|event| event.id().starts_with("2-")));
    assert_eq!(second[0]["attempt"], 2);
    assert_eq!(second[1].text("data"), "second\n");
    assert_eq!(log.status(), "succeeded");
}
