//! Redis dies in the middle of everything and comes back with what it had acknowledged.

use harness::event::{Event, Log};
use serde_json::json;

const LINES: usize = 1_000;

#[tokio::test]
async fn output_and_open_streams_go_on_across_a_crash_of_redis() {
    let mut server = crate::on_redis().run().await;
    let job = json!({"argv": [crate::CHILD, "lines", LINES.to_string(), "2"], "execution_id": "x"});
    let mut stream = server.execute(&job).await;
    let mut seen = Vec::new();
    for far in ["line 100\n", "line 400\n"] {
        // What comes after the crash comes on the same connection.
        let has_come = |event: &Event| {
            event["data"]
                .as_str()
                .is_some_and(|data| data.contains(far))
        };
        seen.extend(stream.until(has_come).await);
        server.site.redis().kill9();
        assert_eq!(server.get("/health").await.status, 503);
        server.site.redis().restart();
        server.until_healthy().await;
    }
    seen.extend(stream.rest().await);
    let log = Log::new(seen);
    log.assert_lines(LINES);
    assert_eq!(log.status(), "succeeded");
    assert_eq!(log, server.log("x").await);
}
