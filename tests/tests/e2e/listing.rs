//! Lists: newest first, filtered, page by page.

use harness::client::Client;
use harness::site::Site;
use serde_json::{Value, json};

crate::on_both_engines!(lists_are_filtered_and_paged_newest_first);

async fn lists_are_filtered_and_paged_newest_first(site: Site) {
    let gate = site.path("gate");
    let server = site.with(&[("CC_SLOTS", "1")]).run().await;
    for number in 0..5 {
        let job = json!({
            "command": format!("exit {}", number % 2),
            "execution_id": format!("old-{number}"),
            "labels": {"parity": if number % 2 == 0 { "even" } else { "odd" }, "round": "1"},
        });
        server.run(&job).await;
    }
    let mut job = crate::waiting_at(&gate);
    job["execution_id"] = json!("new");
    job["queue"] = json!("special");
    server.submit(&job).await;
    server.until("new", "running").await;

    let all = ["new", "old-4", "old-3", "old-2", "old-1", "old-0"];
    assert_eq!(ids(&server, "").await, all);
    assert_eq!(
        ids(&server, "?status=succeeded").await,
        ["old-4", "old-2", "old-0"]
    );
    assert_eq!(ids(&server, "?status=failed").await, ["old-3", "old-1"]);
    assert_eq!(ids(&server, "?status=running").await, ["new"]);
    assert_eq!(ids(&server, "?queue=special").await, ["new"]);
    assert_eq!(ids(&server, "?label=parity=odd").await, ["old-3", "old-1"]);
    assert_eq!(
        ids(&server, "?label=round=1&label=parity=even&status=failed").await,
        [""; 0]
    );

    let mut seen = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = server.get(&format!("/executions{query}")).await.json();
        seen.extend(ids_of(&page));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("?limit=4&cursor={cursor}");
        // What comes in meanwhile does not shift the pages.
        server.submit(&json!({"command": "true"})).await;
    }
    assert_eq!(seen, all);
    let snapshot = &server.get("/executions?queue=special").await.json()["executions"][0];
    assert_eq!(*snapshot, server.snapshot("new").await);
    crate::open(&gate);
}

async fn ids(server: &Client, query: &str) -> Vec<String> {
    let reply = server.get(&format!("/executions{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    ids_of(&reply.json())
}

fn ids_of(page: &Value) -> Vec<String> {
    let executions = page["executions"]
        .as_array()
        .expect("a page has executions");
    let id = |execution: &Value| execution["execution_id"].as_str().map(str::to_owned);
    executions.iter().filter_map(id).collect()
}
