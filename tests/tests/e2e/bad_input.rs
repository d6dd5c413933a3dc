//! Input that is not right is refused by name, and does no harm.

use harness::client::{Client, Reply};
use harness::site::Site;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;

crate::on_both_engines!(
    a_job_that_is_not_right_is_refused_and_its_field_is_named,
    parameters_that_are_not_right_are_refused_and_named,
    paths_and_methods_that_do_not_exist_are_refused,
);

/// What is sent, the code of the problem, and the field that it names.
const BAD_JOBS: &[(&str, &str, Option<&str>)] = &[
    ("", "invalid_json", None),
    ("echo hello", "invalid_json", None),
    (r#"{"command":"true""#, "invalid_json", None),
    (r#"{"command":"true"}{}"#, "invalid_json", None),
    ("[]", "invalid_field", None),
    ("null", "invalid_field", None),
    (r#"{"command":7}"#, "invalid_field", Some("command")),
    (r#"{"argv":"ls"}"#, "invalid_field", Some("argv")),
    (r#"{"argv":["ls",1]}"#, "invalid_field", Some("argv[1]")),
    (
        r#"{"command":"true","timeout":"soon"}"#,
        "invalid_field",
        Some("timeout"),
    ),
    (
        r#"{"command":"true","stream":"yes"}"#,
        "invalid_field",
        Some("stream"),
    ),
    (
        r#"{"command":"true","argv":["true"]}"#,
        "invalid_field",
        Some("argv"),
    ),
    (
        r#"{"command":"true","tasks":[]}"#,
        "invalid_field",
        Some("tasks"),
    ),
    ("{}", "missing_field", Some("command")),
    (r#"{"comand":"true"}"#, "unknown_field", Some("comand")),
    (r#"{"prompt":"hi"}"#, "unknown_field", Some("prompt")),
    (
        r#"{"tasks":[{"prompt":"hi"}]}"#,
        "unknown_field",
        Some("tasks[0].prompt"),
    ),
    (r#"{"command":""}"#, "invalid_field", Some("command")),
    (r#"{"command":" \n"}"#, "invalid_field", Some("command")),
    (r#"{"argv":[]}"#, "invalid_field", Some("argv")),
    (
        r#"{"command":"a\u0000b"}"#,
        "invalid_field",
        Some("command"),
    ),
    (
        r#"{"argv":["a","\u0000"]}"#,
        "invalid_field",
        Some("argv[1]"),
    ),
    (
        r#"{"command":"true","env":{"A":"\u0000"}}"#,
        "invalid_field",
        Some("env.A"),
    ),
    (
        r#"{"command":"true","env":{"A=B":""}}"#,
        "invalid_field",
        Some("env"),
    ),
    (
        r#"{"command":"true","execution_id":"a b"}"#,
        "invalid_field",
        Some("execution_id"),
    ),
    (
        r#"{"command":"true","execution_id":""}"#,
        "invalid_field",
        Some("execution_id"),
    ),
    (
        r#"{"command":"true","execution_id":"../x"}"#,
        "invalid_field",
        Some("execution_id"),
    ),
    (
        r#"{"command":"true","timeout":-1}"#,
        "invalid_field",
        Some("timeout"),
    ),
    (
        r#"{"command":"true","timeout":0}"#,
        "invalid_field",
        Some("timeout"),
    ),
    (
        r#"{"command":"true","timeout":1e300}"#,
        "invalid_field",
        Some("timeout"),
    ),
    (
        r#"{"command":"true","timeout":1e999}"#,
        "invalid_json",
        None,
    ),
    (r#"{"command":"true","timeout":NaN}"#, "invalid_json", None),
    (
        r#"{"command":"true","timeout":null,"stall_timeout":-5}"#,
        "invalid_field",
        Some("stall_timeout"),
    ),
    (
        r#"{"command":"true","priority":10}"#,
        "invalid_field",
        Some("priority"),
    ),
    (
        r#"{"command":"true","priority":99999999999999999999}"#,
        "invalid_field",
        Some("priority"),
    ),
    (
        r#"{"command":"true","delay":-1}"#,
        "invalid_field",
        Some("delay"),
    ),
    (
        r#"{"command":"true","queue":"a b"}"#,
        "invalid_field",
        Some("queue"),
    ),
    (
        r#"{"command":"true","cwd":"here"}"#,
        "invalid_field",
        Some("cwd"),
    ),
    (
        r#"{"command":"true","limits":{"output_bytes":-1}}"#,
        "invalid_field",
        Some("limits.output_bytes"),
    ),
    (
        r#"{"command":"true","limits":{"memory_bytes":1}}"#,
        "invalid_field",
        Some("limits.memory_bytes"),
    ),
    (
        r#"{"command":"true","limits":{"cpu_seconds":1.5}}"#,
        "invalid_field",
        Some("limits.cpu_seconds"),
    ),
    (
        r#"{"command":"true","limits":{"open_files":1}}"#,
        "invalid_field",
        Some("limits.open_files"),
    ),
    (
        r#"{"command":"true","on_output_limit":"x"}"#,
        "invalid_field",
        Some("on_output_limit"),
    ),
    (
        r#"{"command":"true","grace":-1}"#,
        "invalid_field",
        Some("grace"),
    ),
    (
        r#"{"command":"true","tty":{"rows":0}}"#,
        "invalid_field",
        Some("tty.rows"),
    ),
    (
        r#"{"command":"true","tty":true}"#,
        "invalid_field",
        Some("tty"),
    ),
    (
        r#"{"command":"true","tty":{"lines":24}}"#,
        "unknown_field",
        Some("tty.lines"),
    ),
    (
        r#"{"command":"true","wait":5}"#,
        "invalid_field",
        Some("wait"),
    ),
    (
        r#"{"command":"true","stream":false,"wait":-1}"#,
        "invalid_field",
        Some("wait"),
    ),
    (
        r#"{"command":"true","stop_on_failure":true}"#,
        "invalid_field",
        Some("stop_on_failure"),
    ),
];

async fn a_job_that_is_not_right_is_refused_and_its_field_is_named(site: Site) {
    let server = site.run().await;
    for &(body, code, field) in BAD_JOBS {
        let reply = execute(&server, body).await;
        let problem = reply.problem();
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(
            (problem.0.as_str(), problem.1.as_deref()),
            (code, field),
            "{body}"
        );
    }
    let deep = "[".repeat(100_000);
    assert_eq!(execute(&server, &deep).await.problem().0, "invalid_field");
    let large = json!({"command": "true", "stdin": "x".repeat(2 << 20)}).to_string();
    let reply = execute(&server, &large).await;
    assert_eq!(
        (reply.status, reply.problem().0.as_str()),
        (413, "body_too_large")
    );

    assert_eq!(
        server.get("/executions").await.json()["executions"],
        json!([])
    );
    assert_eq!(
        server.run(&json!({"command": "true"})).await.status(),
        "succeeded"
    );
}

async fn parameters_that_are_not_right_are_refused_and_named(site: Site) {
    let server = site.run().await;
    let log = server
        .run(&json!({"command": "true", "execution_id": "x"}))
        .await;
    assert_eq!(log.status(), "succeeded");
    for (path, field) in [
        ("/executions/x?after=yesterday", "after"),
        ("/executions/x?after=1-", "after"),
        ("/executions/x?after=-1-1", "after"),
        ("/executions/x?after=1-99999999999999999999", "after"),
        ("/executions/x?follow=perhaps", "follow"),
        ("/executions/x?aftr=0-1", "aftr"),
        ("/executions/x/output?stream=stdin", "stream"),
        ("/executions/a%20b", "execution_id"),
        ("/executions?limit=0", "limit"),
        ("/executions?limit=501", "limit"),
        ("/executions?status=fine", "status"),
        ("/executions?label=nothing", "label"),
        ("/executions?cursor=next", "cursor"),
    ] {
        let reply = server.get(path).await;
        let expected = ("invalid_field".to_owned(), Some(field.to_owned()));
        assert_eq!((reply.status, reply.problem()), (400, expected), "{path}");
    }
    for action in [json!({}), json!({"action": "explode"}), json!("cancel")] {
        let reply = server.post("/executions/x/control", &action).await;
        let expected = ("invalid_field".to_owned(), Some("action".to_owned()));
        assert_eq!((reply.status, reply.problem()), (400, expected), "{action}");
    }
    // A cursor beyond the end is one behind which nothing has come yet.
    let beyond = "/executions/x?follow=false&after=4294967295-18446744073709551615";
    let request = server.request(Method::GET, beyond);
    assert_eq!(Reply::of(request).await.body.as_ref(), b"");
}

async fn paths_and_methods_that_do_not_exist_are_refused(site: Site) {
    let server = site.run().await;
    for path in ["", "/status", "/results", "/output"] {
        let reply = server.get(&format!("/executions/unknown{path}")).await;
        assert_eq!(
            (reply.status, reply.problem().0.as_str()),
            (404, "unknown_execution")
        );
    }
    let reply = server.delete("/executions/unknown").await;
    assert_eq!(
        (reply.status, reply.problem().0.as_str()),
        (404, "unknown_execution")
    );
    let reply = server.get("/nowhere").await;
    assert_eq!(
        (reply.status, reply.problem().0.as_str()),
        (404, "unknown_path")
    );
    let reply = server.get("/execute").await;
    assert_eq!(
        (reply.status, reply.problem().0.as_str()),
        (405, "method_not_allowed")
    );
}

async fn execute(server: &Client, body: &str) -> Reply {
    let request = server.request(Method::POST, "/execute");
    Reply::of(
        request
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_owned()),
    )
    .await
}
