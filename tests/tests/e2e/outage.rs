//! Redis away and back: nothing is promised that is not kept, and nobody has to restart anything.

use harness::client::Reply;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn without_redis_a_server_says_so_and_recovers_by_itself() {
    let mut server = crate::on_redis().run().await;
    let log = server
        .run(&json!({"command": "echo before", "execution_id": "before"}))
        .await;
    server.site.redis().kill9();

    for path in [
        "/health",
        "/executions",
        "/executions/before",
        "/workers",
        "/queues",
    ] {
        let reply = server.get(path).await;
        assert_unavailable(&reply);
    }
    let job = json!({"command": "echo after", "execution_id": "after"});
    assert_unavailable(&server.post("/execute", &job).await);
    assert_unavailable(&server.delete("/executions/before").await);
    assert_eq!(server.get("/health/live").await.status, 200);
    let request = server.request(Method::GET, "/executions/before");
    assert_unavailable(&Reply::of(request).await);

    server.site.redis().restart();
    server.until_healthy().await;
    assert_eq!(server.log("before").await, log);
    assert_eq!(server.run(&job).await.stdout(), "after\n");
}

fn assert_unavailable(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.problem().0.as_str()),
        (503, "store_unavailable")
    );
    assert!(!reply.header("retry-after").is_empty());
    let body = String::from_utf8_lossy(&reply.body);
    assert!(
        !body.contains("redis") && !body.contains("socket"),
        "internal text: {body}"
    );
}
