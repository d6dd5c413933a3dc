//! A deploy: every worker is replaced while jobs run and come in.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use harness::process::Process;
use serde_json::json;

const JOBS: usize = 300;
const CLIENTS: usize = 12;

/// Jobs that cannot end within the drain timeout, of which one attempt is spent on the worker that goes.
const LONG_JOBS: usize = 3;

#[tokio::test]
async fn three_workers_are_replaced_one_after_the_other_and_no_job_is_lost() {
    let site = crate::on_redis().with(&[("CC_SLOTS", "3"), ("CC_DRAIN_TIMEOUT", "1")]);
    let api = site.api().await;
    let mut workers: Vec<Process> = Vec::new();
    for name in ["old-1", "old-2", "old-3"] {
        workers.push(site.worker(name).await);
    }
    let ran = site.path("ran").display().to_string();
    for number in 0..LONG_JOBS {
        // Hangs at its first attempt only.
        let command = format!("mkdir {ran}-long-{number} 2>/dev/null && exec sleep 60; echo done");
        let job = json!({"command": command, "max_attempts": 5, "execution_id": format!("long-{number}")});
        let mut stream = api.execute(&job).await;
        stream.until_kind("started").await;
    }
    let run = |number: usize| {
        let (api, ran) = (&api, &ran);
        async move {
            let job =
                json!({"command": format!("sleep 0.05; echo {number} >> {ran}; echo {number}")});
            let log = api.run(&job).await;
            assert_eq!(
                (log.status(), log.stdout()),
                ("succeeded", format!("{number}\n"))
            );
            log.of_kind("started")[0].text("worker").to_owned()
        }
    };
    let load = stream::iter((0..JOBS).map(run))
        .buffer_unordered(CLIENTS)
        .collect::<Vec<String>>();
    let deploy = async {
        let mut replaced = Vec::new();
        for (number, mut old) in workers.into_iter().enumerate() {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            replaced.push(site.worker(&format!("new-{}", number + 1)).await);
            old.terminate();
            assert_eq!(old.exit().await.code(), Some(0));
        }
        replaced
    };
    let (ran_by, _new_workers) = tokio::join!(load, deploy);

    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for number in std::fs::read_to_string(&ran)
        .expect("jobs have run")
        .lines()
    {
        *runs.entry(number.to_owned()).or_default() += 1;
    }
    assert_eq!(runs.len(), JOBS);
    assert!(
        runs.values().all(|&times| times == 1),
        "each ran once: {runs:?}"
    );
    for generation in ["old-", "new-"] {
        assert!(ran_by.iter().any(|worker| worker.starts_with(generation)));
    }
    for number in 0..LONG_JOBS {
        let id = format!("long-{number}");
        let ended = api.until(&id, "succeeded").await;
        assert_eq!(ended["attempt"], 2, "it was handed back, and tried again");
        assert_eq!(api.log(&id).await.of_kind("retry").len(), 1);
    }
}
