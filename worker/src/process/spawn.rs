//! Starting a process: its own group, a clean environment, pipes.
//!
//! Everything here stays on the standard library's `posix_spawn` path: no `pre_exec`, no uid, and
//! programs by their full path. Forking instead copies the worker's page tables for every job.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use shared::outcome::Failure;
use shared::spec::Program;
use tokio::process::{Child, Command};

/// What to start, and in which surroundings.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Program,
    pub(crate) shell: &'a Path,
    pub(crate) cwd: &'a Path,
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) has_stdin: bool,
}

/// Starts a process, or says why it cannot be started.
pub(crate) fn spawn(launch: &Launch<'_>) -> Result<Child, Failure> {
    let (path, arguments) = command_line(launch)?;
    let stdin = if launch.has_stdin {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where processes are started"
    )]
    let mut command = Command::new(&path);
    command
        .args(arguments)
        .env_clear()
        .envs(launch.environment)
        .current_dir(launch.cwd)
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
        .spawn()
        .map_err(|error| rejection(&error, &path, launch.cwd))
}

fn command_line<'a>(launch: &Launch<'a>) -> Result<(PathBuf, Vec<&'a str>), Failure> {
    match launch.program {
        Program::Command(command) => Ok((launch.shell.to_owned(), vec!["-c", command])),
        Program::Argv(argv) => {
            let mut words = argv.iter().map(String::as_str);
            let name = words.next().unwrap_or_default();
            let search = launch.environment.get("PATH").map_or("", String::as_str);
            Ok((locate(name, search, launch.cwd)?, words.collect()))
        }
    }
}

/// The program's full path: as it stands if it has a slash, else the first one in `search` that can
/// be executed.
fn locate(name: &str, search: &str, cwd: &Path) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        return Ok(cwd.join(name));
    }
    let candidates = search
        .split(':')
        .map(|directory| cwd.join(directory).join(name));
    let mut found_but_not_executable = None;
    for candidate in candidates {
        match std::fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(_) => found_but_not_executable = Some(candidate),
            Err(_) => {}
        }
    }
    Err(match found_but_not_executable {
        Some(path) => not_executable(&path),
        None => Failure::new(
            "program_not_found",
            format!("there is no program {name:?} in {search}"),
        ),
    })
}

fn not_executable(path: &Path) -> Failure {
    let message = format!("{} is not executable", path.display());
    Failure::new("program_not_executable", message)
}

fn rejection(error: &io::Error, path: &Path, cwd: &Path) -> Failure {
    let shown = path.display();
    if !cwd.is_dir() {
        let cwd = cwd.display();
        return Failure::new(
            "cwd_not_found",
            format!("there is no directory {cwd} to run it in"),
        );
    }
    match error.kind() {
        ErrorKind::NotFound if path.exists() => Failure::new(
            "program_not_executable",
            format!("the interpreter of {shown} does not exist"),
        ),
        ErrorKind::NotFound => {
            Failure::new("program_not_found", format!("there is no program {shown}"))
        }
        ErrorKind::PermissionDenied => not_executable(path),
        ErrorKind::ArgumentListTooLong => Failure::new(
            "arguments_too_long",
            "arguments and environment are longer than the system allows; use `stdin`",
        ),
        _ => Failure::new(
            "spawn_failed",
            format!("{shown} could not be started: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(argv: &[&str], cwd: &str) -> String {
        let program = Program::Argv(argv.iter().map(|&word| word.to_owned()).collect());
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin:/etc".to_owned())]);
        let launch = Launch {
            program: &program,
            shell: Path::new("/bin/sh"),
            cwd: Path::new(cwd),
            environment: &environment,
            has_stdin: false,
        };
        spawn(&launch).map(|_| ()).expect_err("is rejected").code
    }

    #[tokio::test]
    async fn the_reason_why_a_program_cannot_start_is_told() {
        assert_eq!(reject(&["no-such-program"], "/"), "program_not_found");
        assert_eq!(reject(&["/no/such/program"], "/"), "program_not_found");
        assert_eq!(
            reject(&["passwd.txt/../passwd"], "/etc"),
            "program_not_found"
        );
        assert_eq!(reject(&["hostname"], "/no/such/directory"), "cwd_not_found");
        assert_eq!(reject(&["/etc/passwd"], "/"), "program_not_executable");
        assert_eq!(reject(&["fstab"], "/"), "program_not_executable");
        let long = "x".repeat(100_000);
        let mut argv = vec!["/bin/true"];
        argv.resize(60, &long);
        assert_eq!(reject(&argv, "/"), "arguments_too_long");
    }
}
