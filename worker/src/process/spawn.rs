//! Starting a process: what it runs, what it finds around it, where its output goes.
//!
//! The process itself is started by a shim ([`crate::guard`]). What can be checked before is checked here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use shared::outcome::Failure;
use shared::spec::{Limits, Program, TerminalSize};
use tokio::net::unix::pipe;

use crate::guard::confine::{Account, Boundaries};
use crate::guard::wire::{self, Step};
use crate::process::shims::{Shim, Shims, StartError};
use crate::process::terminal::{self, Terminal};

/// Programs that exit with output pending lose what does not fit. The `claude` CLI is one of them, and then exits
/// with 0 and without its result.
const PIPE_BYTES: usize = 1024 * 1024;
/// Shims that were found dead when they were needed.
const MAX_DEAD_SHIMS: usize = 8;

/// What to start, and in which surroundings.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Program,
    pub(crate) shell: &'a Path,
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) cwd: &'a Path,
    /// The same directory, opened.
    pub(crate) directory: &'a File,
    pub(crate) has_stdin: bool,
    pub(crate) tty: Option<TerminalSize>,
    pub(crate) limits: Limits,
    pub(crate) boundaries: Option<&'a Boundaries>,
    pub(crate) account: Option<&'a Account>,
    /// Removed by the shim, if the worker cannot do so any more.
    pub(crate) workspace: &'a Path,
}

/// A process that runs.
pub(crate) struct Spawned {
    pub(crate) shim: Shim,
    pub(crate) pid: u32,
    pub(crate) channels: Channels,
}

/// The worker's ends of what a process reads and writes.
pub(crate) enum Channels {
    Pipes {
        stdin: Option<pipe::Sender>,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    },
    Terminal(Terminal),
}

/// The process's ends: input, output, errors.
type Ends = [OwnedFd; 3];

/// Why a process does not run.
pub(crate) enum SpawnError {
    /// It cannot be started.
    Rejected(Failure),
    /// The shim was killed on the way.
    ShimLost,
}

/// Starts a process, or says why it cannot be started.
pub(crate) async fn spawn(shims: &Shims, launch: &Launch<'_>) -> Result<Spawned, SpawnError> {
    let (program, argv) = launch.command_line().map_err(SpawnError::Rejected)?;
    let failed = |error: io::Error| SpawnError::Rejected(spawn_failed(&program, &error));
    let (channels, ends) = launch.channels().map_err(failed)?;
    let [stdin, stdout, stderr] = &ends;
    let descriptors = [
        launch.directory.as_fd(),
        stdin.as_fd(),
        stdout.as_fd(),
        stderr.as_fd(),
    ];
    for _ in 0..MAX_DEAD_SHIMS {
        let mut shim = shims.take().map_err(failed)?;
        let message = launch.message(&program, &argv);
        match shim.start(message, &descriptors).await {
            Ok(pid) => {
                return Ok(Spawned {
                    shim,
                    pid,
                    channels,
                });
            }
            Err(StartError::Refused { step, errno }) => {
                shims.put_back(shim);
                let failure = rejection(step, errno, &program, launch.cwd);
                return Err(SpawnError::Rejected(failure));
            }
            Err(StartError::ShimLost(error)) => {
                tracing::error!(%error, "a shim was lost while it started a process");
                return Err(SpawnError::ShimLost);
            }
            Err(StartError::NotAsked(error)) => tracing::warn!(%error, "a shim was gone"),
        }
    }
    Err(SpawnError::ShimLost)
}

impl Launch<'_> {
    fn message(&self, program: &Path, argv: &[String]) -> wire::Launch {
        let environment = self.environment.iter();
        wire::Launch {
            program: program.to_owned(),
            argv: argv.to_vec(),
            environment: environment
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            is_terminal: self.tty.is_some(),
            limits: self.limits,
            confinement: self.boundaries.cloned(),
            account: self.account.cloned(),
            workspace: self.workspace.to_owned(),
        }
    }

    fn command_line(&self) -> Result<(PathBuf, Vec<String>), Failure> {
        match self.program {
            Program::Command(command) => {
                let shell = self.shell.display().to_string();
                Ok((
                    self.shell.to_owned(),
                    vec![shell, "-c".to_owned(), command.clone()],
                ))
            }
            Program::Argv(argv) => {
                let name = argv.first().map_or("", String::as_str);
                let search = self.environment.get("PATH").map_or("", String::as_str);
                Ok((locate(name, search, self.cwd)?, argv.clone()))
            }
        }
    }

    fn channels(&self) -> io::Result<(Channels, Ends)> {
        if let Some(size) = self.tty {
            let (terminal, end) = terminal::open(size)?;
            let ends = [end.try_clone()?, end.try_clone()?, end];
            return Ok((Channels::Terminal(terminal), ends));
        }
        let (stdin, their_stdin) = if self.has_stdin {
            let (reader, writer) = io::pipe()?;
            (
                Some(pipe::Sender::from_owned_fd(writer.into())?),
                reader.into(),
            )
        } else {
            (None, File::open("/dev/null")?.into())
        };
        let (stdout, their_stdout) = output_pipe()?;
        let (stderr, their_stderr) = output_pipe()?;
        let channels = Channels::Pipes {
            stdin,
            stdout,
            stderr,
        };
        Ok((
            channels,
            [their_stdin, their_stdout.into(), their_stderr.into()],
        ))
    }
}

fn output_pipe() -> io::Result<(pipe::Receiver, PipeWriter)> {
    let (reader, writer): (PipeReader, PipeWriter) = io::pipe()?;
    // A user may have so much in pipes and no more; then it stays at what it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES);
    Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer))
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

fn spawn_failed(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    Failure::new(
        "spawn_failed",
        format!("{shown} could not be started: {error}"),
    )
}

/// What the kernel's refusal means to a client.
fn rejection(step: Step, errno: i32, path: &Path, cwd: &Path) -> Failure {
    let error = io::Error::from_raw_os_error(errno);
    let shown = path.display();
    match (step, Errno::from_raw(errno)) {
        (Step::Directory, _) => Failure::new(
            "cwd_not_accessible",
            format!("{} cannot be entered: {error}", cwd.display()),
        ),
        (Step::Execute, Errno::ENOENT | Errno::ENOTDIR) if path.exists() => Failure::new(
            "program_not_executable",
            format!("the interpreter of {shown} does not exist"),
        ),
        (Step::Execute, Errno::ENOENT | Errno::ENOTDIR) => {
            Failure::new("program_not_found", format!("there is no program {shown}"))
        }
        (Step::Execute, Errno::EACCES | Errno::EISDIR | Errno::ENOEXEC) => not_executable(path),
        (Step::Execute, Errno::E2BIG) => Failure::new(
            "arguments_too_long",
            "arguments and environment are longer than the system allows; use `stdin`",
        ),
        (Step::Confinement, _) => Failure::new(
            "confinement_failed",
            format!("the kernel did not confine it: {error}"),
        ),
        (Step::Account, _) => Failure::new(
            "user_not_assumed",
            format!("it could not be run as the user of CC_RUN_AS: {error}"),
        ),
        (Step::Limits, _) => Failure::new(
            "limits_not_set",
            format!("the kernel did not take its limits: {error}"),
        ),
        (Step::Fork | Step::Terminal | Step::Descriptors | Step::Cgroup | Step::Execute, _) => {
            spawn_failed(path, &error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(name: &str) -> Result<PathBuf, String> {
        locate(name, "/usr/bin:/bin:/etc", Path::new("/")).map_err(|failure| failure.code)
    }

    #[test]
    fn programs_are_looked_for_where_the_job_s_path_leads() {
        assert_eq!(code_of("env"), Ok(PathBuf::from("/usr/bin/env")));
        assert_eq!(code_of("bin/env"), Ok(PathBuf::from("/bin/env")));
        assert_eq!(
            code_of("no-such-program"),
            Err("program_not_found".to_owned())
        );
        assert_eq!(code_of("fstab"), Err("program_not_executable".to_owned()));
    }

    #[test]
    fn the_reason_why_a_program_cannot_start_is_told() {
        let path = Path::new("/etc/passwd");
        let code = |step, errno: Errno| rejection(step, errno as i32, path, Path::new("/")).code;
        assert_eq!(code(Step::Execute, Errno::EACCES), "program_not_executable");
        assert_eq!(code(Step::Execute, Errno::ENOENT), "program_not_executable");
        assert_eq!(code(Step::Execute, Errno::E2BIG), "arguments_too_long");
        assert_eq!(code(Step::Execute, Errno::ENOMEM), "spawn_failed");
        assert_eq!(code(Step::Directory, Errno::EACCES), "cwd_not_accessible");
        let missing = rejection(
            Step::Execute,
            Errno::ENOENT as i32,
            Path::new("/no"),
            Path::new("/"),
        );
        assert_eq!(missing.code, "program_not_found");
    }
}
