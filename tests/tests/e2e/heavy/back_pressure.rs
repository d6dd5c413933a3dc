//! A job that prints faster than the store takes it waits, and nobody's memory grows.

use std::time::Duration;

use harness::site::{Running, Site};
use harness::slow::SlowProxy;
use serde_json::json;

/// What Redis takes.
const BYTES_PER_SECOND: u64 = 5 << 20;
const MOST_MEMORY_BYTES: u64 = 64 << 20;

#[tokio::test]
async fn a_flood_against_a_slow_redis_fills_nobody_s_memory() {
    let mut site: Site = crate::on_redis();
    let proxy = SlowProxy::start(site.redis().socket(), BYTES_PER_SECOND);
    let server: Running = site
        .with(&[("REDIS_URL", &proxy.url()), ("CC_LEASE", "60")])
        .run()
        .await;
    let job = json!({"argv": [crate::CHILD, "flood", "10"], "execution_id": "x",
        "limits": {"output_bytes": 1 << 30}});
    let stream = server.execute(&job).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let worker = server.worker.as_ref().expect("there is one on redis");
    let peak = worker.peak_memory_bytes();
    assert!(peak < MOST_MEMORY_BYTES, "the worker had {peak} bytes");
    // What it wrote is in the pipe, in a few buffers, and in the store.
    let passed = proxy.passed();
    assert!(
        passed > BYTES_PER_SECOND && passed < 20 * BYTES_PER_SECOND,
        "{passed} bytes"
    );
    assert_eq!(server.delete("/executions/x").await.status, 202);
    let log = stream.to_end().await;
    assert!(
        ["cancelled", "succeeded"].contains(&log.status()),
        "{}",
        log.status()
    );
}
