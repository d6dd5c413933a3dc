//! The real Claude Code command line, as `tests/setup-claude.sh` installs it, run by jobs against a stub
//! of the API it talks to.

mod answer;
mod stub;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use self::answer::{Answer, bash_tool, error, hang, text};
pub use self::stub::{Request, Stub};
use crate::process::with_variable;
use crate::site::Site;

/// By this variable everything is known that a job has started.
const MARK: &str = "SUPERVISOR_RUN_ID";

/// The versions that are installed: `tests/setup-claude.sh` has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 2.1.329, one program. It ends its tools when it is asked to end.
    Newest,
    /// 2.0.77, which runs under Node. It leaves its tools behind, however it ends.
    UnderNode,
}

/// An installed Claude Code.
#[derive(Clone, Debug)]
pub struct Claude {
    /// Which one.
    pub version: Version,
    /// The program, and what comes before its own arguments.
    command: Vec<PathBuf>,
}

impl Claude {
    /// The installed program. Where it is not installed, that is said; with `CC_REQUIRE_CLAUDE=1` it is
    /// a failure.
    pub fn installed(version: Version) -> Option<Self> {
        match find(version) {
            Ok(command) => Some(Self { version, command }),
            Err(reason) => {
                let is_required = std::env::var_os("CC_REQUIRE_CLAUDE").is_some_and(|is| is == "1");
                assert!(!is_required, "{reason}, and CC_REQUIRE_CLAUDE=1");
                eprintln!("NOT TESTED: {reason}; tests/setup-claude.sh installs it");
                None
            }
        }
    }

    /// A job that answers a prompt and tells everything it does in JSON, asking nobody for permission.
    /// It has a new home, and what it starts is [`marked`].
    pub fn job(&self, site: &Site, stub: &Stub, prompt: &str, mark: &str) -> Value {
        let home = site.path(&format!("home-of-{mark}"));
        std::fs::create_dir(&home).expect("a mark is used once");
        let arguments = [
            "-p",
            "--output-format",
            "stream-json",
            "--verbose",
            "--dangerously-skip-permissions",
        ];
        let argv = self.command.iter().map(PathBuf::as_path);
        let argv: Vec<&Path> = argv.chain(arguments.map(Path::new)).collect();
        json!({
            "argv": argv,
            "stdin": prompt,
            "env": {
                "HOME": home,
                "LANG": "C.UTF-8",
                "ANTHROPIC_BASE_URL": stub.url(),
                "ANTHROPIC_API_KEY": "sk-test-dummy",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_AUTOUPDATER": "1",
                "DISABLE_TELEMETRY": "1",
                // Else a tool that runs for long goes on after the answer, and the program waits for it.
                "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
                "BASH_DEFAULT_TIMEOUT_MS": "60000",
                "BASH_MAX_TIMEOUT_MS": "60000",
                "CLAUDE_CODE_MAX_RETRIES": "2",
                "API_TIMEOUT_MS": "60000",
                // As root it asks for permissions anyway, unless told that this is safe.
                "IS_SANDBOX": "1",
                MARK: mark,
            },
        })
    }
}

/// Everything that runs of the job with this mark: the program, its tools, and whatever they have started.
pub fn marked(mark: &str) -> Vec<i32> {
    with_variable(&format!("{MARK}={mark}"))
}

fn find(version: Version) -> Result<Vec<PathBuf>, String> {
    let installed = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(".claude")
            .join(path);
        let is_there = path.is_file();
        is_there
            .then_some(path)
            .ok_or(format!("Claude Code ({version:?}) is not installed"))
    };
    match version {
        Version::Newest => {
            let program = "2.1.329/node_modules/@anthropic-ai/claude-code-linux-x64/claude";
            Ok(vec![installed(program)?])
        }
        Version::UnderNode => {
            let script = "2.0.77/node_modules/@anthropic-ai/claude-code/cli.js";
            Ok(vec![node()?, installed(script)?])
        }
    }
}

/// Where Node is; jobs have a `PATH` of their own.
fn node() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|directory| directory.join("node"));
    let found = programs.find(|program| program.is_file());
    found.ok_or_else(|| "Node is not installed".to_owned())
}
