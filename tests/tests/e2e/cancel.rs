//! Cancelling: what waits ends at once, what runs is asked first, and what has ended stays as it is; and what cannot be
//! paused.

use harness::client::Client;
use harness::site::Site;
use serde_json::json;

crate::on_both_engines!(
    a_queued_job_is_cancelled_at_once_and_never_runs,
    a_running_job_is_terminated_and_cancelling_twice_is_once,
    a_job_that_ignores_sigterm_is_killed_after_the_grace,
    a_job_that_has_ended_cannot_be_cancelled,
    a_job_that_does_not_run_can_be_neither_paused_nor_resumed,
    a_job_that_is_being_cancelled_cannot_be_paused,
);

async fn a_queued_job_is_cancelled_at_once_and_never_runs(site: Site) {
    let (gate, ran) = (site.path("gate"), site.path("ran"));
    let server = site.with(&[("CC_SLOTS", "1")]).run().await;
    let blocker = server.submit(&crate::waiting_at(&gate)).await;
    server.until(&blocker, "running").await;
    let job = json!({"command": format!("touch {}", ran.display()), "execution_id": "x"});
    server.submit(&job).await;
    let stream = server.follow("x", "0-0").await;
    for _ in 0..2 {
        let reply = server.delete("/executions/x").await;
        assert_eq!(
            (reply.status, &reply.json()["status"]),
            (200, &json!("cancelled"))
        );
    }
    let log = stream.to_end().await;
    assert_eq!(log.kinds(), ["queued", "error", "complete"]);
    assert_eq!(
        (log.status(), log.error_code()),
        ("cancelled", Some("cancelled"))
    );
    crate::open(&gate);
    server.until(&blocker, "succeeded").await;
    assert_eq!(
        server.run(&json!({"command": "true"})).await.status(),
        "succeeded"
    );
    assert!(!ran.exists());
    // The id is still taken, by an execution that is over.
    assert_eq!(server.run(&job).await, log);
}

async fn a_running_job_is_terminated_and_cancelling_twice_is_once(site: Site) {
    let server = site.run().await;
    let command = "trap 'echo tidied; exit 3' TERM; echo begun; sleep 60 & wait";
    let mut stream = server
        .execute(&json!({"command": command, "execution_id": "x"}))
        .await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    let control = json!({"action": "cancel"});
    let reply = server.post("/executions/x/control", &control).await;
    assert_eq!(
        (reply.status, &reply.json()["cancel_requested"]),
        (202, &json!(true))
    );
    let status = server.delete("/executions/x").await.status;
    assert!([200, 202].contains(&status), "{status}");
    seen.extend(stream.rest().await);
    let log = harness::event::Log::new(seen);
    assert_eq!(
        (log.status(), log.stdout()),
        ("cancelled", "begun\ntidied\n".to_owned())
    );
    assert_eq!(log.error_code(), Some("cancelled"));
    assert_eq!(server.delete("/executions/x").await.status, 200);
}

async fn a_job_that_ignores_sigterm_is_killed_after_the_grace(site: Site) {
    let server = site.with(&[("CC_GRACE", "0.4")]).run().await;
    let job = json!({"argv": [crate::CHILD, "ignore-term"], "execution_id": "x"});
    let mut stream = server.execute(&job).await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    let cancelled_at = std::time::Instant::now();
    assert_eq!(server.delete("/executions/x").await.status, 202);
    seen.extend(stream.rest().await);
    let log = harness::event::Log::new(seen);
    assert_eq!(
        (log.status(), &log.complete()["signal"]),
        ("cancelled", &json!("SIGKILL"))
    );
    let took = cancelled_at.elapsed().as_millis();
    assert!((400..2_500).contains(&took), "{took} ms");
}

async fn a_job_that_has_ended_cannot_be_cancelled(site: Site) {
    let server = site.run().await;
    let log = server
        .run(&json!({"command": "true", "execution_id": "x"}))
        .await;
    let reply = server.delete("/executions/x").await;
    assert_eq!(
        (reply.status, reply.problem().0.as_str()),
        (409, "already_ended")
    );
    assert_eq!(server.log("x").await, log);
}

/// The status and the code of what is answered to somebody who may not do this.
async fn refused(server: &Client, id: &str, action: &str) -> (u16, String) {
    let path = format!("/executions/{id}/control");
    let reply = server.post(&path, &json!({"action": action})).await;
    (reply.status, reply.problem().0)
}

async fn a_job_that_does_not_run_can_be_neither_paused_nor_resumed(site: Site) {
    let server = site.run().await;
    let waiting = json!({"command": "true", "execution_id": "queued", "delay": 3600});
    server.submit(&waiting).await;
    let ended = json!({"command": "true", "execution_id": "ended"});
    let log = server.run(&ended).await;
    for action in ["pause", "resume"] {
        for (id, status, code) in [
            ("queued", 409, "not_running"),
            ("ended", 409, "already_ended"),
            ("unknown", 404, "unknown_execution"),
        ] {
            let expected = (status, code.to_owned());
            assert_eq!(
                refused(&server, id, action).await,
                expected,
                "{action} {id}"
            );
        }
    }
    let snapshot = server.snapshot("queued").await;
    assert_eq!(
        (&snapshot["status"], &snapshot["paused"]),
        (&json!("queued"), &json!(false))
    );
    assert_eq!(server.log("ended").await, log);
}

async fn a_job_that_is_being_cancelled_cannot_be_paused(site: Site) {
    let server = site.run().await;
    let job = json!({"argv": [crate::CHILD, "ignore-term"], "execution_id": "x", "grace": 2});
    let mut stream = server.execute(&job).await;
    stream.until(|event| event.kind() == "output").await;
    assert_eq!(server.delete("/executions/x").await.status, 202);
    let expected = (409, "being_cancelled".to_owned());
    assert_eq!(refused(&server, "x", "pause").await, expected);
    // To let go on what goes on is always fine.
    let resume = json!({"action": "resume"});
    let reply = server.post("/executions/x/control", &resume).await;
    assert_eq!(
        (reply.status, &reply.json()["cancel_requested"]),
        (202, &json!(true))
    );
    stream.rest().await;
    server.until("x", "cancelled").await;
}
