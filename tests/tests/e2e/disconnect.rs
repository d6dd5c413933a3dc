//! A client that leaves does not end its job, unless it has asked for that.

use std::time::{Duration, Instant};

use harness::client::Lines;
use harness::site::Site;
use reqwest::Method;
use serde_json::json;

crate::on_both_engines!(
    a_job_outlives_its_client,
    a_job_ends_with_its_client_if_that_was_asked_for,
    a_client_that_saw_the_end_cancels_nothing,
);

async fn a_job_outlives_its_client(site: Site) {
    let gate = site.path("gate");
    let server = site.run().await;
    let mut job = crate::waiting_at(&gate);
    job["execution_id"] = json!("x");
    let mut stream = server.execute(&job).await;
    stream.until_kind("started").await;
    drop(stream);
    // By the time another job has run, the server knows that the client has gone.
    server.run(&json!({"command": "sleep 0.2"})).await;
    assert_eq!(server.snapshot("x").await["status"], "running");
    crate::open(&gate);
    assert_eq!(server.log("x").await.status(), "succeeded");
}

async fn a_job_ends_with_its_client_if_that_was_asked_for(site: Site) {
    let server = site.run().await;
    let job = json!({"argv": [crate::CHILD, "sleep"], "execution_id": "x"});
    let request = server
        .request(Method::POST, "/execute?cancel_on_disconnect=true")
        .json(&job);
    let mut stream = Lines::of(request).await;
    stream.until_kind("started").await;
    let left_at = Instant::now();
    drop(stream);
    let log = server.log("x").await;
    assert_eq!(log.status(), "cancelled");
    assert_eq!(log.error_code(), Some("cancelled"));
    // At once, not when a heartbeat cannot be delivered.
    assert!(
        left_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        left_at.elapsed()
    );
}

async fn a_client_that_saw_the_end_cancels_nothing(site: Site) {
    let server = site.run().await;
    let job = json!({"command": "true", "execution_id": "x"});
    let request = server
        .request(Method::POST, "/execute?cancel_on_disconnect=true")
        .json(&job);
    assert_eq!(
        Lines::of(request).await.to_end().await.status(),
        "succeeded"
    );
    assert_eq!(server.snapshot("x").await["status"], "succeeded");
}
