//! What a process finds around it: a clean environment, a directory of its own, and its input.

use harness::site::Site;
use serde_json::json;

crate::on_both_engines!(
    the_environment_is_clean_and_what_the_job_adds_is_in_it,
    a_job_has_a_directory_of_its_own_or_the_one_it_names,
    input_reaches_the_process_whether_it_reads_it_or_not,
);

async fn the_environment_is_clean_and_what_the_job_adds_is_in_it(site: Site) {
    let home = site.path("home").display().to_string();
    let settings = [
        ("CC_TEST_SECRET", "hunter2"),
        ("LC_ALL", "C"),
        ("NAMED", "yes"),
        ("CC_ENV_ALLOW", "NAMED"),
    ];
    let server = site.with(&settings).run().await;
    let env = json!({"GREETING": "hello world", "LC_ALL": "C.UTF-8"});
    let job = json!({"argv": ["/usr/bin/env"], "env": env, "execution_id": "x"});
    let stdout = server.run(&job).await.stdout();
    // A confined job has a directory for temporary files to itself.
    let (temporary, mut lines): (Vec<&str>, Vec<&str>) =
        stdout.lines().partition(|line| line.starts_with("TMPDIR="));
    let workspaces = format!("TMPDIR={}", server.site.workspaces().display());
    let is_own = |line: &&str| line.starts_with(&workspaces);
    assert_eq!(
        temporary.iter().filter(|line| is_own(line)).count(),
        usize::from(server.worker.is_some())
    );
    lines.sort_unstable();
    let expected = [
        "CC_EXECUTION_ID=x",
        "GREETING=hello world",
        &format!("HOME={home}"),
        "LC_ALL=C.UTF-8",
        "NAMED=yes",
        "PATH=/usr/local/bin:/usr/bin:/bin",
    ];
    assert_eq!(
        lines, expected,
        "and neither REDIS_URL nor anything else of the worker's"
    );

    let descriptors = server
        .run(&json!({"argv": ["ls", "/proc/self/fd"]}))
        .await
        .stdout();
    assert_eq!(
        descriptors, "0\n1\n2\n3\n",
        "the last one is the directory that is listed"
    );
}

async fn a_job_has_a_directory_of_its_own_or_the_one_it_names(site: Site) {
    let workspaces = site.workspaces();
    let server = site.run().await;
    let log = server
        .run(&json!({"command": "pwd; ls -A; touch file"}))
        .await;
    let directory = std::path::PathBuf::from(log.stdout().trim());
    assert!(
        directory.starts_with(&workspaces),
        "{}",
        directory.display()
    );
    assert!(!directory.exists(), "it is gone afterwards");
    let log = server
        .run(&json!({"command": "pwd", "cwd": "/usr/bin"}))
        .await;
    assert_eq!(log.stdout(), "/usr/bin\n");
    assert!(std::path::Path::new("/usr/bin").exists());
}

async fn input_reaches_the_process_whether_it_reads_it_or_not(site: Site) {
    let server = site.with(&[("CC_MAX_BODY_BYTES", "4MiB")]).run().await;
    let text = "žluťoučký kůň\nwithout a last newline";
    let log = server.run(&json!({"command": "cat", "stdin": text})).await;
    assert_eq!(log.stdout(), text);
    let log = server.run(&json!({"command": "wc -c"})).await;
    assert_eq!(
        log.stdout().trim(),
        "0",
        "without input there is none to wait for"
    );

    let mebibyte = "x".repeat(1 << 20);
    let log = server
        .run(&json!({"command": "wc -c", "stdin": mebibyte}))
        .await;
    assert_eq!(log.stdout().trim(), "1048576");
    for unread in [
        "echo on",
        "exec 0<&-; echo on",
        "head -c 1 > /dev/null; echo on",
    ] {
        let log = server
            .run(&json!({"command": unread, "stdin": mebibyte}))
            .await;
        assert_eq!(
            (log.status(), log.stdout()),
            ("succeeded", "on\n".to_owned()),
            "{unread}"
        );
    }
}
