//! A real process under test: nothing of our environment in its own, its log kept and shown if the
//! test fails, and gone, with all it has started, when it is dropped.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A process of one of our programs.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    /// Those that outlive it because it was killed.
    orphans: BTreeSet<i32>,
}

/// A command with an environment of `settings` and little else.
pub fn command<'a>(
    program: &Path,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test starts our programs as anybody would"
    )]
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(settings)
        .stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a server, whose standard error is its log.
    pub fn start(name: impl Into<String>, mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is built and starts");
        let log = Arc::default();
        let pipe = child.stderr.take().expect("standard error is piped");
        let reader = keep_lines(pipe, Arc::clone(&log));
        Self {
            name: name.into(),
            child,
            log,
            reader: Some(reader),
            orphans: BTreeSet::new(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        lines(&self.log).join("\n")
    }

    /// The first line of its log that contains `text`, once there is one.
    pub async fn logs(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = lines(&self.log)
                .iter()
                .find(|line| line.contains(text))
                .cloned();
            if let Some(line) = found {
                return line;
            }
            let status = self.child.try_wait().expect("it is our child");
            assert!(
                status.is_none(),
                "{} ended ({status:?}) without {text:?} in its log",
                self.name
            );
            assert!(
                Instant::now() < deadline,
                "{} never logged {text:?}",
                self.name
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Suspends it, as an overloaded machine might.
    pub fn suspend(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it as the kernel does when memory is short, without a chance to tidy up.
    pub fn kill9(&mut self) {
        self.orphans.extend(descendants(self.pid()));
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, once it has; from then on its log is complete.
    pub async fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.finish_log();
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            tokio::time::sleep(POLL).await;
        }
    }

    /// The most memory that it has ever had in RAM, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = kib
            .and_then(|kib| kib.trim().parse().ok())
            .expect("the kernel says how much memory a process had");
        kib * 1024
    }

    fn finish_log(&mut self) {
        if let Some(reader) = self.reader.take() {
            // What it kept until it failed is there.
            let _ = reader.join();
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        for &orphan in &self.orphans {
            let _ = kill(Pid::from_raw(orphan), Signal::SIGKILL);
        }
        self.finish_log();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}\n---", self.name, self.log());
        }
    }
}

/// Whether a process is there and not merely waited for.
pub fn is_alive(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The processes, other than zombies, that have `word` among the words of their command line.
pub fn with_word(word: &str) -> Vec<i32> {
    let has_word = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split(|&byte| byte == 0);
        words.any(|found| found == word.as_bytes()) && is_alive(*pid)
    };
    all_pids().filter(has_word).collect()
}

/// The processes, other than zombies, that were started with this `NAME=value` in their environment.
pub fn with_variable(variable: &str) -> Vec<i32> {
    let has_it = |pid: &i32| {
        // That of a zombie is empty.
        let all = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut all = all.split(|&byte| byte == 0);
        all.any(|found| found == variable.as_bytes())
    };
    all_pids().filter(has_it).collect()
}

/// The children of a process, by the name they go by.
pub fn children_named(parent: i32, name: &str) -> Vec<i32> {
    let is_child = |pid: &i32| state_and_parent(*pid).is_some_and(|(_, of)| of == parent);
    let is_named = |pid: &i32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(name)
    };
    all_pids().filter(is_child).filter(is_named).collect()
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").expect("there is /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn lines(log: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_lines(pipe: ChildStderr, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // A descendant may hold the pipe open, but none writes to it.
        while pipe
            .by_ref()
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines(&log).push(text);
            line.clear();
        }
    })
}

/// The processes below one, at any depth.
fn descendants(ancestor: i32) -> BTreeSet<i32> {
    let parents: Vec<(i32, i32)> = all_pids()
        .filter_map(|pid| Some((pid, state_and_parent(pid)?.1)))
        .collect();
    let mut found = BTreeSet::from([ancestor]);
    loop {
        let next: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    found.remove(&ancestor);
    found
}

fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have spaces in it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
