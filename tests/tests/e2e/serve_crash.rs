//! `serve` dies: what was queued runs after the restart, what ran is told to be lost, and what had
//! ended is still there.

use serde_json::json;

const SLOTS: usize = 4;
const WAITING: usize = 50;

#[tokio::test]
async fn an_embedded_store_keeps_its_promises_across_a_crash() {
    let site = crate::on_disk().with(&[("CC_SLOTS", "4")]);
    let ran = site.path("ran");
    let mut server = site.serve().await;
    let history = server
        .run(&json!({"command": "echo history", "execution_id": "history"}))
        .await;
    for number in 0..SLOTS {
        let job =
            json!({"argv": [crate::CHILD, "sleep"], "execution_id": format!("running-{number}")});
        server.submit(&job).await;
        server.until(&format!("running-{number}"), "running").await;
    }
    let note = format!("echo $CC_EXECUTION_ID >> {}", ran.display());
    for number in 0..WAITING {
        let id = format!("waiting-{number:02}");
        server
            .submit(&json!({"command": note, "execution_id": id}))
            .await;
    }
    server.process().kill9();
    assert!(!ran.exists(), "nothing of what waits has run");

    let server = site.serve().await;
    for number in 0..SLOTS {
        let log = server.log(&format!("running-{number}")).await;
        assert_eq!(
            (log.status(), log.error_code()),
            ("lost", Some("worker_lost"))
        );
    }
    for number in 0..WAITING {
        let log = server.log(&format!("waiting-{number:02}")).await;
        assert_eq!(log.status(), "succeeded");
    }
    let ran = std::fs::read_to_string(ran).expect("they have run");
    let mut ran: Vec<&str> = ran.lines().collect();
    ran.sort_unstable();
    let all: Vec<String> = (0..WAITING)
        .map(|number| format!("waiting-{number:02}"))
        .collect();
    assert_eq!(ran, all, "each of them once");
    assert_eq!(server.log("history").await, history);
}

#[tokio::test]
async fn a_data_directory_is_used_by_one_process_only() {
    let site = crate::on_disk();
    let _server = site.serve().await;
    let mut command = site.command(crate::PROGRAMS.cli);
    command.arg("serve");
    let mut second = harness::process::Process::start("second", command);
    assert_eq!(second.exit().await.code(), Some(1));
    assert!(
        second.log().contains("another process is using it"),
        "{}",
        second.log()
    );
}
