//! Who may talk to a server: the machine's own programs, no web page, and where there are keys only
//! who has one.

use harness::client::{Client, Reply};
use harness::process::Process;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HOST, ORIGIN};
use serde_json::json;

const KEY: &str = "correct-horse-battery-staple";

fn submit(client: &Client) -> reqwest::RequestBuilder {
    let request = client.request(Method::POST, "/execute");
    request.body(json!({"command": "true", "stream": false}).to_string())
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.problem().0)
}

#[tokio::test]
async fn a_web_page_cannot_submit() {
    let site = crate::on_redis();
    let api = site.api().await;
    for (media_type, status) in [
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (None, 415),
        (Some("application/json; charset=utf-8"), 202),
    ] {
        let mut request = submit(&api);
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let reply = Reply::of(request).await;
        assert_eq!(reply.status, status, "{media_type:?}");
        if status == 415 {
            assert_eq!(reply.problem().0, "unsupported_media_type");
        }
    }
    let foreign = submit(&api).header(CONTENT_TYPE, "application/json");
    let reply = Reply::of(foreign.header(ORIGIN, "https://evil.example")).await;
    assert_eq!(code(&reply), (403, "foreign_origin".to_owned()));
    let own = submit(&api).header(CONTENT_TYPE, "application/json");
    let own = own.header(ORIGIN, format!("http://{}", api.address()));
    assert_eq!(Reply::of(own).await.status, 202);
}

#[tokio::test]
async fn a_name_that_somebody_else_controls_is_not_answered() {
    let site = crate::on_redis();
    let api = site.api().await;
    for path in ["/health", "/executions", "/nowhere", "/docs/"] {
        let request = api.request(Method::GET, path);
        let reply = Reply::of(request.header(HOST, "rebound.evil.example")).await;
        assert_eq!(code(&reply), (421, "unknown_host".to_owned()), "{path}");
    }
    let request = api.request(Method::GET, "/executions");
    assert_eq!(
        Reply::of(request.header(HOST, "localhost:8000"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn where_there_are_keys_nothing_is_told_without_one() {
    let site = crate::on_redis().with(&[("CC_API_KEYS", KEY)]);
    let api = site.api().await;
    let wrong = Client::new(api.address()).with_key("wrong-horse-battery-staple");
    for client in [&*api, &wrong] {
        for path in [
            "/executions",
            "/executions/x",
            "/workers",
            "/queues",
            "/nowhere",
        ] {
            let reply = client.get(path).await;
            assert_eq!(code(&reply), (401, "unauthorized".to_owned()), "{path}");
            assert_eq!(reply.header("www-authenticate"), "Bearer");
        }
        let reply = client.post("/execute", &json!({"command": "true"})).await;
        assert_eq!(reply.status, 401);
        assert_eq!(client.get("/health").await.status, 200);
    }
    let right = Client::new(api.address()).with_key(KEY);
    let id = right.submit(&json!({"command": "true"})).await;
    assert_eq!(right.snapshot(&id).await["status"], "queued");
}

#[tokio::test]
async fn without_keys_only_loopback_is_bound() {
    let site = crate::on_redis().with(&[("CC_BIND", "0.0.0.0:0")]);
    let mut api = Process::start("api", site.command(crate::PROGRAMS.api));
    assert_eq!(api.exit().await.code(), Some(2));
    assert!(api.log().contains("CC_API_KEYS"), "{}", api.log());
    let site = site.with(&[("CC_API_KEYS", KEY)]);
    site.api().await;
}

#[tokio::test]
async fn every_bad_setting_is_told_at_once() {
    let settings = [
        ("CC_HEARTBEAT", "never"),
        ("CC_SLOTS", "0"),
        ("CC_LEASE", "-1"),
        ("REDIS_URL", ""),
    ];
    let site = crate::on_redis().with(&settings);
    for (program, names) in [
        (
            crate::PROGRAMS.api,
            ["REDIS_URL", "CC_HEARTBEAT", "CC_HEARTBEAT"],
        ),
        (
            crate::PROGRAMS.worker,
            ["REDIS_URL", "CC_SLOTS", "CC_LEASE"],
        ),
    ] {
        let mut process = Process::start("misconfigured", site.command(program));
        assert_eq!(process.exit().await.code(), Some(2));
        for name in names {
            assert!(process.log().contains(name), "{name}: {}", process.log());
        }
    }
}
