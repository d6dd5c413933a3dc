//! Minutes of everything at once, to see that nothing grows: `make soak`, for `CC_SOAK_SECONDS` (600).
//!
//! Jobs of all kinds run, end badly, are cancelled and paused; readers come and go. Memory, descriptors, processes, keys
//! and files are counted after the first tenth of the time and at its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::dice::Dice;
use harness::process::children_named;
use harness::site::{Programs, Running, Site};
use serde_json::{Value, json};
use shared::config::Source;
use tokio::task::JoinSet;

const PROGRAMS: Programs = Programs {
    api: env!("CARGO_BIN_EXE_test-api"),
    worker: env!("CARGO_BIN_EXE_test-worker"),
    cli: env!("CARGO_BIN_EXE_test-cli"),
};
const CHILD: &str = env!("CARGO_BIN_EXE_child");
const CLIENTS: u64 = 8;
/// What memory may be more by, for caches and buffers that are reached late.
const SLACK_KIB: u64 = 8 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak"]
async fn nothing_grows() {
    let environment = Source::environment();
    let seconds = environment
        .get("CC_SOAK_SECONDS")
        .and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(600));
    let settings = [
        ("CC_SLOTS", "4"),
        ("CC_GRACE", "0.1"),
        ("CC_DRAIN_GRACE", "0.1"),
        // So that the sweep, every 30 s, keeps as many as a few minutes bring.
        ("CC_RETENTION", "20"),
    ];
    let site = Site::on_redis(PROGRAMS).with(&settings);
    let server = Arc::new(site.run().await);
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&server), begun + length));
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    tokio::time::sleep(length / 5).await;
    let early = count(&server);
    println!("after {:?}: {early:#?}", begun.elapsed());
    let mut jobs = 0;
    while let Some(client) = clients.join_next().await {
        jobs += client.expect("ends well");
    }
    // Until the sweep has been, and Redis has let go.
    tokio::time::sleep(Duration::from_secs(55)).await;
    let late = count(&server);
    println!("after {:?} and {jobs} jobs: {late:#?}", begun.elapsed());
    assert!(jobs > length.as_secs() * 10, "only {jobs} jobs");
    for (what, now) in &late {
        let before = early.get(what).copied().unwrap_or(0);
        let slack = if what.ends_with("KiB") { SLACK_KIB } else { 4 };
        assert!(*now <= before + slack, "{what}: {before} became {now}");
    }
}

/// One client after the other; how many jobs they had.
async fn client(server: Arc<Running>, until: Instant) -> u64 {
    let mut dice = Dice::new();
    let mut jobs = 0;
    while Instant::now() < until {
        jobs += 1;
        let mut job = JOBS[usize::try_from(dice.roll(0..=JOBS.len() as u64 - 1)).unwrap_or(0)]();
        let id = shared::id::ExecutionId::generate().to_string();
        job["execution_id"] = json!(id);
        let mut stream = server.execute(&job).await;
        match dice.roll(0..=9) {
            // Leaves; the job goes on.
            0 => {}
            1 | 2 => {
                tokio::time::sleep(Duration::from_millis(dice.roll(0..=40))).await;
                server.delete(&format!("/executions/{id}")).await;
                stream.rest().await;
            }
            3 => {
                for action in ["pause", "resume"] {
                    tokio::time::sleep(Duration::from_millis(dice.roll(0..=20))).await;
                    let control = json!({"action": action});
                    server
                        .post(&format!("/executions/{id}/control"), &control)
                        .await;
                }
                stream.rest().await;
            }
            _ => {
                stream.rest().await;
            }
        }
    }
    jobs
}

/// The kinds of jobs.
const JOBS: [fn() -> Value; 10] = [
    || json!({"command": "echo hello"}),
    || json!({"command": "echo out; echo err >&2; exit 3"}),
    || json!({"argv": ["no-such-program"]}),
    || json!({"argv": [CHILD, "lines", "200", "0"]}),
    || json!({"command": format!("setsid -f {CHILD} ignore-term x > /dev/null 2>&1; echo left one")}),
    || json!({"argv": [CHILD, "hold-stdout"]}),
    || json!({"argv": [CHILD, "ignore-term"], "timeout": 0.05}),
    || json!({"command": "yes", "limits": {"output_bytes": 100_000}, "on_output_limit": "kill"}),
    || json!({"command": "for i in 1 2 3 4 5; do sleep 5 & done; wait", "limits": {"processes": 3}}),
    || json!({"command": "stty size; cat", "tty": {}, "stdin": "typed\n"}),
];

/// Everything that could grow.
fn count(server: &Running) -> BTreeMap<String, u64> {
    let worker = server.worker.as_ref().expect("there is one on redis").pid();
    let guardian = children_named(worker, "cc-executor-guardian")[0];
    let shims = children_named(guardian, "cc-executor-guardian");
    let mut counts = BTreeMap::new();
    let api = server.server.pid();
    let mut processes = vec![("api", api), ("worker", worker), ("guardian", guardian)];
    processes.extend(shims.first().map(|&shim| ("shim", shim)));
    for (name, pid) in processes {
        counts.insert(format!("{name} KiB"), resident_kib(pid));
        counts.insert(
            format!("{name} descriptors"),
            entries(format!("/proc/{pid}/fd")),
        );
        counts.insert(
            format!("{name} threads"),
            entries(format!("/proc/{pid}/task")),
        );
    }
    counts.insert("shims".to_owned(), shims.len() as u64);
    let of_shims = shims
        .iter()
        .map(|&shim| children_named(shim, "").len() as u64);
    // Zombies are children as well.
    counts.insert("processes of jobs".to_owned(), of_shims.sum());
    let workspaces = std::fs::read_dir(server.site.workspaces()).expect("is there");
    let workspaces = workspaces.flatten().map(|worker| entries(worker.path()));
    counts.insert("workspaces".to_owned(), workspaces.sum());
    counts.insert("keys".to_owned(), server.site.keys().len() as u64);
    counts
}

fn entries(path: impl AsRef<Path>) -> u64 {
    std::fs::read_dir(path).map_or(0, |entries| entries.count() as u64)
}

fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0)
}
