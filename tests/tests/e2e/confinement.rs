//! What jobs may do on the worker's machine: nothing more than is asked for.

use harness::site::{Running, Site};
use serde_json::{Value, json};

/// A site with a worker that has these settings instead of the harness's.
async fn server(settings: &[(&str, &str)]) -> Running {
    let defaults = [("CC_SANDBOX_WRITE", ""), ("CC_ALLOWED_CWD", "")];
    crate::on_redis().with(&defaults).with(settings).run().await
}

async fn sandbox_of(server: &Running) -> Value {
    let log = server.run(&json!({"command": "true"})).await;
    log.of_kind("started")[0]["sandbox"].clone()
}

/// Whether a job may do this.
async fn may(server: &Running, command: &str) -> bool {
    server.run(&json!({"command": command})).await.status() == "succeeded"
}

#[tokio::test]
async fn a_worker_confines_jobs_to_their_own_directories() {
    let outside = tempfile::tempdir().expect("is made");
    let file = outside.path().join("file");
    std::fs::write(&file, "precious").expect("is written");
    let shown = file.display();
    let server = server(&[]).await;
    assert_eq!(sandbox_of(&server).await, "workspace");
    for allowed in [
        "echo x > file && mkdir d && mv file d/ && rm -r d",
        "echo x > $TMPDIR/file && mktemp",
        "echo x > /dev/null && head -c 1 /dev/urandom > /dev/zero",
        &format!("cat {shown} && ls / > /dev/null"),
        "sh -c 'sleep 60 & kill -9 $!'",
    ] {
        assert!(may(&server, allowed).await, "{allowed}");
    }
    for forbidden in [
        &format!("echo x > {shown}"),
        &format!("rm {shown}"),
        &format!("ln {shown} here"),
        "touch /tmp/cc-executor-was-here",
        "echo x > ../file",
        "kill -0 $PPID",
        &format!(
            "kill -0 {}",
            server.worker.as_ref().expect("there is one").pid()
        ),
    ] {
        assert!(!may(&server, forbidden).await, "{forbidden}");
    }
    assert_eq!(
        std::fs::read_to_string(&file).expect("is there"),
        "precious"
    );
}

#[tokio::test]
async fn what_is_configured_may_be_written_and_a_strict_sandbox_hides_the_rest() {
    let outside = tempfile::tempdir().expect("is made");
    let (write, read) = (outside.path().join("write"), outside.path().join("read"));
    for directory in [&write, &read] {
        std::fs::create_dir(directory).expect("is made");
        std::fs::write(directory.join("file"), "x").expect("is written");
    }
    std::fs::write(outside.path().join("hidden"), "x").expect("is written");
    let (write, read) = (write.display().to_string(), read.display().to_string());
    let settings = [
        ("CC_SANDBOX", "strict"),
        ("CC_SANDBOX_WRITE", write.as_str()),
        ("CC_SANDBOX_READ", read.as_str()),
    ];
    let server = server(&settings).await;
    assert_eq!(sandbox_of(&server).await, "strict");
    assert!(
        may(
            &server,
            &format!("cat {read}/file && echo x > {write}/file && ls /usr")
        )
        .await
    );
    assert!(!may(&server, &format!("echo x > {read}/file")).await);
    assert!(!may(&server, &format!("cat {}/hidden", outside.path().display())).await);
    assert!(!may(&server, "ls /root").await);
    assert!(
        may(
            &server,
            "echo x > file && cat file && env | sort | head -1 && awk 'BEGIN {}'"
        )
        .await
    );
}

#[tokio::test]
async fn privileges_are_gone_and_files_are_made_with_a_known_mask() {
    let server = server(&[]).await;
    let command = "grep NoNewPrivs /proc/self/status; umask; grep -E '^Sig(Ign|Blk)' /proc/self/status; ps -o sid= -p $$ | tr -d ' '; echo $$";
    let log = server.run(&json!({"command": command})).await;
    let stdout = log.stdout();
    let lines: Vec<&str> = stdout.lines().collect();
    let [privileges, mask, blocked, ignored, session, pid] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!((privileges, mask), ("NoNewPrivs:\t1", "0022"));
    assert!(blocked.ends_with("0000000000000000"), "{blocked}");
    assert!(ignored.ends_with("0000000000000000"), "{ignored}");
    assert_eq!(session, pid, "it leads a session of its own");
}

#[tokio::test]
async fn a_job_names_its_directory_only_where_that_is_allowed() {
    let allowed = tempfile::tempdir().expect("is made");
    let shown = allowed.path().display().to_string();
    let nowhere = server(&[]).await;
    let log = nowhere.run(&json!({"command": "true", "cwd": shown})).await;
    assert_eq!(
        (log.status(), log.error_code()),
        ("rejected", Some("cwd_not_allowed"))
    );
    let somewhere = server(&[("CC_ALLOWED_CWD", &shown)]).await;
    let log = somewhere
        .run(&json!({"command": "pwd; echo x > kept", "cwd": shown}))
        .await;
    assert_eq!(
        (log.status(), log.stdout()),
        ("succeeded", format!("{shown}\n"))
    );
    assert!(
        allowed.path().join("kept").exists(),
        "it is the caller's, and stays"
    );
    for cwd in ["/usr", &format!("{shown}/..")] {
        let log = somewhere.run(&json!({"command": "true", "cwd": cwd})).await;
        assert_eq!(log.error_code(), Some("cwd_not_allowed"), "{cwd}");
    }
}

#[tokio::test]
async fn a_person_s_own_machine_runs_what_that_person_could_type() {
    let outside = tempfile::tempdir().expect("is made");
    let site = crate::on_disk().with(&[("CC_SANDBOX_WRITE", ""), ("CC_ALLOWED_CWD", "")]);
    let server = site.run().await;
    assert_eq!(sandbox_of(&server).await, "off");
    let log = server
        .run(&json!({"command": "echo x > file; pwd", "cwd": outside.path()}))
        .await;
    assert_eq!(log.stdout(), format!("{}\n", outside.path().display()));
    assert!(outside.path().join("file").exists());
}

#[tokio::test]
async fn jobs_run_as_the_user_that_they_are_to_run_as() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: only root can run jobs as somebody else");
        return;
    }
    // The directories of the harness are only for who runs the tests.
    let workspaces = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("is made");
    let shown = workspaces.path().display().to_string();
    let server = server(&[("CC_RUN_AS", "nobody"), ("CC_WORKSPACE_DIR", &shown)]).await;
    let command = "id -un; id -u; id -Gn; echo $HOME $USER; echo x > file && cat file; echo y > $TMPDIR/f && cat $TMPDIR/f";
    let log = server.run(&json!({"command": command})).await;
    assert_eq!(log.status(), "succeeded");
    assert_eq!(
        log.stdout(),
        "nobody\n65534\nnogroup\n/nonexistent nobody\nx\ny\n"
    );
    let id = "of-nobody";
    let script = r#"setsid -f sleep 60 "$0"; sleep 60"#;
    let job = json!({"argv": ["/bin/sh", "-c", script, id], "execution_id": id, "timeout": 0.2, "grace": 0.2});
    assert_eq!(server.run(&job).await.status(), "timed_out");
    assert!(harness::process::with_word(id).is_empty());
}

#[tokio::test]
async fn the_worker_s_memory_and_environment_are_not_for_jobs() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: only root can run jobs as somebody else");
        return;
    }
    let site: Site = crate::on_redis();
    let server = site.run().await;
    let worker = server.worker.as_ref().expect("there is one").pid();
    for file in ["environ", "mem", "maps"] {
        let command = format!("head -c 1 /proc/{worker}/{file} > /dev/null");
        assert!(!may(&server, &command).await, "{file}");
    }
    let guardian = harness::process::children_named(worker, "cc-executor-guardian")[0];
    let environment = std::fs::read(format!("/proc/{guardian}/environ")).expect("is there");
    assert!(environment.is_empty(), "what guards jobs knows no secrets");
}
