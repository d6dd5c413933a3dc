//! A crowd of readers on one execution: all are served, in little memory, however slow some are.

use futures_util::future::join_all;
use serde_json::json;

const READERS: usize = 1_000;
const LINES: usize = 500;
const STALLED: usize = 60;
/// Enough that what all of them have not read would not fit.
const MANY_LINES: usize = 1_500_000;
const MOST_MEMORY_BYTES: u64 = 150 << 20;

#[tokio::test]
async fn a_thousand_readers_of_one_running_job_get_every_line() {
    let site = crate::on_redis();
    let gate = site.path("gate");
    let mut server = site.run().await;
    let child = crate::CHILD;
    let command = format!(
        "{child} wait-for {} && {child} lines {LINES} 2",
        gate.display()
    );
    let job = json!({"command": command, "execution_id": "x"});
    let mut first = server.execute(&job).await;
    first.until_kind("started").await;

    let streams = join_all((1..READERS).map(|_| server.follow("x", "0-0"))).await;
    let before = server.server.process().peak_memory_bytes();
    crate::open(&gate);
    let logs = join_all(streams.into_iter().map(harness::client::Lines::to_end)).await;
    let reference = first.to_end().await;
    reference.assert_lines(LINES);
    for log in logs {
        log.assert_lines(LINES);
        assert_eq!(log.complete(), reference.complete());
    }
    let peak = server.server.process().peak_memory_bytes();
    println!(
        "peak memory of the API server: {} MiB, before the output {} MiB",
        peak >> 20,
        before >> 20
    );
    assert!(peak < MOST_MEMORY_BYTES, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn readers_that_do_not_read_cost_little_and_hold_nobody_up() {
    let site = crate::on_redis();
    let file = site.path("lines");
    let numbers = (1..=MANY_LINES).map(|number| number.to_string());
    let lines: Vec<String> = numbers.collect();
    std::fs::write(&file, format!("line {}\n", lines.join("\nline ")))
        .expect("there is room for it");
    let gate = site.path("gate");
    let mut server = site.run().await;
    let (child, file, opened) = (crate::CHILD, file.display(), gate.display());
    let command = format!("{child} wait-for {opened} && {child} write-bytes {file}");
    let job = json!({"command": command, "execution_id": "x"});
    server.submit(&job).await;
    server.until("x", "running").await;
    let mut stalled = join_all((0..STALLED).map(|_| server.follow("x", "0-0"))).await;
    crate::open(&gate);
    server.log("x").await.assert_lines(MANY_LINES);

    let peak = server.server.process().peak_memory_bytes();
    println!("peak memory of the API server: {} MiB", peak >> 20);
    assert!(peak < MOST_MEMORY_BYTES, "{} MiB", peak >> 20);
    // Whoever begins to read at last finds everything.
    let late = stalled.pop().expect("there are some");
    late.to_end().await.assert_lines(MANY_LINES);
}
