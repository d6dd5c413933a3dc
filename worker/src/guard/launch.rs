//! From a fork to a new program: everything between the two.

use std::ffi::CString;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchdir, getppid, setsid};

use crate::guard::cgroup::Cgroup;
use crate::guard::confine::{drop_capabilities, limit_resources, set_umask};
use crate::guard::fork::{Forked, close_on_exec_from, fork, fork_into, leave};
use crate::guard::priority::Priority;
use crate::guard::wire::{DESCRIPTORS_OF_A_JOB, Launch, Step};

/// Why a process was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

/// Starts a process in `cgroup`, if there is one. Returns once its program has begun.
pub(crate) fn launch(
    launch: &Launch,
    descriptors: Vec<OwnedFd>,
    cgroup: Option<&Cgroup>,
    priority: Priority,
) -> Result<Pid, Refusal> {
    let failed = |error: io::Error| refusal(Step::Fork, &error);
    let image = Image::of(launch).map_err(failed)?;
    let descriptors: [OwnedFd; DESCRIPTORS_OF_A_JOB] = descriptors
        .try_into()
        .map_err(|_| failed(Errno::EBADF.into()))?;
    let (reader, writer) = io::pipe().map_err(failed)?;
    let parent = nix::unistd::getpid();
    let forked = cgroup.map_or_else(fork, |cgroup| fork_into(cgroup.as_fd()));
    match forked.map_err(failed)? {
        Forked::Parent { child } => {
            drop(writer);
            refused(reader).map_or(Ok(child), Err)
        }
        Forked::Child { is_in_cgroup } => {
            let birth = Birth {
                launch,
                image: &image,
                descriptors: &descriptors,
                cgroup: cgroup.filter(|_| !is_in_cgroup),
                priority,
                parent,
            };
            let refusal = birth.become_program();
            let mut message = vec![refusal.step as u8];
            message.extend(refusal.errno.to_le_bytes());
            // If the shim is gone as well, there is nobody to tell.
            let _ = (&writer).write_all(&message);
            leave(127)
        }
    }
}

/// The end of the pipe without a word says that the program has begun.
fn refused(mut reader: PipeReader) -> Option<Refusal> {
    let mut message = [0; 5];
    reader.read_exact(&mut message).ok()?;
    let [step, errno @ ..] = message;
    let step = Step::ALL.into_iter().find(|known| *known as u8 == step)?;
    let errno = i32::from_le_bytes(errno);
    Some(Refusal { step, errno })
}

fn refusal(step: Step, error: &io::Error) -> Refusal {
    let errno = error.raw_os_error().unwrap_or(0);
    Refusal { step, errno }
}

/// What `execve` is given.
struct Image {
    program: CString,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Image {
    fn of(launch: &Launch) -> io::Result<Self> {
        let strings = |strings: &[String]| -> io::Result<Vec<CString>> {
            let strings = strings.iter().map(|string| CString::new(string.as_str()));
            Ok(strings.collect::<Result<_, _>>()?)
        };
        Ok(Self {
            program: CString::new(launch.program.as_os_str().as_encoded_bytes())?,
            argv: strings(&launch.argv)?,
            environment: strings(&launch.environment)?,
        })
    }
}

/// A child that is about to become a program.
struct Birth<'a> {
    launch: &'a Launch,
    image: &'a Image,
    descriptors: &'a [OwnedFd; DESCRIPTORS_OF_A_JOB],
    /// The cgroup it has still to enter.
    cgroup: Option<&'a Cgroup>,
    priority: Priority,
    parent: Pid,
}

impl Birth<'_> {
    fn become_program(&self) -> Refusal {
        let Self { launch, image, .. } = self;
        let [directory, ..] = self.descriptors;
        let prepared = self
            .take_terminal_and_descriptors()
            .and_then(|()| at(Step::Limits, limit_resources(&launch.limits)))
            .and_then(|()| at(Step::Limits, self.priority.give_up()))
            .and_then(|()| at(Step::Cgroup, self.enter_cgroup()))
            .and_then(|()| at(Step::Account, self.assume_account()))
            .and_then(|()| at(Step::Directory, fchdir(directory.as_fd())))
            .and_then(|()| self.confine());
        if let Err(refusal) = prepared {
            return refusal;
        }
        let Err(errno) = execve(&image.program, &image.argv, &image.environment);
        Refusal {
            step: Step::Execute,
            errno: errno as i32,
        }
    }

    fn take_terminal_and_descriptors(&self) -> Result<(), Refusal> {
        let [_, stdin, stdout, stderr] = self.descriptors;
        // A session of its own: no terminal of the worker's is its terminal.
        at(Step::Terminal, setsid())?;
        if self.launch.is_terminal {
            at(Step::Terminal, rustix::process::ioctl_tiocsctty(stdin))?;
        }
        let duplicated = dup2_stdin(stdin)
            .and_then(|()| dup2_stdout(stdout))
            .and_then(|()| dup2_stderr(stderr));
        at(Step::Descriptors, duplicated)?;
        at(Step::Descriptors, close_on_exec_from(3))?;
        let none = SigSet::empty();
        at(
            Step::Descriptors,
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&none), None),
        )
    }

    fn enter_cgroup(&self) -> io::Result<()> {
        self.cgroup.map_or(Ok(()), Cgroup::enter)
    }

    /// The kernel is to kill it when the shim dies. A change of user would undo that, so it comes after.
    fn assume_account(&self) -> nix::Result<()> {
        if let Some(account) = &self.launch.account {
            account.assume()?;
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() == self.parent {
            Ok(())
        } else {
            Err(Errno::ESRCH)
        }
    }

    fn confine(&self) -> Result<(), Refusal> {
        set_umask();
        let Some(boundaries) = &self.launch.confinement else {
            return Ok(());
        };
        at(Step::Confinement, drop_capabilities())?;
        at(Step::Confinement, prctl::set_no_new_privs())?;
        at(Step::Confinement, boundaries.enforce())
    }
}

fn at<T>(step: Step, result: Result<T, impl Into<io::Error>>) -> Result<(), Refusal> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal(step, &error.into())),
    }
}
