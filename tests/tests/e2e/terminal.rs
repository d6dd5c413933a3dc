//! Jobs on a terminal.

use harness::site::Site;
use serde_json::json;

crate::on_both_engines!(
    a_job_on_a_terminal_finds_one_of_its_size,
    without_one_there_is_none,
    what_is_typed_arrives_and_ends,
    a_shell_on_a_terminal_ends_with_everything_it_runs,
);

async fn a_job_on_a_terminal_finds_one_of_its_size(site: Site) {
    let server = site.run().await;
    let command = "test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM && echo err >&2; echo tty > /dev/tty";
    let log = server
        .run(&json!({"command": command, "tty": {"rows": 33, "cols": 101}}))
        .await;
    assert_eq!(log.status(), "succeeded");
    assert_eq!(log.stdout(), "33 101\r\nxterm-256color\r\nerr\r\ntty\r\n");
    assert_eq!(log.output("stderr"), b"");
}

async fn without_one_there_is_none(site: Site) {
    let server = site.run().await;
    let log = server
        .run(&json!({"command": "test -t 1 || (: < /dev/tty) 2>/dev/null || echo none"}))
        .await;
    assert_eq!(log.stdout(), "none\n", "not even the worker's own");
}

async fn what_is_typed_arrives_and_ends(site: Site) {
    let server = site.run().await;
    for (stdin, expected) in [
        (json!("one\ntwo\n"), "[one]\r\n[two]\r\n"),
        (json!("unfinished"), "[unfinished]"),
        (json!(null), ""),
    ] {
        let mut job = json!({"command": "stty -echo; sed 's/.*/[&]/'; echo end", "tty": {}});
        if stdin.is_string() {
            job["stdin"] = stdin;
            job["command"] = json!("sed 's/.*/[&]/'; echo end");
        }
        let log = server.run(&job).await;
        assert_eq!(log.status(), "succeeded");
        let shown = log.stdout();
        assert!(
            shown.contains(expected) && shown.ends_with("end\r\n"),
            "{shown:?}"
        );
    }
}

async fn a_shell_on_a_terminal_ends_with_everything_it_runs(site: Site) {
    let server = site.with(&[("CC_GRACE", "0.3")]).run().await;
    let id = shared::id::ExecutionId::generate().to_string();
    let script = r#"set -m; "$1" ignore-term "$2" & setsid "$1" ignore-term "$2" & wait"#;
    let job = json!({"argv": ["/bin/sh", "-c", script, "sh", crate::CHILD, id], "tty": {},
        "execution_id": id, "timeout": 0.4});
    let log = server.run(&job).await;
    assert_eq!(log.status(), "timed_out");
    assert!(harness::process::with_word(&id).is_empty());
}
