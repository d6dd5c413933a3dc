//! Several servers and workers share one queue, and every job runs once.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use serde_json::json;

const JOBS: usize = 500;
const CLIENTS: usize = 16;

#[tokio::test]
async fn five_hundred_jobs_on_three_workers_and_two_servers_run_once_each() {
    let site = crate::on_redis().with(&[("CC_SLOTS", "4")]);
    let servers = [site.api().await, site.api().await];
    let workers = ["a", "b", "c"].map(|name| site.worker(name));
    let _workers = futures_util::future::join_all(workers).await;
    let ran = site.path("ran").display().to_string();

    let (servers, ran_at) = (&servers, &ran);
    let run = |number: usize| async move {
        let job = json!({
            "execution_id": format!("job-{number}"),
            "command": format!("echo $CC_EXECUTION_ID >> {ran_at}; echo {number}"),
        });
        let log = servers[number % 2].run(&job).await;
        assert_eq!(
            (log.status(), log.stdout()),
            ("succeeded", format!("{number}\n"))
        );
        // Whom it was submitted to does not matter.
        let snapshot = servers[(number + 1) % 2]
            .snapshot(&format!("job-{number}"))
            .await;
        assert_eq!(snapshot["status"], "succeeded");
        snapshot["worker"].as_str().map(str::to_owned)
    };
    let ran_by: Vec<Option<String>> = stream::iter((0..JOBS).map(run))
        .buffer_unordered(CLIENTS)
        .collect()
        .await;

    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for id in std::fs::read_to_string(ran).expect("jobs have run").lines() {
        *runs.entry(id.to_owned()).or_default() += 1;
    }
    assert_eq!(runs.len(), JOBS);
    assert!(runs.values().all(|&times| times == 1), "{runs:?}");
    for worker in ["a", "b", "c"] {
        assert!(
            ran_by.contains(&Some(worker.to_owned())),
            "{worker} ran nothing"
        );
    }
}
