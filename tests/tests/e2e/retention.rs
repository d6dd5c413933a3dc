//! What has ended is kept for as long as it is said, and then is gone without a trace.

use std::time::Duration;

use harness::wait::eventually;
use serde_json::json;

#[tokio::test]
async fn an_execution_is_gone_after_its_retention() {
    let mut site = crate::on_redis().with(&[("CC_RETENTION", "1")]);
    let api = site.api().await;
    let worker = site.worker("first").await;
    api.run(&json!({"command": "echo short-lived", "execution_id": "x"}))
        .await;
    let gate = site.path("gate");
    let running = api.submit(&crate::waiting_at(&gate)).await;
    api.until(&running, "running").await;
    assert_eq!(api.snapshot("x").await["status"], "succeeded");
    // A worker looks for what can go when it starts, and from time to time.
    eventually(Duration::from_secs(20), "it is gone", async || {
        let _next = site.worker("next").await;
        (api.get("/executions/x").await.status == 404).then_some(())
    })
    .await;
    for path in ["/executions/x/results", "/executions/x/output"] {
        let reply = api.get(path).await;
        assert_eq!(
            (reply.status, reply.problem().0.as_str()),
            (404, "unknown_execution")
        );
    }
    let list = api.get("/executions").await.json();
    assert_eq!(
        list["executions"].as_array().map(Vec::len),
        Some(1),
        "what runs is kept"
    );
    crate::open(&gate);
    api.until(&running, "succeeded").await;
    drop(worker);
    assert!(site.redis().keys().iter().all(|key| !key.ends_with(":x")));
    // The id is free again.
    api.submit(&json!({"command": "echo another", "execution_id": "x"}))
        .await;
}

#[tokio::test]
async fn a_restart_removes_what_is_past_its_retention() {
    let site = crate::on_disk().with(&[("CC_RETENTION", "1")]);
    let mut server = site.serve().await;
    server
        .run(&json!({"command": "true", "execution_id": "x"}))
        .await;
    eventually(Duration::from_secs(20), "it is gone", async || {
        server.process().kill9();
        server = site.serve().await;
        (server.get("/executions/x").await.status == 404).then_some(())
    })
    .await;
}
