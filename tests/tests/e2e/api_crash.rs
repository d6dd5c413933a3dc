//! An API server dies: its jobs do not notice, and their readers go on elsewhere.

use harness::event::{Event, Log};
use serde_json::json;

const LINES: usize = 300;

#[tokio::test]
async fn a_job_outlives_the_server_it_was_submitted_to() {
    let site = crate::on_redis();
    let mut first = site.api().await;
    let second = site.api().await;
    let _worker = site.worker("worker").await;
    let job = json!({"argv": [crate::CHILD, "lines", LINES.to_string(), "3"], "execution_id": "x"});
    let mut stream = first.execute(&job).await;
    let mut seen = stream
        .until(|event| {
            event["data"]
                .as_str()
                .is_some_and(|data| data.contains("line 50\n"))
        })
        .await;

    first.process().kill9();
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => seen.push(event),
            Ok(None) => panic!("a stream that broke off looks complete"),
            Err(harness::client::Broken) => break,
        }
    }
    assert_eq!(second.snapshot("x").await["status"], "running");
    let after = seen.last().map_or("0-0", Event::id).to_owned();
    seen.extend(second.follow("x", &after).await.rest().await);
    let log = Log::new(seen);
    log.assert_lines(LINES);
    assert_eq!(log.complete().id().split('-').next(), Some("1"));

    let restarted = site.api().await;
    assert_eq!(restarted.log("x").await, log);
}
