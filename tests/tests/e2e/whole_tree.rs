//! The end of an execution is the end of everything it has started.

use std::time::Duration;

use harness::process::is_alive;
use harness::site::Site;
use harness::wait::eventually;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

crate::on_both_engines!(everything_in_the_process_group_ends_with_a_timeout);

/// A job that prints the ids of the processes it has started, in one line, and stays.
fn family(start_child: &str) -> Value {
    let child = crate::CHILD;
    let command = format!("{start_child} {child} ignore-term > /dev/null & echo $$ $!; wait");
    json!({"command": command, "execution_id": "x"})
}

fn pids(printed: &str) -> Vec<i32> {
    let pids = printed.split_whitespace();
    pids.map(|pid| pid.parse().expect("process ids are printed"))
        .collect()
}

async fn end(pids: &[i32]) {
    eventually(SOON, "they all end", async || {
        (!pids.iter().any(|&pid| is_alive(pid))).then_some(())
    })
    .await;
}

async fn everything_in_the_process_group_ends_with_a_timeout(site: Site) {
    let server = site.with(&[("CC_GRACE", "0.2")]).run().await;
    let mut job = family("");
    job["timeout"] = json!(0.3);
    let log = server.run(&job).await;
    assert_eq!(log.status(), "timed_out");
    end(&pids(&log.stdout())).await;
}

#[tokio::test]
async fn what_has_left_the_process_group_ends_too() {
    let server = crate::on_redis().with(&[("CC_GRACE", "0.2")]).run().await;
    let mut job = family("setsid");
    job["timeout"] = json!(0.3);
    let log = server.run(&job).await;
    end(&pids(&log.stdout())).await;
}

#[tokio::test]
async fn the_processes_of_a_worker_that_dies_end_with_it() {
    let mut server = crate::on_redis().run().await;
    let mut stream = server.execute(&family("")).await;
    let output = stream.until_kind("output").await;
    let worker = server.worker.as_mut().expect("there is one on redis");
    worker.kill9();
    end(&pids(output.text("data"))).await;
}
