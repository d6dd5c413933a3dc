//! How an execution can end other than well, and that it is told truthfully.

use harness::process::is_alive;
use harness::site::Site;
use serde_json::json;

crate::on_both_engines!(
    an_exit_code_and_a_signal_are_told,
    what_takes_too_long_is_ended,
    what_does_not_listen_is_killed,
    silence_can_be_limited,
    output_above_the_limit_is_cut_and_the_job_goes_on,
    a_descendant_that_holds_the_output_open_does_not_hold_up_the_end,
    what_cannot_start_is_rejected_with_the_reason,
);

async fn an_exit_code_and_a_signal_are_told(site: Site) {
    let server = site.run().await;
    let log = server.run(&json!({"command": "exit 255"})).await;
    assert_eq!(
        (log.status(), &log.complete()["exit_code"]),
        ("failed", &json!(255))
    );
    assert_eq!(log.error_code(), None);
    let log = server.run(&json!({"command": "kill -SEGV $$"})).await;
    assert_eq!(
        (log.status(), &log.complete()["signal"]),
        ("failed", &json!("SIGSEGV"))
    );
    assert_eq!(log.complete()["exit_code"], json!(null));
}

async fn what_takes_too_long_is_ended(site: Site) {
    let server = site.run().await;
    let job = json!({"command": "echo begun; trap 'echo tidied; exit 0' TERM; sleep 60 & wait", "timeout": 0.3});
    let log = server.run(&job).await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("timed_out", Some("timed_out"))
    );
    assert_eq!(log.stdout(), "begun\ntidied\n");
    let error = log.of_kind("error")[0];
    assert_eq!(error.text("error"), "timed out after 0.3 s");
    let duration_ms = log.complete()["duration_ms"].as_u64();
    assert!(
        duration_ms.is_some_and(|ms| (300..3_000).contains(&ms)),
        "{duration_ms:?}"
    );
}

async fn what_does_not_listen_is_killed(site: Site) {
    let server = site.with(&[("CC_GRACE", "0.3")]).run().await;
    let job = json!({"argv": [crate::CHILD, "ignore-term"], "timeout": 0.3});
    let log = server.run(&job).await;
    assert_eq!(
        (log.status(), &log.complete()["signal"]),
        ("timed_out", &json!("SIGKILL"))
    );
    let duration_ms = log.complete()["duration_ms"].as_u64();
    assert!(
        duration_ms.is_some_and(|ms| (600..3_000).contains(&ms)),
        "{duration_ms:?}"
    );
}

async fn silence_can_be_limited(site: Site) {
    let server = site.run().await;
    // It talks for longer than it may be silent.
    let command = format!("{} lines 20 30; sleep 60", crate::CHILD);
    let log = server
        .run(&json!({"command": command, "stall_timeout": 0.4}))
        .await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("stalled", Some("stalled"))
    );
    log.assert_lines(20);
}

async fn output_above_the_limit_is_cut_and_the_job_goes_on(site: Site) {
    let after = site.path("after");
    let server = site.run().await;
    let command = format!(
        "printf 0123456789ABCDEF; yes | head -c 1000000; echo on > {}",
        after.display()
    );
    let log = server
        .run(&json!({"command": command, "limits": {"output_bytes": 10}}))
        .await;
    assert_eq!(
        (log.status(), log.stdout()),
        ("succeeded", "0123456789".to_owned())
    );
    let complete = log.complete();
    assert_eq!(
        (&complete["truncated"], &complete["output_bytes"]),
        (&json!(true), &json!(10))
    );
    assert!(after.exists());
    let log = server
        .run(&json!({"command": "printf 0123456789", "limits": {"output_bytes": 10}}))
        .await;
    assert_eq!(log.complete()["truncated"], false);
}

async fn a_descendant_that_holds_the_output_open_does_not_hold_up_the_end(site: Site) {
    let server = site.with(&[("CC_DRAIN_GRACE", "0.3")]).run().await;
    let log = server
        .run(&json!({"argv": [crate::CHILD, "hold-stdout"]}))
        .await;
    assert_eq!(log.status(), "succeeded");
    let descendant = log.stdout().trim().parse().expect("it prints a process id");
    assert!(!is_alive(descendant), "it ended with the rest of the tree");
}

async fn what_cannot_start_is_rejected_with_the_reason(site: Site) {
    let script = site.path("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("it is written");
    let server = site.run().await;
    for (job, code) in [
        (json!({"argv": ["no-such-program"]}), "program_not_found"),
        (json!({"argv": ["/no/such/program"]}), "program_not_found"),
        (json!({"argv": [script]}), "program_not_executable"),
        (json!({"argv": ["/etc"]}), "program_not_executable"),
        (
            json!({"command": "true", "cwd": "/no/such/directory"}),
            "cwd_not_found",
        ),
        (
            json!({"command": "true", "cwd": "/etc/passwd"}),
            "cwd_not_found",
        ),
    ] {
        let log = server.run(&job).await;
        assert_eq!(
            (log.status(), log.error_code()),
            ("rejected", Some(code)),
            "{job}"
        );
        assert_eq!(log.kinds(), ["queued", "error", "complete"], "{job}");
        let snapshot = server.snapshot(log.complete().text("execution_id")).await;
        assert_eq!(
            (&snapshot["status"], &snapshot["error"]["code"]),
            (&json!("rejected"), &json!(code))
        );
    }
    // To the shell this is a command like any other.
    let log = server.run(&json!({"command": "no-such-program"})).await;
    assert_eq!(
        (log.status(), &log.complete()["exit_code"]),
        ("failed", &json!(127))
    );
}
