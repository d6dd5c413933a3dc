//! What a person types.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::Duration;

use harness::event::{Event, Log};
use harness::site::{Server, Site};
use harness::wait::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// The client commands, pointed at one server.
struct Terminal<'a> {
    site: &'a Site,
    url: String,
}

impl<'a> Terminal<'a> {
    fn new(site: &'a Site, server: &Server) -> Self {
        let url = format!("http://{}", server.address());
        Self { site, url }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.site.command(crate::PROGRAMS.cli);
        command.args(words).env("CC_URL", &self.url);
        command
    }

    async fn types(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        output
            .expect("the program is waited for")
            .expect("the program is built and starts")
    }

    /// What a command that succeeds prints, without the last newline.
    async fn gets(&self, words: &[&str]) -> String {
        let output = self.types(words).await;
        assert!(output.status.success(), "{words:?}: {output:?}");
        let stdout = String::from_utf8(output.stdout).expect("it prints text");
        stdout.trim_end().to_owned()
    }

    async fn code(&self, words: &[&str]) -> i32 {
        let output = self.types(words).await;
        let code = output.status.code();
        code.unwrap_or_else(|| panic!("{words:?}: {output:?}"))
    }

    /// Starts a command whose standard output goes into a file, and standard error into one beside it.
    fn starts(&self, words: &[&str], stdout: &Path) -> Typed {
        let file = |path: &Path| File::create(path).expect("the file can be made");
        let mut command = self.command(words);
        let notices = stdout.with_extension("stderr");
        let child = command.stdout(file(stdout)).stderr(file(&notices));
        Typed(child.spawn().expect("the program is built and starts"))
    }
}

/// A command that runs, killed on drop.
struct Typed(Child);

impl Typed {
    fn interrupt(&self) {
        let pid = i32::try_from(self.0.id()).expect("process ids are small");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("it is there");
    }

    async fn code(&mut self) -> Option<i32> {
        let status = eventually(SOON, "the command ends", async || {
            self.0.try_wait().expect("it is our child")
        });
        status.await.code()
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn prints(file: &Path, text: &str) {
    eventually(SOON, "it is printed", async || {
        let printed = std::fs::read(file).expect("the file is there");
        String::from_utf8_lossy(&printed)
            .contains(text)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn run_prints_what_the_job_writes_and_exits_as_it_does() {
    let server = crate::on_disk().run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    let script = r"printf 'out\377\000'; printf err >&2; exit 3";
    let output = terminal.types(&["run", "-c", script]).await;
    assert_eq!(output.stdout, b"out\xff\0");
    assert_eq!(output.stderr, b"err");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        terminal.gets(&["run", "--", "echo", "-n", "$HOME"]).await,
        "$HOME"
    );

    for (words, code) in [
        (&["run", "-c", "kill -KILL $$"][..], 137),
        (&["run", "--timeout", "200ms", "--", "sleep", "60"], 124),
        (&["run", "--", "no-such-program"], 125),
        (&["run", "--queue", "a b", "--", "true"], 125),
        (&["run"], 2),
        (&["run", "--tiemout", "1", "--", "true"], 2),
        (&["show", "unknown"], 1),
        (&["cancel", "unknown"], 1),
        (&["pause", "unknown"], 1),
        (&["wait", "unknown"], 125),
    ] {
        assert_eq!(terminal.code(words).await, code, "{words:?}");
    }
}

#[tokio::test]
async fn run_goes_on_across_a_crash_of_the_server() {
    let mut site = crate::on_redis();
    let mut api = site.api().await;
    let _worker = site.worker("worker").await;
    let stdout = site.path("stdout");
    let mut run = {
        let terminal = Terminal::new(&site, &api);
        terminal.starts(&["run", "--", crate::CHILD, "lines", "400", "5"], &stdout)
    };
    prints(&stdout, "line 50\n").await;
    api.process().kill9();
    site.set("CC_BIND", &api.address().to_string());
    let _again = site.api().await;
    assert_eq!(run.code().await, Some(0));
    let printed = std::fs::read_to_string(&stdout).expect("it is text");
    let expected: Vec<String> = (1..=400).map(|number| format!("line {number}")).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn one_interrupt_leaves_the_job_and_two_cancel_it() {
    let server = crate::on_redis().run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    for (id, interrupts, status) in [("left", 1, "running"), ("cancelled", 2, "cancelled")] {
        let stdout = server.site.path(id);
        let words = ["run", "--id", id, "-c", "echo begun; exec sleep 60"];
        let mut run = terminal.starts(&words, &stdout);
        prints(&stdout, "begun").await;
        for _ in 0..interrupts {
            run.interrupt();
            // Two at once are one to the kernel.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(run.code().await, Some(130), "{id}");
        assert_eq!(server.snapshot(id).await["status"], status);
    }
}

#[tokio::test]
async fn a_job_is_submitted_followed_shown_listed_and_waited_for() {
    let server = crate::on_disk().run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    let script = "echo out; echo err >&2; exit 4";
    let submit = ["submit", "--label", "team=a", "--env", "A=b", "-c", script];
    let id = terminal.gets(&submit).await;
    assert_eq!(terminal.code(&["wait", &id]).await, 4);
    let logs = terminal.types(&["logs", "-f", &id]).await;
    assert_eq!(
        (logs.stdout.as_slice(), logs.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(
        terminal.gets(&["logs", "--stream", "stdout", &id]).await,
        "out"
    );

    let lines = terminal.gets(&["logs", "--json", &id]).await;
    let parse = |line: &str| Event(serde_json::from_str(line).expect("every line is JSON"));
    assert_eq!(
        Log::new(lines.lines().map(parse).collect()),
        server.log(&id).await
    );
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("it is JSON");
    let shown = json(&terminal.gets(&["show", "--json", &id]).await);
    assert_eq!(shown, server.snapshot(&id).await);
    let list = json(
        &terminal
            .gets(&["list", "--json", "--label", "team=a"])
            .await,
    );
    assert_eq!(list["executions"], json!([shown]));
    for words in [&["show", &id][..], &["list"]] {
        let text = terminal.gets(words).await;
        assert!(text.contains(&id) && text.contains("failed"), "{text}");
    }
}

#[tokio::test]
async fn a_job_is_cancelled() {
    let server = crate::on_redis().run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    let id = terminal.gets(&["submit", "--", "sleep", "60"]).await;
    server.until(&id, "running").await;
    assert_eq!(
        terminal.code(&["wait", "--timeout", "100ms", &id]).await,
        124
    );
    let cancelled: Value =
        serde_json::from_str(&terminal.gets(&["cancel", "--json", &id]).await).expect("it is JSON");
    assert_eq!(cancelled["execution_id"], id);
    assert_eq!(terminal.code(&["wait", &id]).await, 130);
    assert_eq!(terminal.code(&["logs", &id]).await, 0);
}

#[tokio::test]
async fn a_job_is_paused_and_resumed() {
    let server = crate::on_redis().run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    let stdout = server.site.path("run");
    let words = [
        "run",
        "--id",
        "x",
        "--",
        crate::CHILD,
        "lines",
        "1000",
        "20",
    ];
    let mut run = terminal.starts(&words, &stdout);
    prints(&stdout, "line 3\n").await;

    assert_eq!(terminal.gets(&["pause", "x"]).await, "x  paused");
    let notices = stdout.with_extension("stderr");
    prints(&notices, "cc-executor: the job is paused\n").await;
    for words in [&["show", "x"][..], &["list"]] {
        let text = terminal.gets(words).await;
        assert!(text.contains("paused"), "{text}");
    }

    assert_eq!(terminal.gets(&["resume", "x"]).await, "x  running");
    prints(&notices, "cc-executor: the job is resumed\n").await;
    terminal.gets(&["cancel", "x"]).await;
    assert_eq!(run.code().await, Some(130));
    for verb in ["pause", "resume"] {
        let output = terminal.types(&[verb, "x"]).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("ended already"), "{stderr}");
    }
}

#[tokio::test]
async fn what_a_failed_job_wrote_to_standard_error_is_shown() {
    let server = crate::on_disk().run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    let script = "echo out; echo cannot go on >&2; echo 'no such thing' >&2; exit 4";
    let words = ["run", "--id", "x", "-c", script];
    assert_eq!(terminal.code(&words).await, 4);
    let text = terminal.gets(&["show", "x"]).await;
    let expected = "stderr    cannot go on\n          no such thing";
    assert!(text.ends_with(expected), "{text}");
}

#[tokio::test]
async fn a_job_is_run_on_a_terminal_and_within_limits() {
    let server = crate::on_disk().run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    let size = ["run", "--tty=30x100", "-c", "stty size < /dev/tty"];
    assert_eq!(terminal.gets(&size).await, "30 100");
    let limits = ["run", "--open-files", "40", "--cpu-time", "1m"];
    let limits = [&limits[..], &["-c", "ulimit -n; ulimit -t"]].concat();
    let printed = terminal.gets(&limits).await;
    assert!(printed.starts_with("40\n"), "{printed}");
}

#[tokio::test]
async fn a_key_comes_from_the_environment() {
    let key = "correct-horse-battery-staple";
    let server = crate::on_disk().with(&[("CC_API_KEYS", key)]).run().await;
    let terminal = Terminal::new(&server.site, &server.server);
    assert_eq!(terminal.code(&["list"]).await, 1);
    let mut command = terminal.command(&["run", "--", "echo", "hello"]);
    command.env("CC_API_KEY", key);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("it is waited for").expect("it starts");
    assert_eq!(output.stdout, b"hello\n", "{output:?}");
}

#[tokio::test]
async fn without_a_server_it_says_so_and_gives_up() {
    let site = crate::on_disk();
    let terminal = Terminal {
        site: &site,
        // Nothing listens on this port; see RFC 863.
        url: "http://127.0.0.1:9".to_owned(),
    };
    let output = terminal.types(&["list"]).await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("127.0.0.1:9"), "{stderr}");
}
