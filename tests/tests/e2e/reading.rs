//! The forms in which a log can be had.

use std::time::Duration;

use harness::client::{Lines, Reply};
use harness::site::Site;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

crate::on_both_engines!(
    server_sent_events_carry_the_same_lines_and_resume,
    a_reader_may_take_what_there_is_and_leave,
    the_raw_bytes_of_each_stream_can_be_had,
    a_silent_job_is_known_to_live,
    every_way_of_asking_for_a_form_is_understood,
);

async fn server_sent_events_carry_the_same_lines_and_resume(site: Site) {
    let server = site.run().await;
    let job =
        json!({"command": "echo one; sleep 0.1; echo two; printf '\\377'", "execution_id": "x"});
    let log = server.run(&job).await;
    let request = server.request(Method::POST, "/execute").json(&job);
    let reply = Reply::of(request.header(ACCEPT, "text/event-stream")).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    assert_eq!(events(&reply), lines(log.events()));

    let middle = log.events()[2].id();
    let request = server
        .request(Method::GET, "/executions/x")
        .header(ACCEPT, "text/event-stream");
    let reply = Reply::of(request.header("Last-Event-ID", middle)).await;
    assert_eq!(events(&reply), lines(&log.events()[3..]));
    // What the address says counts more than what the client remembers.
    let request = server.request(Method::GET, "/executions/x?after=0-0");
    let request = request
        .header(ACCEPT, "text/event-stream")
        .header("Last-Event-ID", middle);
    assert_eq!(events(&Reply::of(request).await).len(), log.events().len());
}

fn lines(events: &[harness::event::Event]) -> Vec<(String, Value)> {
    events
        .iter()
        .map(|event| (event.id().to_owned(), event.0.clone()))
        .collect()
}

/// The ids and the data of all events, read as the specification of server-sent events says.
fn events(reply: &Reply) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(&reply.body).expect("server-sent events are UTF-8");
    let events = text
        .split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'));
    let field = |event: &str, name: &str| {
        let line = event
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::to_owned);
        line.unwrap_or_else(|| panic!("{name} in {event:?}"))
    };
    let parse = |event: &str| {
        let data = serde_json::from_str(&field(event, "data: ")).expect("the data is JSON");
        (field(event, "id: "), data)
    };
    events.map(parse).collect()
}

async fn a_reader_may_take_what_there_is_and_leave(site: Site) {
    let gate = site.path("gate");
    let server = site.run().await;
    let command = format!(
        "echo before; {} wait-for {}; echo after",
        crate::CHILD,
        gate.display()
    );
    let mut stream = server
        .execute(&json!({"command": command, "execution_id": "x"}))
        .await;
    let so_far = stream.until(|event| event.kind() == "output").await;
    let request = server.request(Method::GET, "/executions/x?follow=false");
    assert_eq!(Lines::of(request).await.rest().await, so_far);
    let last = so_far.last().expect("there are some").id();
    let request = server.request(
        Method::GET,
        &format!("/executions/x?follow=false&after={last}"),
    );
    assert_eq!(Lines::of(request).await.rest().await, []);
    crate::open(&gate);
    stream.until_kind("complete").await;
    let request = server.request(Method::GET, "/executions/x?follow=false");
    assert_eq!(
        Lines::of(request).await.to_end().await,
        server.log("x").await
    );
}

async fn the_raw_bytes_of_each_stream_can_be_had(site: Site) {
    let gate = site.path("gate");
    let server = site.run().await;
    let command = format!(
        "printf 'out\\000\\377'; printf err >&2; {} wait-for {}; printf more",
        crate::CHILD,
        gate.display()
    );
    let mut stream = server
        .execute(&json!({"command": command, "execution_id": "x"}))
        .await;
    let mut streams = Vec::new();
    while streams.len() < 2 {
        let event = stream.until_kind("output").await;
        streams.push(event.text("stream").to_owned());
    }
    let raw = async |query: &str| {
        server
            .get(&format!("/executions/x/output{query}"))
            .await
            .body
    };
    assert_eq!(raw("?stream=stdout").await.as_ref(), b"out\0\xff");
    assert_eq!(raw("?stream=stderr").await.as_ref(), b"err");
    assert_eq!(raw("").await.len(), 8);
    let request = server.request(
        Method::GET,
        "/executions/x/output?stream=stdout&follow=true",
    );
    let response = request.send().await.expect("the server answers");
    crate::open(&gate);
    let all = response.bytes().await.expect("the whole reply arrives");
    assert_eq!(all.as_ref(), b"out\0\xffmore");
    assert_eq!(raw("?stream=stdout").await, all);
}

async fn a_silent_job_is_known_to_live(site: Site) {
    let gate = site.path("gate");
    let server = site.with(&[("CC_HEARTBEAT", "0.2")]).run().await;
    let mut job = crate::waiting_at(&gate);
    job["execution_id"] = json!("x");
    let mut stream = server.execute(&job).await;
    stream.until_kind("started").await;
    let mut last = tokio::time::Instant::now();
    for _ in 0..3 {
        let heartbeat = stream.next().await.expect("the stream goes on");
        assert_eq!(heartbeat.kind(), "heartbeat");
        assert!(heartbeat["id"].is_null() && heartbeat["ts"].is_string());
        assert!(
            last.elapsed() < Duration::from_secs(2),
            "{:?}",
            last.elapsed()
        );
        last = tokio::time::Instant::now();
    }
    crate::open(&gate);
    stream.until_kind("complete").await;
    let stored = server.follow("x", "0-0").await.rest().await;
    assert!(stored.iter().all(|event| event.kind() != "heartbeat"));
}

async fn every_way_of_asking_for_a_form_is_understood(site: Site) {
    let server = site.run().await;
    for (accept, prefer, stream, status) in [
        (None, None, None, 200),
        (Some("*/*"), None, None, 200),
        (Some("application/json"), None, None, 202),
        (Some("application/json, text/plain"), None, None, 200),
        (None, Some("respond-async"), None, 202),
        (None, Some("respond-async, wait=10"), Some(true), 200),
        (Some("application/json"), None, Some(true), 200),
        (Some("application/x-ndjson"), None, Some(false), 202),
    ] {
        let mut request = server.request(Method::POST, "/execute");
        request = request.json(&json!({"command": "true", "stream": stream}));
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(prefer) = prefer {
            request = request.header("Prefer", prefer);
        }
        let reply = Reply::of(request).await;
        assert_eq!(reply.status, status, "{accept:?} {prefer:?} {stream:?}");
    }
}
