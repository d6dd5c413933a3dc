//! What a job may use, and that the error code says which limit ended it.

use harness::event::Log;
use harness::process::with_word;
use harness::site::Site;
use serde_json::{Value, json};

crate::on_both_engines!(
    too_much_memory_ends_a_job,
    memory_that_the_kernel_refuses_is_told_as_such,
    too_much_processor_time_of_all_processes_ends_a_job,
    too_many_processes_end_a_job,
    a_file_that_grows_too_large_ends_a_job,
    open_files_are_limited,
    output_above_the_limit_ends_a_job_that_says_so,
    the_grace_is_the_job_s_own,
    within_its_limits_a_job_is_left_alone,
    the_last_of_standard_error_is_in_the_snapshot_of_what_did_not_succeed,
);

fn failed_with(log: &Log, code: &str) {
    assert_eq!((log.status(), log.error_code()), ("failed", Some(code)));
}

fn limited(argv: &[&str], limits: &Value) -> Value {
    let argv: Vec<&str> = [crate::CHILD].iter().chain(argv).copied().collect();
    json!({"argv": argv, "limits": limits})
}

async fn too_much_memory_ends_a_job(site: Site) {
    let server = site.run().await;
    let job = limited(&["memory", "300"], &json!({"memory_bytes": 64 << 20}));
    let log = server.run(&job).await;
    failed_with(&log, "memory_limit");
    assert_eq!(log.complete()["signal"], "SIGKILL");
    let error = log.of_kind("error")[0];
    assert_eq!(
        error.text("error"),
        "it used more than 67108864 bytes of memory"
    );
}

async fn memory_that_the_kernel_refuses_is_told_as_such(site: Site) {
    let server = site.run().await;
    // Asked for at once and never touched: it is not in use, but it is refused.
    let job = limited(&["reserve", "2000"], &json!({"memory_bytes": 64 << 20}));
    let log = server.run(&job).await;
    failed_with(&log, "memory_limit");
}

async fn too_much_processor_time_of_all_processes_ends_a_job(site: Site) {
    let server = site.run().await;
    let burn = "while :; do :; done";
    // Each of them uses less than the limit.
    let job =
        json!({"command": format!("({burn}) & ({burn}) & {burn}"), "limits": {"cpu_seconds": 1}});
    let log = server.run(&job).await;
    failed_with(&log, "cpu_limit");
}

async fn too_many_processes_end_a_job(site: Site) {
    let server = site.run().await;
    let command = "for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait";
    let log = server
        .run(&json!({"command": command, "limits": {"processes": 5}}))
        .await;
    failed_with(&log, "process_limit");
    let log = server
        .run(&json!({"command": "for i in 1 2 3; do sleep 0.2 & done; wait", "limits": {"processes": 5}}))
        .await;
    assert_eq!(log.status(), "succeeded");
}

async fn a_file_that_grows_too_large_ends_a_job(site: Site) {
    let server = site.run().await;
    for command in [
        "exec head -c 100000 /dev/zero > file",
        "head -c 100000 /dev/zero > file",
    ] {
        let job = json!({"command": command, "limits": {"file_bytes": 50_000}});
        failed_with(&server.run(&job).await, "file_size_limit");
    }
    let job =
        json!({"command": "head -c 100000 /dev/zero > file", "limits": {"file_bytes": 200_000}});
    assert_eq!(server.run(&job).await.status(), "succeeded");
}

async fn open_files_are_limited(site: Site) {
    let server = site.run().await;
    let log = server
        .run(&json!({"command": "ulimit -n; ulimit -c", "limits": {"open_files": 32}}))
        .await;
    assert_eq!(log.stdout(), "32\n0\n");
}

async fn output_above_the_limit_ends_a_job_that_says_so(site: Site) {
    let server = site.with(&[("CC_GRACE", "0.3")]).run().await;
    let id = shared::id::ExecutionId::generate().to_string();
    let job = json!({"argv": ["/bin/sh", "-c", "yes; true", id], "execution_id": id,
        "limits": {"output_bytes": 1_000}, "on_output_limit": "kill"});
    let log = server.run(&job).await;
    failed_with(&log, "output_limit");
    assert_eq!(log.stdout().len(), 1_000);
    assert_eq!(log.complete()["truncated"], true);
    assert!(with_word(&id).is_empty());
}

async fn the_grace_is_the_job_s_own(site: Site) {
    let server = site.with(&[("CC_GRACE", "60")]).run().await;
    let job = json!({"argv": [crate::CHILD, "ignore-term"], "timeout": 0.2, "grace": 0.2});
    let log = server.run(&job).await;
    assert_eq!(
        (log.status(), &log.complete()["signal"]),
        ("timed_out", &json!("SIGKILL"))
    );
}

async fn within_its_limits_a_job_is_left_alone(site: Site) {
    let server = site.run().await;
    let limits = json!({"memory_bytes": 1 << 30, "cpu_seconds": 60, "processes": 50,
        "file_bytes": 1 << 20, "open_files": 64, "output_bytes": 1_000});
    for _ in 0..3 {
        let log = server
            .run(&json!({"command": "echo on > file; cat file; sleep 0.3", "limits": limits}))
            .await;
        assert_eq!(
            (log.status(), log.stdout()),
            ("succeeded", "on\n".to_owned())
        );
        assert_eq!(log.complete()["reaped"], 0);
    }
}

async fn the_last_of_standard_error_is_in_the_snapshot_of_what_did_not_succeed(site: Site) {
    let server = site.run().await;
    let command = "seq 1 5000 >&2; echo why it failed >&2; exit 1";
    server
        .run(&json!({"command": command, "execution_id": "bad"}))
        .await;
    let snapshot = server.snapshot("bad").await;
    let tail = snapshot["stderr_tail"].as_str().expect("is there");
    assert!(
        tail.ends_with("5000\nwhy it failed\n") && tail.len() == 4_096,
        "{tail}"
    );
    server
        .run(&json!({"command": "echo fine >&2", "execution_id": "good"}))
        .await;
    assert_eq!(server.snapshot("good").await.get("stderr_tail"), None);
}
