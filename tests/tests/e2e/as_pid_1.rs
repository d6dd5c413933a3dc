//! A worker that is the first process of a container.

use std::path::Path;
use std::time::Duration;

use harness::process::{Process, children_named, command};
use harness::wait::eventually;
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn as_the_first_process_of_a_container_a_worker_reaps_what_nobody_waits_for() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: only root can make a namespace of processes");
        return;
    }
    let site = crate::on_redis();
    let api = site.api().await;
    let mut start = command(Path::new("unshare"), site.settings());
    start.args([
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        crate::PROGRAMS.worker,
    ]);
    let mut container = Process::start("container", start);
    container.logs("worker started").await;
    let worker = children_named(container.pid(), crate::PROGRAMS.worker)[0];

    let log = api
        .run(&json!({"command": "setsid -f sleep 60 > /dev/null; echo fine"}))
        .await;
    assert_eq!(
        (log.status(), &log.complete()["reaped"]),
        ("succeeded", &json!(1))
    );

    // Somebody enters, as `docker exec` does, and leaves a process without a parent.
    let mut visitor = command(Path::new("nsenter"), []);
    let target = worker.to_string();
    visitor.args([
        "--target",
        &target,
        "--pid",
        "--",
        "sh",
        "-c",
        "sleep 0.3 & :",
    ]);
    assert!(visitor.status().expect("nsenter is there").success());
    let before = children_named(worker, "sleep");
    assert_eq!(before.len(), 1, "it is the worker's now");
    eventually(SOON, "not even a zombie is left of it", async || {
        (!Path::new(&format!("/proc/{}", before[0])).exists()).then_some(())
    })
    .await;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(worker),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("it is there");
    assert_eq!(container.exit().await.code(), Some(0));
}
