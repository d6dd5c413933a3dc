//! Submitting and waiting, and submitting again after a reply got lost.

use harness::client::{Client, Reply};
use harness::site::Site;
use reqwest::Method;
use serde_json::{Value, json};

crate::on_both_engines!(
    a_short_job_is_answered_with_its_result,
    a_long_job_is_answered_when_the_time_is_up,
    an_idempotency_key_stands_for_one_execution,
    a_job_submitted_by_many_at_once_runs_once,
);

async fn a_short_job_is_answered_with_its_result(site: Site) {
    let server = site.run().await;
    let job =
        json!({"command": "echo out; printf '\\377' >&2; exit 4", "stream": false, "wait": 20});
    let reply = server.post("/execute", &job).await;
    let body = reply.json();
    assert_eq!(
        (reply.status, &body["status"], &body["exit_code"]),
        (200, &json!("failed"), &json!(4))
    );
    assert_eq!(
        (&body["stdout"], &body["stdout_encoding"]),
        (&json!("out\n"), &json!(null))
    );
    assert_eq!(
        (&body["stderr"], &body["stderr_encoding"]),
        (&json!("/w=="), &json!("base64"))
    );
    assert_eq!(body["output_cut"], false);
}

async fn a_long_job_is_answered_when_the_time_is_up(site: Site) {
    let gate = site.path("gate");
    let server = site.run().await;
    let mut job = crate::waiting_at(&gate);
    job["stream"] = json!(false);
    job["wait"] = json!(0.2);
    job["execution_id"] = json!("x");
    let reply = server.post("/execute", &job).await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (202, "/executions/x")
    );
    crate::open(&gate);
    job["wait"] = json!(20);
    assert_eq!(server.post("/execute", &job).await.status, 200);
}

async fn an_idempotency_key_stands_for_one_execution(site: Site) {
    let server = site.run().await;
    let job = json!({"command": "true", "stream": false});
    let first = with_key(&server, &job, "order 66").await;
    assert_eq!(first.status, 202);
    let id = first.json()["execution_id"].clone();
    assert_eq!(
        with_key(&server, &job, "order 66").await.json()["execution_id"],
        id
    );
    assert_ne!(
        with_key(&server, &job, "order 67").await.json()["execution_id"],
        id
    );
    let other = json!({"command": "false", "stream": false});
    let reply = with_key(&server, &other, "order 66").await;
    assert_eq!(
        (reply.status, reply.problem().0.as_str()),
        (409, "id_in_use")
    );
    let both = json!({"command": "true", "stream": false, "execution_id": "x"});
    for (job, key) in [
        (&both, "order 66"),
        (&job, ""),
        (&job, "x".repeat(256).as_str()),
    ] {
        let reply = with_key(&server, job, key).await;
        let field = Some("Idempotency-Key".to_owned());
        assert_eq!((reply.status, reply.problem().1), (400, field));
    }
}

async fn with_key(server: &Client, job: &Value, key: &str) -> Reply {
    let request = server.request(Method::POST, "/execute").json(job);
    Reply::of(request.header("Idempotency-Key", key)).await
}

async fn a_job_submitted_by_many_at_once_runs_once(site: Site) {
    let ran = site.path("ran");
    let server = site.run().await;
    let command = format!("echo $$ >> {}; sleep 0.1", ran.display());
    let job = json!({"command": command, "execution_id": "x"});
    let logs = futures_util::future::join_all((0..20).map(|_| server.run(&job))).await;
    assert!(logs.iter().all(|log| *log == logs[0]));
    let ran = std::fs::read_to_string(ran).expect("it has run");
    assert_eq!(ran.lines().count(), 1);
}
