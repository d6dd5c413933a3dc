//! What runs when: priorities, delays, and queues of their own.

use harness::site::Site;
use serde_json::json;
use shared::time::Timestamp;

crate::on_both_engines!(
    the_urgent_goes_first_and_equals_keep_their_order,
    a_delayed_job_does_not_start_early,
);

async fn the_urgent_goes_first_and_equals_keep_their_order(site: Site) {
    let (gate, ran) = (site.path("gate"), site.path("ran"));
    let server = site.with(&[("CC_SLOTS", "1")]).run().await;
    let blocker = server.submit(&crate::waiting_at(&gate)).await;
    server.until(&blocker, "running").await;
    let note = format!("echo $CC_EXECUTION_ID >> {}", ran.display());
    for (id, priority) in [
        ("e", Some(0)),
        ("c", None),
        ("b", Some(6)),
        ("d", Some(5)),
        ("a", Some(9)),
    ] {
        let job = json!({"execution_id": id, "priority": priority, "command": note});
        server.submit(&job).await;
    }
    let queue = &server.get("/queues").await.json()["queues"][0];
    assert_eq!(
        (&queue["name"], &queue["ready"]),
        (&json!("default"), &json!(5))
    );
    crate::open(&gate);
    server.until("e", "succeeded").await;
    let ran = std::fs::read_to_string(ran).expect("they have run");
    assert_eq!(ran, "a\nb\nc\nd\ne\n");
    assert_eq!(server.get("/queues").await.json()["queues"], json!([]));
}

async fn a_delayed_job_does_not_start_early(site: Site) {
    let server = site.run().await;
    let mut stream = server
        .execute(&json!({"command": "true", "delay": 0.6}))
        .await;
    let submitted = stream.until_kind("queued").await;
    let queue = &server.get("/queues").await.json()["queues"][0];
    assert_eq!((&queue["ready"], &queue["delayed"]), (&json!(0), &json!(1)));
    let started = stream.until_kind("started").await;
    let at =
        |event: &harness::event::Event| event.text("ts").parse::<Timestamp>().expect("is a time");
    let waited = at(&started).ms_since(at(&submitted));
    assert!((600..2_500).contains(&waited), "{waited} ms");
}

#[tokio::test]
async fn a_worker_serves_the_queues_it_is_told_to() {
    let mut site = crate::on_redis();
    let api = site.api().await;
    let plain = api.submit(&json!({"command": "true"})).await;
    site.set("CC_QUEUES", "gpu,large");
    let _worker = site.worker("special").await;
    for queue in ["gpu", "large", "gpu"] {
        let log = api.run(&json!({"command": "true", "queue": queue})).await;
        assert_eq!(log.status(), "succeeded");
    }
    assert_eq!(api.snapshot(&plain).await["status"], "queued");
    let workers = api.get("/workers").await.json();
    assert_eq!(workers["workers"][0]["queues"], json!(["gpu", "large"]));

    site.set("CC_QUEUES", "*");
    let _worker = site.worker("general").await;
    assert_eq!(api.until(&plain, "succeeded").await["worker"], "general");
}
