//! Several tasks in one execution: one after the other, and each accounted for.

use harness::event::Log;
use harness::site::Site;
use serde_json::{Value, json};

crate::on_both_engines!(
    progress_is_told_while_tasks_run_and_results_afterwards,
    the_first_failure_leaves_out_the_rest,
    failures_may_be_gone_past,
    each_task_may_have_its_own_time,
    a_single_command_is_a_list_of_one,
);

async fn progress_is_told_while_tasks_run_and_results_afterwards(site: Site) {
    let gate = site.path("gate");
    let server = site.run().await;
    let tasks = json!([
        {"command": "echo one; echo warning >&2"},
        crate::waiting_at(&gate),
        {"argv": ["printf", "%s", "three"]},
    ]);
    let mut stream = server
        .execute(&json!({"tasks": tasks, "execution_id": "x"}))
        .await;
    let mut seen = stream
        .until(|event| event.kind() == "started" && event["task"] == 1)
        .await;
    let status = server.get("/executions/x/status").await.json();
    let current = format!("{} wait-for {}", crate::CHILD, gate.display());
    let expected = json!({
        "execution_id": "x", "status": "running",
        "progress": "1/3 tasks completed", "current_task": current,
    });
    assert_eq!(status, expected);
    let results = server.get("/executions/x/results").await.json();
    assert_eq!(
        (&results["total_tasks"], &results["completed_tasks"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(results["results"][0]["stdout"], "one\n");

    crate::open(&gate);
    seen.extend(stream.rest().await);
    let log = Log::new(seen);
    let ended: Vec<&Value> = log
        .of_kind("task_complete")
        .iter()
        .map(|event| &event["task"])
        .collect();
    assert_eq!(ended, [&json!(0), &json!(1), &json!(2)]);
    let of_task = |task| move |event: &&&harness::event::Event| event["task"] == task;
    let outputs = log.of_kind("output");
    assert_eq!(
        outputs
            .iter()
            .filter(of_task(2))
            .map(|event| event.text("data"))
            .collect::<String>(),
        "three"
    );

    let status = server.get("/executions/x/status").await.json();
    assert_eq!(status["progress"], "3/3 tasks completed");
    let results = server.get("/executions/x/results").await.json();
    assert_eq!(
        (&results["completed_tasks"], &results["failed_tasks"]),
        (&json!(3), &json!(0))
    );
    assert!(
        results["total_execution_time"]
            .as_f64()
            .is_some_and(|time| time > 0.0)
    );
    let first = &results["results"][0];
    assert_eq!(
        (&first["task_number"], &first["exit_code"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        (&first["stdout"], &first["stderr"]),
        (&json!("one\n"), &json!("warning\n"))
    );
    assert_eq!(first["task_description"], "echo one; echo warning >&2");
    assert!(first["execution_time"].is_number() && first["completed_at"].is_string());
    assert_eq!(results["results"][2]["stdout"], "three");
}

fn second_fails() -> Value {
    json!([{"command": "echo 1"}, {"command": "exit 7"}, {"command": "echo 3"}])
}

async fn the_first_failure_leaves_out_the_rest(site: Site) {
    let server = site.run().await;
    let log = server
        .run(&json!({"tasks": second_fails(), "execution_id": "x"}))
        .await;
    assert_eq!((log.status(), log.stdout()), ("failed", "1\n".to_owned()));
    assert_eq!(log.complete()["exit_code"], 7);
    let results = server.get("/executions/x/results").await.json();
    let counts = ["total_tasks", "completed_tasks", "failed_tasks"].map(|name| &results[name]);
    assert_eq!(counts, [&json!(3), &json!(1), &json!(1)]);
    assert_eq!(results["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(results["results"][1]["exit_code"], 7);
}

async fn failures_may_be_gone_past(site: Site) {
    let server = site.run().await;
    let job = json!({"tasks": second_fails(), "stop_on_failure": false, "execution_id": "x"});
    let log = server.run(&job).await;
    assert_eq!(
        (log.status(), log.stdout()),
        ("failed", "1\n3\n".to_owned())
    );
    assert_eq!(log.complete()["exit_code"], 7);
    let status = server.get("/executions/x/status").await.json();
    assert_eq!(status["progress"], "2/3 tasks completed");
}

async fn each_task_may_have_its_own_time(site: Site) {
    let server = site.run().await;
    let log = server
        .run(&json!({
            "tasks": [{"argv": [crate::CHILD, "sleep"]}, {"command": "echo on"}],
            "timeout_per_task": 0.2, "stop_on_failure": false,
        }))
        .await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("timed_out", Some("timed_out"))
    );
    assert_eq!(log.stdout(), "on\n");
    let ends: Vec<&str> = log
        .of_kind("task_complete")
        .iter()
        .map(|event| event.text("status"))
        .collect();
    assert_eq!(ends, ["timed_out", "succeeded"]);
    assert_eq!(log.of_kind("error")[0]["task"], 0);
}

async fn a_single_command_is_a_list_of_one(site: Site) {
    let server = site.run().await;
    server
        .run(&json!({"command": "echo hello; exit 3", "execution_id": "x"}))
        .await;
    let status = server.get("/executions/x/status").await.json();
    assert_eq!(
        (&status["status"], &status["progress"]),
        (&json!("failed"), &json!("0/1 tasks completed"))
    );
    let results = server.get("/executions/x/results").await.json();
    assert_eq!(
        (&results["total_tasks"], &results["failed_tasks"]),
        (&json!(1), &json!(1))
    );
    let only = &results["results"][0];
    assert_eq!(
        (&only["stdout"], &only["exit_code"]),
        (&json!("hello\n"), &json!(3))
    );
}
