//! The worker's settings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use shared::config::{ConfigError, Reader, Setting, Source};
use shared::spec::is_queue_name;

pub use crate::confinement::Exposure;
use crate::confinement::{self, Confinement};

/// All settings of the worker.
pub const SETTINGS: &[Setting] = &[
    SLOTS,
    QUEUES,
    LEASE,
    GRACE,
    DRAIN_GRACE,
    DRAIN_TIMEOUT,
    NAME,
    SHELL,
    ENV_ALLOW,
    WORKSPACE_DIR,
    confinement::ALLOWED_CWD,
    confinement::SANDBOX,
    confinement::SANDBOX_REQUIRED,
    confinement::SANDBOX_WRITE,
    confinement::SANDBOX_READ,
    confinement::RUN_AS,
    confinement::CGROUP,
];

const SLOTS: Setting = Setting::new(
    "CC_SLOTS",
    "",
    "How many executions run at a time [default: the number of cores]",
);
const QUEUES: Setting = Setting::new(
    "CC_QUEUES",
    "*",
    "The queues to serve, separated by commas; * is every queue",
);
const LEASE: Setting = Setting::new(
    "CC_LEASE",
    "15",
    "Seconds after which an execution counts as lost unless its worker is heard of",
);
const GRACE: Setting = Setting::new(
    "CC_GRACE",
    "5",
    "Seconds between SIGTERM and SIGKILL when an execution is ended that names no `grace`",
);
const DRAIN_GRACE: Setting = Setting::new(
    "CC_DRAIN_GRACE",
    "2",
    "Seconds that descendants may hold the output open once the process itself has exited",
);
const DRAIN_TIMEOUT: Setting = Setting::new(
    "CC_DRAIN_TIMEOUT",
    "30",
    "Seconds that running executions have to end by themselves when the worker is asked to stop",
);
const NAME: Setting = Setting::new(
    "CC_WORKER_NAME",
    "",
    "The worker's name, unique among all workers [default: host name and process id]",
);
const SHELL: Setting = Setting::new("CC_SHELL", "/bin/sh", "What runs `command`, with -c");
const ENV_ALLOW: Setting = Setting::new(
    "CC_ENV_ALLOW",
    "",
    "Variables of the worker's environment that jobs see besides PATH, HOME, USER, LANG, LC_*, TZ and TMPDIR, separated by commas",
);
const WORKSPACE_DIR: Setting = Setting::new(
    "CC_WORKSPACE_DIR",
    "",
    "Where executions get their working directories [default: a directory in that for temporary files]",
);

/// How a worker works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, unique among all workers.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// How many executions run at a time.
    pub slots: usize,
    /// The queues to serve; empty means all.
    pub queues: Vec<String>,
    /// How long a lease holds.
    pub lease: Duration,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// From the exit of the process to the end of its output.
    pub drain_grace: Duration,
    /// From the request to stop until running executions are ended.
    pub drain_timeout: Duration,
    /// Runs `command`.
    pub shell: PathBuf,
    /// The part of the worker's environment that jobs see.
    pub environment: BTreeMap<String, String>,
    /// Where working directories are made.
    pub workspace_dir: PathBuf,
    /// What jobs may do.
    pub(crate) confinement: Confinement,
}

impl Config {
    /// Reads the settings. Who reaches the worker decides on some defaults.
    pub fn read(source: &Source, exposure: Exposure) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(source);
        let host = host_name();
        let shell: PathBuf = reader.value(&SHELL);
        if !shell.is_absolute() {
            reader.problem(format!(
                "CC_SHELL is an absolute path, not {:?}",
                shell.display()
            ));
        }
        let allowed: Vec<String> = reader.value(&ENV_ALLOW);
        let config = Self {
            name: reader
                .optional(&NAME)
                .unwrap_or_else(|| format!("{host}-{}", std::process::id())),
            slots: reader.optional(&SLOTS).unwrap_or_else(cores),
            queues: queues(&mut reader),
            lease: reader.value(&LEASE),
            grace: reader.value(&GRACE),
            drain_grace: reader.value(&DRAIN_GRACE),
            drain_timeout: reader.value(&DRAIN_TIMEOUT),
            confinement: Confinement::read(&mut reader, exposure),
            environment: visible_environment(source, &allowed),
            workspace_dir: reader
                .optional(&WORKSPACE_DIR)
                .unwrap_or_else(|| std::env::temp_dir().join("cc-executor")),
            host,
            shell,
        };
        reader.finish(config.with_home_of_user())
    }
}

impl Config {
    /// Jobs that run as another user are at home where that user is.
    fn with_home_of_user(mut self) -> Self {
        let user = self.confinement.user.as_ref();
        if let Some((name, home)) = user.and_then(|user| user.home.clone()) {
            let home = home.display().to_string();
            self.environment.insert("USER".to_owned(), name);
            self.environment.insert("HOME".to_owned(), home);
        }
        self
    }
}

fn queues(reader: &mut Reader<'_>) -> Vec<String> {
    let queues: Vec<String> = reader.value(&QUEUES);
    if queues == ["*"] {
        return Vec::new();
    }
    for queue in queues.iter().filter(|queue| !is_queue_name(queue)) {
        reader.problem(format!(
            "CC_QUEUES is * or names out of A-Z, a-z, 0-9, '.', '_' and '-', not {queue:?}"
        ));
    }
    if queues.is_empty() {
        reader.problem("CC_QUEUES names no queue; * is every queue");
    }
    queues
}

/// What a job may see of the worker's environment; nothing secret is among it unless it is named.
fn visible_environment(source: &Source, allowed: &[String]) -> BTreeMap<String, String> {
    const ALWAYS: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];
    let is_visible = |name: &str| {
        ALWAYS.contains(&name)
            || name.starts_with("LC_")
            || allowed.iter().any(|allowed| allowed == name)
    };
    let mut visible: BTreeMap<String, String> = source
        .iter()
        .filter(|(name, _)| is_visible(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    visible
        .entry("PATH".to_owned())
        .or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    visible
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown-host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_worker_are_not_visible_to_jobs() {
        let source = Source::of([
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("REDIS_URL", "redis://:secret@host"),
            ("CC_API_KEYS", "secret"),
            ("MY_TOKEN", "named"),
            ("CC_ENV_ALLOW", "MY_TOKEN"),
        ]);
        let config = Config::read(&source, Exposure::Deployment).expect("is right");
        let names: Vec<&str> = config.environment.keys().map(String::as_str).collect();
        assert_eq!(names, ["LC_ALL", "MY_TOKEN", "PATH"]);
    }

    #[test]
    fn every_problem_is_reported() {
        let source = Source::of([
            ("CC_SLOTS", "0"),
            ("CC_QUEUES", "a b"),
            ("CC_SHELL", "sh"),
            ("CC_LEASE", "x"),
        ]);
        let error = Config::read(&source, Exposure::Deployment).expect_err("is refused");
        assert_eq!(error.0.len(), 4, "{error}");
    }
}
