//! What the clients that exist already do, to the letter.

use harness::client::Reply;
use harness::site::Site;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use serde_json::{Value, json};

crate::on_both_engines!(
    a_client_that_exists_gets_its_output_and_its_exit_code,
    the_same_post_attaches_and_another_job_of_that_id_is_refused,
    a_job_is_polled_from_queued_to_succeeded,
);

fn stress_test() -> Value {
    json!({
        "command": "echo \"Testing basic echo command\"",
        "timeout": 120,
        "stream": true,
        "execution_id": "SIMPLE_STRESS_TEST_20250630_214505_echo_test",
    })
}

async fn a_client_that_exists_gets_its_output_and_its_exit_code(site: Site) {
    let server = site.run().await;
    assert_eq!(server.get("/health").await.status, 200);
    let stream = server.execute(&stress_test()).await;
    assert_eq!(stream.header("content-type"), "application/x-ndjson");
    let log = stream.to_end().await;
    assert_eq!(log.kinds(), ["queued", "started", "output", "complete"]);
    assert!(log.stdout().contains("Testing basic echo command"));
    assert_eq!(log.complete()["exit_code"], 0);
}

async fn the_same_post_attaches_and_another_job_of_that_id_is_refused(site: Site) {
    let marker = site.path("marker");
    let server = site.run().await;
    let mut job = stress_test();
    job["command"] = json!(format!("echo once >> {0}; cat {0}", marker.display()));
    let first = server.run(&job).await;
    assert_eq!(server.run(&job).await, first);
    assert_eq!(first.stdout(), "once\n");

    job["command"] = json!("echo something else");
    let reply = server.post("/execute", &job).await;
    assert_eq!(
        (reply.status, reply.problem().0),
        (409, "id_in_use".to_owned())
    );
}

async fn a_job_is_polled_from_queued_to_succeeded(site: Site) {
    let gate = site.path("gate");
    let server = site.run().await;
    let job = json!({"argv": [crate::CHILD, "wait-for", gate], "delay": 0.3, "stream": false});
    let accepted = server.post("/execute", &job).await;
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.json()["status"], "queued");
    let place = accepted.header("location").to_owned();

    let queued = server.get(&place).await;
    assert_eq!(queued.header("etag"), accepted.header("etag"));
    assert_eq!(if_changed(&server, &place, &queued).await.status, 304);
    let id = accepted.json()["execution_id"].as_str().map(str::to_owned);
    let id = id.expect("a snapshot has an id");
    assert_eq!(server.until(&id, "running").await["attempt"], 1);
    let running = if_changed(&server, &place, &queued).await;
    assert_eq!(
        (running.status, &running.json()["status"]),
        (200, &json!("running"))
    );

    std::fs::write(gate, "").expect("the gate opens");
    let ended = server.until(&id, "succeeded").await;
    assert_eq!(ended["exit_code"], 0);
    assert_eq!(if_changed(&server, &place, &running).await.status, 200);
}

async fn if_changed(server: &harness::client::Client, place: &str, seen: &Reply) -> Reply {
    let request = server.request(Method::GET, place);
    let request = request.header("accept", "application/json");
    Reply::of(request.header(IF_NONE_MATCH, seen.header("etag"))).await
}
