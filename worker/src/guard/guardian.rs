//! The guardian: forks shims, and ends what is left when the worker or a shim has been killed.
//!
//! It stands between the worker and its shims, and is the subreaper of what a killed shim leaves.

use std::collections::HashSet;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, dup2_stdin, getpid, setsid};

use crate::guard::cgroup;
use crate::guard::death::{Death, deaths, next_death};
use crate::guard::fork::{Forked, close_from, fork, leave, reset_signals};
use crate::guard::shim::Shim;
use crate::guard::tree;
use crate::guard::wire::receive;

/// How long shims may take to end their jobs, and themselves, when the worker is gone.
const SHIMS_GRACE: Duration = Duration::from_secs(2);
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

/// The process that forks shims.
struct Guardian {
    worker: UnixStream,
    deaths: SignalFd,
    shims: HashSet<Pid>,
    /// Where the shims' cgroups are made.
    nursery: Option<PathBuf>,
    /// What shims see hang up when this process dies.
    life: PipeReader,
    /// Held for as long as this process lives, and by no other.
    hold: PipeWriter,
}

/// Runs as the guardian until the worker is gone and nothing is left of its jobs.
pub(crate) fn run(nursery: Option<PathBuf>) -> io::Result<()> {
    close_from(3)?;
    reset_signals();
    // SIGTERM and Ctrl-C are for the worker. It says when this is over.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    setsid()?;
    prctl::set_child_subreaper(true)?;
    let worker = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let (life, hold) = io::pipe()?;
    let guardian = Guardian {
        worker: worker.into(),
        deaths: deaths()?,
        shims: HashSet::new(),
        nursery,
        life,
        hold,
    };
    guardian.serve()
}

impl Guardian {
    fn serve(mut self) -> io::Result<()> {
        while let Some(socket) = self.next_request()? {
            match fork()? {
                Forked::Parent { child } => {
                    self.shims.insert(child);
                }
                Forked::Child { .. } => {
                    let is_failure = self.become_shim(socket).is_err();
                    leave(i32::from(is_failure));
                }
            }
        }
        self.outlive_the_worker();
        Ok(())
    }

    /// The socket of a shim that the worker wants; none when the worker is gone.
    fn next_request(&mut self) -> io::Result<Option<UnixStream>> {
        loop {
            let mut fds = [
                PollFd::new(self.worker.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.deaths.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [worker, deaths] = fds.map(|fd| fd.any().unwrap_or(false));
            if deaths {
                self.bury()?;
            }
            if worker {
                let (received, mut sockets) = receive(&self.worker, &mut [0])?;
                if received == 0 {
                    return Ok(None);
                }
                if let Some(socket) = sockets.pop() {
                    return Ok(Some(socket.into()));
                }
            }
        }
    }

    /// In the forked process: everything of the guardian's is closed, above all what says that it lives.
    fn become_shim(self, socket: UnixStream) -> io::Result<()> {
        let Self {
            worker,
            deaths: deaths_of_shims,
            life,
            hold,
            nursery,
            ..
        } = self;
        drop((worker, deaths_of_shims, hold));
        Shim::new(socket, deaths()?, life.into(), nursery.as_deref())?.run();
        Ok(())
    }

    /// Reaps whoever has ended. What a shim has left is this process's now, and ends.
    fn bury(&mut self) -> io::Result<()> {
        while self.deaths.read_signal()?.is_some() {}
        loop {
            match next_death()? {
                Death::Of(pid, _) => self.forget(pid),
                Death::NotYet => {
                    if !self.kill_strays() {
                        return Ok(());
                    }
                    std::thread::sleep(SWEEP_INTERVAL);
                }
                Death::NobodyLeft => return Ok(()),
            }
        }
    }

    fn forget(&mut self, pid: Pid) {
        if self.shims.remove(&pid)
            && let Some(nursery) = &self.nursery
        {
            cgroup::remove_of(nursery, pid);
        }
    }

    /// Kills what no shim looks after; whether there was anything.
    fn kill_strays(&self) -> bool {
        tree::kill_strays(getpid(), |pid| self.shims.contains(&pid))
    }

    /// The shims have seen for themselves that the worker is gone. Whoever of them does not get on with it
    /// is killed too; its job is then this process's to end.
    fn outlive_the_worker(mut self) {
        let deadline = Instant::now() + SHIMS_GRACE;
        loop {
            match next_death() {
                Ok(Death::Of(pid, _)) => self.forget(pid),
                Ok(Death::NotYet) => {
                    self.kill_strays();
                    if Instant::now() > deadline {
                        tree::kill_descendants();
                    }
                    std::thread::sleep(SWEEP_INTERVAL);
                }
                Ok(Death::NobodyLeft) | Err(_) => break,
            }
        }
        if let Some(nursery) = &self.nursery {
            // The next worker that starts here looks for what is left.
            let _ = cgroup::remove_nursery(nursery);
        }
    }
}
