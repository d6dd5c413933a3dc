//! The end of an execution is the end of everything it has started, whatever that does to get away.
//!
//! Every test runs with a cgroup, where one can be made, and without. Processes carry a mark in their command line, and
//! once `complete` has been read, nobody who carries it is left.

use std::time::Duration;

use harness::event::Log;
use harness::process::{children_named, is_alive, with_word};
use harness::site::{Running, Site};
use harness::wait::eventually;
use serde_json::{Value, json};

/// How long the death of a worker, or of what guards its jobs, may take to reach them.
const SOON: Duration = Duration::from_secs(5);

/// Makes a test of each way of finding the processes of a job out of a function that takes a server.
macro_rules! on_both_mechanisms {
    ($($name:ident),+ $(,)?) => {
        mod cgroup {
            $(#[tokio::test]
            async fn $name() {
                let server = super::server("auto").await;
                if !server.worker_log().contains("cgroup.kill") {
                    eprintln!("SKIPPED: no cgroup can be made here");
                    return;
                }
                super::$name(server).await;
            })+
        }
        mod subreaper {
            $(#[tokio::test]
            async fn $name() {
                let server = super::server("off").await;
                assert!(!server.worker_log().contains("cgroup.kill"));
                super::$name(server).await;
            })+
        }
    };
}

on_both_mechanisms!(
    what_ignores_sigterm_ends,
    a_daemon_in_a_session_of_its_own_ends,
    what_forked_twice_ends,
    who_is_left_is_asked_before_it_is_killed,
    a_daemon_without_an_environment_ends,
    what_keeps_forking_ends,
    a_fork_bomb_ends_at_the_limit_of_processes,
    a_grandchild_that_holds_the_output_open_ends_after_the_drain_grace,
    what_closes_its_output_and_runs_on_is_waited_for,
    what_is_in_the_pipe_when_a_process_exits_is_kept,
    half_a_character_before_a_death_is_kept,
    what_has_stopped_itself_ends,
    a_parent_of_zombies_ends_with_them,
    a_thousand_short_children_leave_nothing,
    a_daemon_of_a_job_that_succeeds_ends,
    a_job_after_one_whose_remains_were_killed_runs_well,
    a_paused_job_stands_still_and_goes_on,
    a_paused_job_can_be_cancelled,
    the_processes_of_a_worker_that_dies_end_with_it,
    the_processes_of_a_guardian_that_dies_end_with_it,
    shims_need_no_worker_to_see_that_the_guardian_is_dead,
    the_processes_of_a_shim_that_dies_end_with_it,
    the_death_of_worker_and_guardian_together_leaves_nothing,
    the_death_of_guardian_and_shim_together_leaves_nothing,
    the_death_of_worker_and_shim_together_leaves_nothing,
);

/// A site whose worker does what the tests say about cgroups.
struct Server(Running);

impl std::ops::Deref for Server {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.0
    }
}

async fn server(cgroup: &str) -> Server {
    let settings = [
        ("CC_CGROUP", cgroup),
        ("CC_GRACE", "0.3"),
        ("CC_DRAIN_GRACE", "0.3"),
        ("CC_LEASE", "2"),
    ];
    Server(crate::on_redis().with(&settings).run().await)
}

impl Server {
    fn worker_log(&self) -> String {
        self.worker.as_ref().expect("there is one on redis").log()
    }

    fn worker_pid(&self) -> i32 {
        self.worker.as_ref().expect("there is one on redis").pid()
    }

    fn guardian(&self) -> i32 {
        let guardians = children_named(self.worker_pid(), "cc-executor-guardian");
        assert_eq!(guardians.len(), 1, "{guardians:?}");
        guardians[0]
    }

    /// The shim of the only job there is.
    fn shim(&self) -> i32 {
        let shims = children_named(self.guardian(), "cc-executor-guardian");
        assert_eq!(shims.len(), 1, "{shims:?}");
        shims[0]
    }
}

/// A command that runs `script` with `$1` the scripted child and `$2` the mark.
fn job(mark: &str, script: &str) -> Value {
    json!({"argv": ["/bin/sh", "-c", script, "sh", crate::CHILD, mark], "execution_id": mark})
}

/// A mark that no other test has.
fn mark() -> String {
    shared::id::ExecutionId::generate().to_string()
}

/// Nobody who carries the mark is left.
fn assert_gone(mark: &str) {
    let left = with_word(mark);
    assert!(left.is_empty(), "left: {left:?}");
}

/// Runs a job until it says that it is ready, cancels it, and sees that nothing is left.
async fn cancel(server: &Server, script: &str) -> Log {
    let mark = mark();
    let mut stream = server.execute(&job(&mark, script)).await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    assert!(!with_word(&mark).is_empty());
    server.delete(&format!("/executions/{mark}")).await;
    seen.extend(stream.rest().await);
    assert_gone(&mark);
    let log = Log::new(seen);
    assert_eq!(log.status(), "cancelled");
    log
}

async fn what_ignores_sigterm_ends(server: Server) {
    let log = cancel(&server, r#"exec "$1" ignore-term "$2""#).await;
    assert_eq!(log.complete()["signal"], "SIGKILL");
    assert_eq!(log.complete()["reaped"], 0);
}

async fn a_daemon_in_a_session_of_its_own_ends(server: Server) {
    let script = r#"setsid -f "$1" ignore-term "$2" > /dev/null; echo ready; exec "$1" sleep "$2""#;
    let log = cancel(&server, script).await;
    assert_eq!(log.complete()["reaped"], 1);
}

async fn what_forked_twice_ends(server: Server) {
    let script =
        r#"( ( setsid "$1" sleep "$2" > /dev/null & ) & ); echo ready; exec "$1" sleep "$2""#;
    cancel(&server, script).await;
}

async fn who_is_left_is_asked_before_it_is_killed(server: Server) {
    for _ in 0..20 {
        let mark = mark();
        let mut job = job(&mark, r#"setsid -f "$1" nest 4 "$2"; exec "$1" sleep "$2""#);
        // Nobody waits for as long as this: they all listen.
        job["grace"] = json!(120);
        let mut stream = server.execute(&job).await;
        let mut seen = stream.until(|event| event.kind() == "output").await;
        server.delete(&format!("/executions/{mark}")).await;
        seen.extend(stream.rest().await);
        assert_gone(&mark);
        let log = Log::new(seen);
        assert_eq!(
            (log.status(), &log.complete()["reaped"]),
            ("cancelled", &json!(5))
        );
    }
}

async fn a_daemon_without_an_environment_ends(server: Server) {
    let script =
        r#"env -i setsid -f "$1" ignore-term "$2" > /dev/null; echo ready; exec "$1" sleep "$2""#;
    let log = cancel(&server, script).await;
    assert_eq!(log.complete()["reaped"], 1);
}

async fn what_keeps_forking_ends(server: Server) {
    let script = r#""$1" forks "$2" & echo ready; sleep 0.3; wait"#;
    cancel(&server, script).await;
}

async fn a_fork_bomb_ends_at_the_limit_of_processes(server: Server) {
    let mark = mark();
    let mut job = job(
        &mark,
        r#"bomb() { bomb | bomb & }; bomb; exec "$1" sleep "$2""#,
    );
    job["limits"] = json!({"processes": 100});
    let log = server.run(&job).await;
    assert_gone(&mark);
    assert_eq!(
        (log.status(), log.error_code()),
        ("failed", Some("process_limit"))
    );
}

async fn a_grandchild_that_holds_the_output_open_ends_after_the_drain_grace(server: Server) {
    let mark = mark();
    let script = r#"(echo early; sleep 0.1; echo late; exec "$1" ignore-term "$2") & exit 7"#;
    let log = server.run(&job(&mark, script)).await;
    assert_gone(&mark);
    assert_eq!(
        (log.status(), &log.complete()["exit_code"]),
        ("failed", &json!(7))
    );
    assert_eq!(log.stdout(), "early\nlate\nready\n");
    let reaped = log.complete()["reaped"].as_u64();
    assert!(
        reaped >= Some(1),
        "a shell, and perhaps its sleep: {reaped:?}"
    );
}

async fn what_closes_its_output_and_runs_on_is_waited_for(server: Server) {
    let log = server
        .run(&job(&mark(), "exec >&- 2>&-; sleep 0.6; exit 3"))
        .await;
    assert_eq!(
        (log.status(), &log.complete()["exit_code"]),
        ("failed", &json!(3))
    );
}

async fn what_is_in_the_pipe_when_a_process_exits_is_kept(server: Server) {
    let log = server
        .run(&job(&mark(), r#"exec "$1" write-once 307200"#))
        .await;
    assert_eq!((log.status(), log.stdout().len()), ("succeeded", 307_200));
}

async fn half_a_character_before_a_death_is_kept(server: Server) {
    let log = server
        .run(&job(&mark(), r"printf 'a\305'; kill -9 $$"))
        .await;
    assert_eq!(
        (log.status(), log.output("stdout")),
        ("failed", b"a\xc5".to_vec())
    );
}

async fn what_has_stopped_itself_ends(server: Server) {
    let mark = mark();
    let mut job = job(
        &mark,
        "trap 'echo tidied; exit 0' TERM; echo ready; kill -STOP $$; sleep 60",
    );
    job["timeout"] = json!(0.3);
    let log = server.run(&job).await;
    assert_gone(&mark);
    assert_eq!(
        (log.status(), log.stdout()),
        ("timed_out", "ready\ntidied\n".to_owned())
    );
}

async fn a_parent_of_zombies_ends_with_them(server: Server) {
    cancel(&server, r#"exec "$1" zombies 50 "$2""#).await;
    let shims = children_named(server.guardian(), "cc-executor-guardian");
    for shim in shims {
        let left = children_named(shim, "");
        assert!(left.is_empty(), "{left:?}");
    }
}

async fn a_thousand_short_children_leave_nothing(server: Server) {
    let script = "i=0; while [ $i -lt 1000 ]; do true & i=$((i+1)); done; echo done";
    let log = server.run(&job(&mark(), script)).await;
    assert_eq!(
        (log.status(), log.stdout()),
        ("succeeded", "done\n".to_owned())
    );
    assert!(children_named(server.shim(), "").is_empty());
}

async fn a_daemon_of_a_job_that_succeeds_ends(server: Server) {
    let mark = mark();
    let script = r#"setsid -f "$1" ignore-term "$2" > /dev/null 2>&1; echo done"#;
    let log = server.run(&job(&mark, script)).await;
    assert_gone(&mark);
    assert_eq!(
        (log.status(), &log.complete()["reaped"]),
        ("succeeded", &json!(1))
    );
}

async fn a_job_after_one_whose_remains_were_killed_runs_well(server: Server) {
    for _ in 0..3 {
        let script = r#"setsid -f "$1" ignore-term "$2" > /dev/null 2>&1; echo done"#;
        let log = server.run(&job(&mark(), script)).await;
        assert_eq!(
            (log.status(), &log.complete()["reaped"]),
            ("succeeded", &json!(1))
        );
        server.shim();
    }
}

async fn control(server: &Server, id: &str, action: &str) -> (u16, Value) {
    let path = format!("/executions/{id}/control");
    let reply = server.post(&path, &json!({"action": action})).await;
    (reply.status, reply.json())
}

/// How many bytes the job has been seen to print.
async fn printed(server: &Server, id: &str) -> usize {
    let path = format!("/executions/{id}/output?stream=stdout");
    server.get(&path).await.body.len()
}

async fn a_paused_job_stands_still_and_goes_on(server: Server) {
    let id = mark();
    let mut job = job(&id, r#"setsid "$1" lines 40 25"#);
    job["timeout"] = json!(2);
    let mut stream = server.execute(&job).await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    for _ in 0..2 {
        let (status, snapshot) = control(&server, &id, "pause").await;
        assert_eq!((status, &snapshot["paused"]), (202, &json!(true)));
    }
    seen.extend(stream.until(|event| event.kind() == "paused").await);
    // What it had written before is on its way for a moment.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = printed(&server, &id).await;
    // Longer than its timeout and its lease: neither notices.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(printed(&server, &id).await, before);
    for _ in 0..2 {
        let (status, snapshot) = control(&server, &id, "resume").await;
        assert_eq!((status, &snapshot["paused"]), (202, &json!(false)));
    }
    seen.extend(stream.rest().await);
    let log = Log::new(seen);
    assert_eq!(log.status(), "succeeded");
    log.assert_lines(40);
    assert_eq!(log.of_kind("paused").len(), 1);
    assert_eq!(log.of_kind("resumed").len(), 1);
    assert_eq!(control(&server, &id, "pause").await.0, 409);
}

async fn a_paused_job_can_be_cancelled(server: Server) {
    let id = mark();
    let script = r#"trap 'echo tidied; exit 0' TERM; echo ready; "$1" sleep "$2" & wait"#;
    let mut stream = server.execute(&job(&id, script)).await;
    let mut seen = stream.until(|event| event.kind() == "output").await;
    control(&server, &id, "pause").await;
    seen.extend(stream.until(|event| event.kind() == "paused").await);
    server.delete(&format!("/executions/{id}")).await;
    seen.extend(stream.rest().await);
    assert_gone(&id);
    let log = Log::new(seen);
    assert_eq!(
        (log.status(), log.stdout()),
        ("cancelled", "ready\ntidied\n".to_owned())
    );
}

/// A job with a daemon that is hard to find, once it is there.
async fn hidden_family(server: &Server) -> String {
    let mark = mark();
    let script =
        r#"env -i setsid -f "$1" ignore-term "$2" > /dev/null; "$1" ignore-term "$2" & wait"#;
    let mut stream = server.execute(&job(&mark, script)).await;
    stream.until_kind("output").await;
    assert!(
        with_word(&mark).len() >= 3,
        "the shell and both of its children"
    );
    mark
}

fn kill9(pids: &[i32]) {
    for &pid in pids {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    }
}

async fn gone_soon(mark: &str) {
    eventually(SOON, "all its processes are gone", async || {
        with_word(mark).is_empty().then_some(())
    })
    .await;
}

async fn the_processes_of_a_worker_that_dies_end_with_it(server: Server) {
    let mark = hidden_family(&server).await;
    let (guardian, shim) = (server.guardian(), server.shim());
    kill9(&[server.worker_pid()]);
    gone_soon(&mark).await;
    eventually(SOON, "those who guarded it go too", async || {
        (!is_alive(guardian) && !is_alive(shim)).then_some(())
    })
    .await;
    let workspaces = std::fs::read_dir(server.site.workspaces()).expect("is there");
    for worker in workspaces.flatten() {
        let left = std::fs::read_dir(worker.path()).expect("is there").count();
        assert_eq!(left, 0, "its working directory is gone as well");
    }
}

async fn the_processes_of_a_guardian_that_dies_end_with_it(server: Server) {
    let mark = hidden_family(&server).await;
    kill9(&[server.guardian()]);
    gone_soon(&mark).await;
    let log = server.log(&mark).await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("lost", Some("guardian_lost"))
    );
    assert_eq!(
        server.run(&json!({"command": "true"})).await.status(),
        "succeeded"
    );
}

async fn shims_need_no_worker_to_see_that_the_guardian_is_dead(mut server: Server) {
    let mark = hidden_family(&server).await;
    let guardian = server.guardian();
    let worker = server.0.worker.as_mut().expect("there is one on redis");
    worker.suspend();
    kill9(&[guardian]);
    gone_soon(&mark).await;
    worker.resume();
    let log = server.log(&mark).await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("lost", Some("guardian_lost"))
    );
}

async fn the_processes_of_a_shim_that_dies_end_with_it(server: Server) {
    let mark = hidden_family(&server).await;
    kill9(&[server.shim()]);
    gone_soon(&mark).await;
    let log = server.log(&mark).await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("lost", Some("guardian_lost"))
    );
    assert_eq!(
        server.run(&json!({"command": "true"})).await.status(),
        "succeeded"
    );
}

async fn the_death_of_worker_and_guardian_together_leaves_nothing(server: Server) {
    let mark = hidden_family(&server).await;
    kill9(&[server.guardian(), server.worker_pid()]);
    gone_soon(&mark).await;
}

async fn the_death_of_guardian_and_shim_together_leaves_nothing(server: Server) {
    let mark = hidden_family(&server).await;
    kill9(&[server.shim(), server.guardian()]);
    gone_soon(&mark).await;
    assert_eq!(
        server.run(&json!({"command": "true"})).await.status(),
        "succeeded"
    );
}

async fn the_death_of_worker_and_shim_together_leaves_nothing(server: Server) {
    let mark = hidden_family(&server).await;
    kill9(&[server.worker_pid(), server.shim()]);
    gone_soon(&mark).await;
}

crate::on_both_engines!(everything_in_the_process_group_ends_with_a_timeout);

async fn everything_in_the_process_group_ends_with_a_timeout(site: Site) {
    let server = site.with(&[("CC_GRACE", "0.2")]).run().await;
    let mark = mark();
    let mut job = job(&mark, r#""$1" ignore-term "$2" > /dev/null & wait"#);
    job["timeout"] = json!(0.3);
    let log = server.run(&job).await;
    assert_gone(&mark);
    assert_eq!(log.status(), "timed_out");
}
