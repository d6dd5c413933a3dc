//! Claude Code runs each tool in a session of its own, where no signal to its own group arrives. The end of
//! the execution ends the tool all the same.

use std::path::PathBuf;
use std::time::Duration;

use harness::claude::{Claude, Stub, bash_tool, marked, text};
use harness::event::Log;
use harness::process::with_word;
use harness::site::Running;
use harness::wait::eventually;
use serde_json::{Value, json};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(5);
/// It takes two seconds on a machine that does nothing else.
const START: Duration = Duration::from_mins(1);

/// With a cgroup for each job, where one can be made, and without.
const CGROUPS: [&str; 2] = ["auto", "off"];

/// Makes a test with each version out of a function that takes an installed one.
macro_rules! with_both_versions {
    ($($name:ident),+ $(,)?) => {
        mod newest {
            $(#[tokio::test]
            async fn $name() {
                if let Some(claude) = super::Claude::installed(harness::claude::Version::Newest) {
                    super::$name(claude).await;
                }
            })+
        }
        mod under_node {
            $(#[tokio::test]
            async fn $name() {
                if let Some(claude) = super::Claude::installed(harness::claude::Version::UnderNode) {
                    super::$name(claude).await;
                }
            })+
        }
    };
}

with_both_versions!(
    an_answer_is_a_success_with_a_result,
    cancelling_ends_the_tool_too,
    the_death_of_the_worker_ends_the_tool_too,
    a_timeout_ends_the_tool_too,
);

/// Claude Code at work on a tool that never ends.
struct Scene {
    server: Running,
    job: Value,
    mark: String,
    /// The last word of the tool.
    file: PathBuf,
    _stub: Stub,
}

impl Scene {
    async fn set(claude: &Claude, cgroup: &str) -> Self {
        let site = crate::on_redis().with(&[("CC_CGROUP", cgroup)]);
        let mark = Uuid::now_v7().to_string();
        let file = site.path(&mark);
        std::fs::write(&file, "").expect("is written");
        let tool = format!("tail -f /dev/null {}", file.display());
        let stub = Stub::answering([bash_tool(tool), text("The tool has ended.")]);
        let job = claude.job(&site, &stub, "Use the tool.", &mark);
        Self {
            server: site.run().await,
            job,
            mark,
            file,
            _stub: stub,
        }
    }

    /// Submits the job and waits until the tool runs.
    async fn begin(&self) -> String {
        let id = self.server.submit(&self.job).await;
        if !self.reaches_the_tool(&id).await {
            let log = self.server.log(&id).await;
            panic!("the tool never runs: {:?}", log.events());
        }
        id
    }

    /// Waits until the tool runs; false if the job ends before that.
    async fn reaches_the_tool(&self, id: &str) -> bool {
        eventually(START, "the tool runs or the job ends", async || {
            if !self.tool().is_empty() {
                assert!(marked(&self.mark).len() >= 2, "the program and its tool");
                return Some(true);
            }
            let snapshot = self.server.snapshot(id).await;
            (!snapshot["ended_at"].is_null()).then_some(false)
        })
        .await
    }

    /// How long the program takes to reach the tool depends on what else the machine does: if it had not enough
    /// time, it gets more.
    async fn time_out_at_the_tool(&mut self) {
        for seconds in [3, 6, 12, 24] {
            self.job["timeout"] = json!(seconds);
            let id = self.server.submit(&self.job).await;
            let reached_the_tool = self.reaches_the_tool(&id).await;
            assert_eq!(self.server.log(&id).await.status(), "timed_out");
            self.nothing_is_left().await;
            if reached_the_tool {
                return;
            }
        }
        panic!("the tool never runs");
    }

    fn tool(&self) -> Vec<i32> {
        with_word(&self.file.to_string_lossy())
    }

    async fn nothing_is_left(&self) {
        eventually(SOON, "neither program nor tool is left", async || {
            (marked(&self.mark).is_empty() && self.tool().is_empty()).then_some(())
        })
        .await;
    }
}

async fn an_answer_is_a_success_with_a_result(claude: Claude) {
    let site = crate::on_redis();
    let stub = Stub::answering([bash_tool("echo from-the-tool"), text("It is 4.")]);
    let mark = Uuid::now_v7().to_string();
    let job = claude.job(&site, &stub, "What is 2+2?", &mark);
    let server = site.run().await;
    let log = server.run(&job).await;
    assert_eq!(log.status(), "succeeded", "{:?}", log.events());
    let result = result_of(&log);
    assert_eq!(
        (&result["is_error"], &result["result"]),
        (&json!(false), &json!("It is 4."))
    );
    let asked = stub.conversation();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].body.to_string().contains("What is 2+2?"));
    assert!(asked[1].body.to_string().contains("from-the-tool"));
    assert_eq!(marked(&mark), [] as [i32; 0]);
}

async fn cancelling_ends_the_tool_too(claude: Claude) {
    for cgroup in CGROUPS {
        let mut scene = Scene::set(&claude, cgroup).await;
        // Nobody waits for as long as this: both listen, the CLI and, once it is asked, its tool.
        scene.job["grace"] = json!(120);
        let id = scene.begin().await;
        let reply = scene.server.delete(&format!("/executions/{id}")).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        assert_eq!(scene.server.log(&id).await.status(), "cancelled");
        scene.nothing_is_left().await;
    }
}

async fn the_death_of_the_worker_ends_the_tool_too(claude: Claude) {
    for cgroup in CGROUPS {
        let mut scene = Scene::set(&claude, cgroup).await;
        scene.begin().await;
        let worker = scene.server.worker.as_mut();
        worker.expect("there is one on redis").kill9();
        scene.nothing_is_left().await;
    }
}

async fn a_timeout_ends_the_tool_too(claude: Claude) {
    for cgroup in CGROUPS {
        let mut scene = Scene::set(&claude, cgroup).await;
        scene.time_out_at_the_tool().await;
    }
}

/// The line that says how it went.
fn result_of(log: &Log) -> Value {
    let stdout = log.stdout();
    let lines = stdout.lines().map(serde_json::from_str::<Value>);
    let mut lines = lines.map(|line| line.expect("every line is JSON"));
    let result = lines.find(|line| line["type"] == "result");
    result.expect("there is a result")
}
