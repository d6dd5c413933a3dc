//! A job that has been checked, once: what is in a `Spec` is right, and nobody looks again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::request::{LimitsRequest, OnOutputLimit, Problem, Request, TaskRequest, TtyRequest};

/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";
/// The longest that `wait` may hold a reply, in seconds.
pub const MAX_WAIT_SECONDS: f64 = 300.0;

const MAX_TASKS: usize = 1_000;
const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 256;
const MAX_GRACE_SECONDS: f64 = 300.0;
const MAX_TERMINAL_SIZE: i64 = 1_000;
const MIN_MEMORY_BYTES: i64 = 1 << 20;
/// Fewer, and programs fail before they begin.
const MIN_OPEN_FILES: i64 = 16;
const MAX_ATTEMPTS: i64 = 100;
const MAX_DELAY_SECONDS: f64 = 365.0 * 86_400.0;
/// Linux refuses to execute anything with a longer argument (`MAX_ARG_STRLEN`).
const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;

/// A checked job, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What is run, in order; at least one.
    pub tasks: Vec<Program>,
    /// Whether the client sent `tasks`, rather than a single command or argv.
    pub is_task_list: bool,
    /// Leave out the remaining tasks once one has failed.
    pub stop_on_failure: bool,
    /// How long each task may take.
    pub timeout_per_task_ms: Option<u64>,
    /// How long the whole execution may take.
    pub timeout_ms: u64,
    /// How long it may be silent.
    pub stall_timeout_ms: Option<u64>,
    /// Where it waits.
    pub queue: String,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// How long it has to wait before it may start.
    pub delay_ms: u64,
    /// How often it may be started.
    pub max_attempts: u32,
    /// The working directory, if the caller names one.
    pub cwd: Option<String>,
    /// Environment variables of its own.
    pub env: BTreeMap<String, String>,
    /// Text for standard input.
    pub stdin: Option<String>,
    /// How many bytes of output are kept.
    pub output_bytes: u64,
    /// What happens when there are more.
    #[serde(default)]
    pub on_output_limit: OnOutputLimit,
    /// From SIGTERM to SIGKILL, if not as long as the worker says.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// The terminal it runs on, if on one.
    #[serde(default)]
    pub tty: Option<TerminalSize>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
}

/// What one task runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A command line for the shell.
    Command(String),
    /// A program with its arguments.
    Argv(Vec<String>),
}

impl Program {
    /// The program as a person would write it.
    pub fn description(&self) -> String {
        match self {
            Self::Command(command) => command.clone(),
            Self::Argv(argv) => argv.join(" "),
        }
    }
}

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// What the processes of a job may use; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all of them.
    pub memory_bytes: Option<u64>,
    /// Processor time of all of them.
    pub cpu_seconds: Option<u64>,
    /// How many of them there may be.
    pub processes: Option<u64>,
    /// The largest file that one of them may write.
    pub file_bytes: Option<u64>,
    /// How many descriptors one of them may have.
    pub open_files: Option<u64>,
}

/// Defaults and ceilings that the operator sets.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `timeout` of a job that names none.
    pub default_timeout_ms: u64,
    /// The longest `timeout`.
    pub max_timeout_ms: u64,
    /// `limits.output_bytes` of a job that names none.
    pub output_bytes: u64,
    /// The largest `limits.output_bytes`.
    pub max_output_bytes: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_timeout_ms: 3_600_000,
            max_timeout_ms: 86_400_000,
            output_bytes: 64 << 20,
            max_output_bytes: 1 << 30,
        }
    }
}

impl Spec {
    /// Checks a request and fills in the defaults, or says everything that is wrong with it.
    pub fn check(request: Request, policy: &Policy) -> Result<Self, Vec<Problem>> {
        let mut checker = Checker {
            problems: Vec::new(),
        };
        let is_task_list = request.tasks.is_some();
        if let Some(wait) = request.wait {
            checker.seconds("wait", wait, 0.0, MAX_WAIT_SECONDS);
        }
        checker.only_with_tasks(&request);
        let limits = request.limits.unwrap_or_default();
        let spec = Self {
            is_task_list,
            stop_on_failure: request.stop_on_failure.unwrap_or(true),
            timeout_per_task_ms: request
                .timeout_per_task
                .map(|seconds| checker.timeout("timeout_per_task", seconds, policy)),
            timeout_ms: request
                .timeout
                .map_or(policy.default_timeout_ms, |seconds| {
                    checker.timeout("timeout", seconds, policy)
                }),
            stall_timeout_ms: request
                .stall_timeout
                .map(|seconds| checker.timeout("stall_timeout", seconds, policy)),
            queue: checker.queue(request.queue),
            priority: checker.integer("priority", request.priority, 5, 0..=9),
            delay_ms: request.delay.map_or(0, |seconds| {
                checker.seconds("delay", seconds, 0.0, MAX_DELAY_SECONDS)
            }),
            max_attempts: checker.integer(
                "max_attempts",
                request.max_attempts,
                1,
                1..=MAX_ATTEMPTS,
            ),
            cwd: checker.cwd(request.cwd),
            env: checker.env(request.env.unwrap_or_default()),
            stdin: request.stdin,
            output_bytes: checker.output_bytes(limits.output_bytes, policy),
            on_output_limit: request.on_output_limit.unwrap_or_default(),
            grace_ms: request
                .grace
                .map(|seconds| checker.seconds("grace", seconds, 0.0, MAX_GRACE_SECONDS)),
            tty: request.tty.map(|tty| checker.tty(&tty)),
            limits: checker.limits(&limits),
            labels: checker.labels(request.labels.unwrap_or_default()),
            tasks: checker.programs(request.command, request.argv, request.tasks),
        };
        if checker.problems.is_empty() {
            Ok(spec)
        } else {
            Err(checker.problems)
        }
    }
}

/// Collects what is wrong; every check returns a value, so that the rest can be checked too.
struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    fn refuse(&mut self, field: &str, detail: impl Into<String>) {
        self.problems.push(Problem::invalid(field, detail));
    }

    fn only_with_tasks(&mut self, request: &Request) {
        if request.tasks.is_some() {
            return;
        }
        for (field, is_present) in [
            ("stop_on_failure", request.stop_on_failure.is_some()),
            ("timeout_per_task", request.timeout_per_task.is_some()),
        ] {
            if is_present {
                self.refuse(field, "only means something together with `tasks`");
            }
        }
    }

    fn programs(
        &mut self,
        command: Option<String>,
        argv: Option<Vec<String>>,
        tasks: Option<Vec<TaskRequest>>,
    ) -> Vec<Program> {
        let given: Vec<&str> = [
            ("command", command.is_some()),
            ("argv", argv.is_some()),
            ("tasks", tasks.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, is_given)| is_given.then_some(field))
        .collect();
        match given.as_slice() {
            [] => self.problems.push(Problem {
                field: Some("command".to_owned()),
                detail: "one of `command`, `argv` and `tasks` is required".to_owned(),
                code: "missing_field",
            }),
            [_] => {}
            [_, second, ..] => self.refuse(
                second,
                format!(
                    "only one of `command`, `argv` and `tasks` is allowed, not {}",
                    given.join(" and ")
                ),
            ),
        }
        let Some(tasks) = tasks else {
            return self.program("", command, argv).into_iter().collect();
        };
        if tasks.is_empty() || tasks.len() > MAX_TASKS {
            self.refuse(
                "tasks",
                format!("is a list of 1 to {MAX_TASKS} tasks, not {}", tasks.len()),
            );
        }
        let mut programs = Vec::with_capacity(tasks.len());
        for (index, task) in tasks.into_iter().enumerate() {
            let prefix = format!("tasks[{index}].");
            match (&task.command, &task.argv) {
                (Some(_), None) | (None, Some(_)) => {}
                _ => self.refuse(
                    prefix.trim_end_matches('.'),
                    "exactly one of `command` and `argv` is required in a task",
                ),
            }
            programs.extend(self.program(&prefix, task.command, task.argv));
        }
        programs
    }

    fn program(
        &mut self,
        prefix: &str,
        command: Option<String>,
        argv: Option<Vec<String>>,
    ) -> Option<Program> {
        if let Some(command) = command {
            let field = format!("{prefix}command");
            if command.trim().is_empty() {
                self.refuse(&field, "is empty");
            }
            self.argument(&field, &command);
            return Some(Program::Command(command));
        }
        let argv = argv?;
        let field = format!("{prefix}argv");
        if argv.first().is_none_or(String::is_empty) {
            self.refuse(&field, "needs a program as its first element");
        }
        for (index, argument) in argv.iter().enumerate() {
            self.argument(&format!("{field}[{index}]"), argument);
        }
        Some(Program::Argv(argv))
    }

    fn argument(&mut self, field: &str, value: &str) {
        self.no_nul(field, value);
        if value.len() > MAX_ARGUMENT_BYTES {
            self.refuse(
                field,
                format!("is longer than {MAX_ARGUMENT_BYTES} bytes, which Linux does not execute; use `stdin`"),
            );
        }
    }

    fn no_nul(&mut self, field: &str, value: &str) {
        if value.contains('\0') {
            self.refuse(field, "contains a NUL byte, which no process can be given");
        }
    }

    fn seconds(&mut self, field: &str, seconds: f64, min: f64, max: f64) -> u64 {
        if !(min..=max).contains(&seconds) {
            self.refuse(
                field,
                format!("is from {min} to {max} seconds, not {seconds}"),
            );
            return 0;
        }
        whole_ms(seconds)
    }

    fn timeout(&mut self, field: &str, seconds: f64, policy: &Policy) -> u64 {
        let max = u32::try_from(policy.max_timeout_ms / 1_000).map_or(f64::MAX, f64::from);
        self.seconds(field, seconds, 0.001, max)
    }

    fn integer<T: TryFrom<i64> + Default>(
        &mut self,
        field: &str,
        given: Option<i64>,
        default: i64,
        range: std::ops::RangeInclusive<i64>,
    ) -> T {
        let value = given.unwrap_or(default);
        if !range.contains(&value) {
            let (min, max) = range.into_inner();
            self.refuse(
                field,
                format!("is a whole number from {min} to {max}, not {value}"),
            );
        }
        T::try_from(value).unwrap_or_default()
    }

    fn queue(&mut self, queue: Option<String>) -> String {
        let queue = queue.unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
        if !is_queue_name(&queue) {
            self.refuse(
                "queue",
                "is 1 to 64 characters out of A-Z, a-z, 0-9, '.', '_' and '-'",
            );
        }
        queue
    }

    fn cwd(&mut self, cwd: Option<String>) -> Option<String> {
        if let Some(path) = &cwd {
            self.no_nul("cwd", path);
            if !path.starts_with('/') {
                self.refuse("cwd", "is an absolute path on the worker");
            }
        }
        cwd
    }

    fn env(&mut self, env: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for (name, value) in &env {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.refuse(
                    "env",
                    format!("{name:?} cannot be the name of an environment variable"),
                );
            }
            self.argument(&format!("env.{name}"), value);
        }
        env
    }

    fn output_bytes(&mut self, given: Option<i64>, policy: &Policy) -> u64 {
        let Some(given) = given else {
            return policy.output_bytes.min(policy.max_output_bytes);
        };
        match u64::try_from(given) {
            Ok(bytes) if bytes <= policy.max_output_bytes => bytes,
            _ => {
                let max = policy.max_output_bytes;
                self.refuse(
                    "limits.output_bytes",
                    format!("is from 0 to {max} bytes, not {given}"),
                );
                0
            }
        }
    }

    fn tty(&mut self, tty: &TtyRequest) -> TerminalSize {
        TerminalSize {
            rows: self.integer("tty.rows", tty.rows, 24, 1..=MAX_TERMINAL_SIZE),
            cols: self.integer("tty.cols", tty.cols, 80, 1..=MAX_TERMINAL_SIZE),
        }
    }

    fn limits(&mut self, limits: &LimitsRequest) -> Limits {
        let mut at_least = |name: &str, given: Option<i64>, min: i64| {
            let given = given?;
            if given < min {
                let field = format!("limits.{name}");
                self.refuse(&field, format!("is at least {min}, not {given}"));
            }
            u64::try_from(given).ok()
        };
        Limits {
            memory_bytes: at_least("memory_bytes", limits.memory_bytes, MIN_MEMORY_BYTES),
            cpu_seconds: at_least("cpu_seconds", limits.cpu_seconds, 1),
            processes: at_least("processes", limits.processes, 1),
            file_bytes: at_least("file_bytes", limits.file_bytes, 0),
            open_files: at_least("open_files", limits.open_files, MIN_OPEN_FILES),
        }
    }

    fn labels(&mut self, labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if labels.len() > MAX_LABELS {
            self.refuse(
                "labels",
                format!("at most {MAX_LABELS} labels are kept, not {}", labels.len()),
            );
        }
        for (name, value) in &labels {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.refuse("labels", format!("{name:?} cannot be the name of a label: it is empty or has '=' or NUL in it"));
            }
            if name.len() + value.len() > MAX_LABEL_BYTES {
                self.refuse(
                    "labels",
                    format!("{name:?} and its value are longer than {MAX_LABEL_BYTES} bytes"),
                );
            }
        }
        labels
    }
}

/// Whether `name` can name a queue.
pub fn is_queue_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn whole_ms(seconds: f64) -> u64 {
    u64::try_from(std::time::Duration::from_secs_f64(seconds).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<Spec, Vec<Problem>> {
        Spec::check(
            Request::parse(body.as_bytes()).expect("has the right shape"),
            &Policy::default(),
        )
    }

    fn fields(body: &str) -> Vec<String> {
        check(body)
            .expect_err("is refused")
            .into_iter()
            .filter_map(|problem| problem.field)
            .collect()
    }

    #[test]
    fn defaults_are_filled_in() {
        let spec = check(r#"{"command":"true"}"#).expect("is right");
        assert_eq!(spec.tasks, [Program::Command("true".to_owned())]);
        assert_eq!((spec.priority, spec.max_attempts, spec.delay_ms), (5, 1, 0));
        assert_eq!((spec.timeout_ms, spec.output_bytes), (3_600_000, 64 << 20));
        assert_eq!(spec.queue, "default");
        assert_eq!(spec.on_output_limit, OnOutputLimit::Truncate);
        assert_eq!((spec.grace_ms, spec.tty), (None, None));
        assert_eq!(spec.limits, Limits::default());
    }

    #[test]
    fn exactly_one_program_is_required() {
        assert_eq!(fields("{}"), ["command"]);
        assert_eq!(fields(r#"{"command":"a","argv":["b"]}"#), ["argv"]);
        assert_eq!(
            fields(r#"{"tasks":[{"command":"a","argv":["b"]}]}"#),
            ["tasks[0]"]
        );
        assert_eq!(fields(r#"{"tasks":[]}"#), ["tasks"]);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let body = r#"{"command":" ","timeout":-1,"priority":10,"queue":"a b","delay":-0.5,
            "max_attempts":0,"cwd":"here","env":{"A=":"x"},"limits":{"output_bytes":-1},"labels":{"":"x"}}"#;
        let expected = [
            "timeout",
            "queue",
            "priority",
            "delay",
            "max_attempts",
            "cwd",
            "env",
            "limits.output_bytes",
            "labels",
            "command",
        ];
        assert_eq!(fields(body), expected);
    }

    #[test]
    fn nul_bytes_and_overlong_arguments_are_refused() {
        assert_eq!(fields(r#"{"command":"a\u0000b"}"#), ["command"]);
        assert_eq!(fields(r#"{"argv":["a","b\u0000"]}"#), ["argv[1]"]);
        let long = "x".repeat(MAX_ARGUMENT_BYTES + 1);
        assert_eq!(fields(&format!(r#"{{"command":"{long}"}}"#)), ["command"]);
    }

    #[test]
    fn huge_and_tiny_timeouts_are_refused() {
        for timeout in ["0", "-0.001", "86400.5", "1e300"] {
            assert_eq!(
                fields(&format!(r#"{{"command":"a","timeout":{timeout}}}"#)),
                ["timeout"]
            );
        }
        assert_eq!(
            check(r#"{"command":"a","timeout":0.25}"#)
                .expect("is right")
                .timeout_ms,
            250
        );
    }

    #[test]
    fn what_a_job_may_use_has_a_least() {
        let too_little = r#"{"command":"a","grace":-1,"tty":{"rows":0,"cols":1001},"limits":{"memory_bytes":1048575,
            "cpu_seconds":0,"processes":0,"file_bytes":-1,"open_files":15}}"#;
        let expected = [
            "grace",
            "tty.rows",
            "tty.cols",
            "limits.memory_bytes",
            "limits.cpu_seconds",
            "limits.processes",
            "limits.file_bytes",
            "limits.open_files",
        ];
        assert_eq!(fields(too_little), expected);
        let least = r#"{"command":"a","grace":0,"tty":{"rows":1,"cols":1000},"limits":{"memory_bytes":1048576,
            "cpu_seconds":1,"processes":1,"file_bytes":0,"open_files":16}}"#;
        let spec = check(least).expect("is right");
        let expected = Limits {
            memory_bytes: Some(1 << 20),
            cpu_seconds: Some(1),
            processes: Some(1),
            file_bytes: Some(0),
            open_files: Some(16),
        };
        assert_eq!((spec.limits, spec.grace_ms), (expected, Some(0)));
    }

    #[test]
    fn a_terminal_has_a_usual_size() {
        let size = |body| check(body).expect("is right").tty;
        let usual = TerminalSize { rows: 24, cols: 80 };
        assert_eq!(size(r#"{"command":"a","tty":{}}"#), Some(usual));
        let wide = TerminalSize { cols: 132, ..usual };
        assert_eq!(size(r#"{"command":"a","tty":{"cols":132}}"#), Some(wide));
        assert_eq!(size(r#"{"command":"a"}"#), None);
    }

    #[test]
    fn a_job_that_an_older_version_has_stored_is_read() {
        let stored = r#"{"tasks":[{"command":"true"}],"is_task_list":false,"stop_on_failure":true,
            "timeout_per_task_ms":null,"timeout_ms":3600000,"stall_timeout_ms":null,"queue":"default",
            "priority":5,"delay_ms":0,"max_attempts":1,"cwd":null,"env":{},"stdin":null,
            "output_bytes":67108864,"labels":{}}"#;
        let spec: Spec = serde_json::from_str(stored).expect("is read");
        assert_eq!(spec, check(r#"{"command":"true"}"#).expect("is right"));
    }
}
