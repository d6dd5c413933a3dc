//! The shim: the parent of one job at a time, and the subreaper of all that the job starts.
//!
//! It has one thread, which waits for three things: an order of the worker, the death of a child, and the
//! death of the worker or the guardian. When either of those is gone it ends the job and itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getpid};
use rustix::process::Signal as PidfdSignal;

use crate::guard::NAME;
use crate::guard::cgroup::Cgroup;
use crate::guard::death::{Death, next_death};
use crate::guard::launch::{Refusal, launch};
use crate::guard::priority::Priority;
use crate::guard::tree;
use crate::guard::usage::Meter;
use crate::guard::wire::{Launch, Line, Order, Report};
use crate::process::exit::Exit;

/// Between two rounds of killing.
const KILL_INTERVAL: Duration = Duration::from_millis(5);
/// After this long, what is left cannot be killed: it waits in the kernel.
const LONGEST_KILL: Duration = Duration::from_secs(10);

/// What a shim is made of.
pub(crate) struct Shim {
    line: Line,
    /// Readable when a child has ended.
    deaths: SignalFd,
    /// Hangs up when the guardian dies.
    guardian: OwnedFd,
    cgroup: Option<Cgroup>,
    priority: Priority,
    job: Option<Job>,
}

/// A job whose leader has been started, until nothing is left of it.
struct Job {
    leader: Pid,
    phase: Phase,
    is_terminating: bool,
    is_paused: bool,
    killing_since: Option<Instant>,
    meter: Meter,
    measured_at: Instant,
    workspace: std::path::PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The leader lives, or has not been reaped: its pid and its group's are its own.
    Led,
    /// The leader is gone, others are left.
    Orphaned,
}

impl Shim {
    /// Becomes the subreaper of what it will start.
    pub(crate) fn new(
        socket: UnixStream,
        deaths: SignalFd,
        guardian: OwnedFd,
        nursery: Option<&Path>,
    ) -> io::Result<Self> {
        prctl::set_child_subreaper(true)?;
        let priority = Priority::raise();
        let cgroup = nursery.and_then(|nursery| {
            Cgroup::create(nursery.to_owned())
                .inspect_err(|error| eprintln!("{NAME}: goes on without a cgroup: {error}"))
                .ok()
        });
        Ok(Self {
            line: Line(socket),
            deaths,
            guardian,
            cgroup,
            priority,
            job: None,
        })
    }

    /// Works until the worker or the guardian is gone, and leaves nothing behind.
    pub(crate) fn run(mut self) {
        // Whatever the error is, there is nobody left to be told.
        let _ = self.serve();
        self.abandon();
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.guardian {
                return Ok(());
            }
            if ready.deaths {
                self.reap()?;
            }
            if ready.order {
                let (order, descriptors) = self.line.next()?;
                self.obey(order, descriptors)?;
            }
            self.go_on_killing()?;
            self.measure()?;
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = [
            PollFd::new(self.line.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.deaths.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.guardian.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = self.job.as_ref().and_then(Job::next_look);
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up, or the last part of a millisecond would be spent in a loop.
            let ms = timeout.as_millis().saturating_add(1);
            PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [order, deaths, guardian] = fds.map(|fd| fd.any().unwrap_or(false));
        Ok(Ready {
            order,
            deaths,
            guardian,
        })
    }

    fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match (order, &mut self.job) {
            (Order::Start(job), None) => self.start(&job, descriptors),
            (Order::Start(_), Some(_)) => Err(Errno::EBUSY.into()),
            (Order::Terminate, Some(job)) => {
                job.terminate(self.cgroup.as_ref());
                Ok(())
            }
            (Order::Kill, Some(job)) => {
                job.killing_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            (Order::Pause, Some(job)) => job.pause(self.cgroup.as_ref()),
            (Order::Resume, Some(job)) => job.resume(self.cgroup.as_ref()),
            // It ended while the order was on its way.
            (Order::Terminate | Order::Kill | Order::Pause | Order::Resume, None) => Ok(()),
        }
    }

    fn start(&mut self, job: &Launch, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match launch(job, descriptors, self.cgroup.as_ref(), self.priority) {
            Ok(leader) => {
                self.job = Some(Job {
                    leader,
                    phase: Phase::Led,
                    is_terminating: false,
                    is_paused: false,
                    killing_since: None,
                    meter: Meter::new(job.limits),
                    measured_at: Instant::now(),
                    workspace: job.workspace.clone(),
                });
                let pid = leader.as_raw().unsigned_abs();
                self.line.report(&Report::Started { pid })
            }
            Err(Refusal { step, errno }) => {
                // The child that did not become a program has to be reaped.
                self.reap()?;
                self.line.report(&Report::Refused { step, errno })
            }
        }
    }

    /// Takes leave of every child that has ended, be it the job's leader or an orphan.
    fn reap(&mut self) -> io::Result<()> {
        while self.deaths.read_signal()?.is_some() {}
        let mut exit = None;
        let is_empty = loop {
            match next_death()? {
                Death::Of(pid, status) => {
                    let is_leader = self.job.as_ref().is_some_and(|job| job.leader == pid);
                    exit = is_leader.then(|| Exit::of(status)).or(exit);
                }
                Death::NotYet => break false,
                Death::NobodyLeft => break true,
            }
        };
        if let (Some(exit), Some(job)) = (exit, &mut self.job) {
            let left = if is_empty { 0 } else { job.lose_leader() };
            self.line.report(&Report::Exited {
                exit,
                left,
                is_empty,
            })?;
            if is_empty {
                self.clear()?;
            }
        } else if is_empty && self.is_orphaned() {
            self.clear()?;
            self.line.report(&Report::Gone { immortal: 0 })?;
        }
        Ok(())
    }

    fn is_orphaned(&self) -> bool {
        self.job
            .as_ref()
            .is_some_and(|job| job.phase == Phase::Orphaned)
    }

    /// Makes ready for the next job.
    fn clear(&mut self) -> io::Result<()> {
        let is_spent = |job: Job| job.is_paused || job.killing_since.is_some();
        if self.job.take().is_some_and(is_spent)
            && let Some(cgroup) = self.cgroup.take()
        {
            self.cgroup = Some(cgroup.renew()?);
        }
        Ok(())
    }

    fn go_on_killing(&mut self) -> io::Result<()> {
        let Some(since) = self.job.as_ref().and_then(|job| job.killing_since) else {
            return Ok(());
        };
        kill_all(self.cgroup.as_ref());
        self.reap()?;
        if self.job.is_some() && since.elapsed() > LONGEST_KILL {
            let left = tree::descendants(getpid()).len();
            let immortal = u32::try_from(left).unwrap_or(u32::MAX);
            self.line.report(&Report::Gone { immortal })?;
            // No worker wants this shim any more. It goes on trying by itself.
            return Err(Errno::ETIMEDOUT.into());
        }
        Ok(())
    }

    fn measure(&mut self) -> io::Result<()> {
        let Some(job) = &mut self.job else {
            return Ok(());
        };
        let is_due = job
            .meter
            .interval()
            .is_some_and(|interval| job.measured_at.elapsed() >= interval);
        if !is_due || job.killing_since.is_some() {
            return Ok(());
        }
        job.measured_at = Instant::now();
        let Some(limit) = job.meter.measure() else {
            return Ok(());
        };
        job.killing_since = Some(Instant::now());
        self.line.report(&Report::LimitReached(limit))?;
        self.go_on_killing()
    }

    /// The end of this process: nothing of the job is to be left.
    fn abandon(mut self) {
        let workspace = self.job.take().map(|job| job.workspace);
        loop {
            kill_all(self.cgroup.as_ref());
            match next_death() {
                Ok(Death::Of(..)) => {}
                Ok(Death::NotYet) => std::thread::sleep(KILL_INTERVAL),
                Ok(Death::NobodyLeft) | Err(_) => break,
            }
        }
        if let Some(workspace) = workspace {
            // The worker may have removed it already.
            let _ = std::fs::remove_dir_all(workspace);
        }
    }
}

/// What a shim has been woken for.
struct Ready {
    order: bool,
    deaths: bool,
    guardian: bool,
}

impl Job {
    /// How long until something is to be done without being asked.
    fn next_look(&self) -> Option<Duration> {
        if self.killing_since.is_some() {
            return Some(KILL_INTERVAL);
        }
        let interval = self.meter.interval()?;
        Some(interval.saturating_sub(self.measured_at.elapsed()))
    }

    /// How many it has left behind.
    fn lose_leader(&mut self) -> u32 {
        self.phase = Phase::Orphaned;
        let left = tree::descendants(getpid()).len();
        if self.is_terminating {
            // They have not been asked yet, if they left the leader's group.
            tree::signal(getpid(), PidfdSignal::TERM);
        }
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Asks for the end: the leader with its group, which a shell's commands belong to. Who has left the
    /// group is the leader's to tidy up, and is asked once the leader is gone.
    fn terminate(&mut self, cgroup: Option<&Cgroup>) {
        self.is_terminating = true;
        match self.phase {
            Phase::Led => {
                // Until it is reaped, no other group has this number.
                let _ = killpg(self.leader, Signal::SIGTERM);
            }
            Phase::Orphaned => tree::signal(getpid(), PidfdSignal::TERM),
        }
        // What is stopped does not see the signal.
        let _ = self.resume(cgroup);
    }

    fn pause(&mut self, cgroup: Option<&Cgroup>) -> io::Result<()> {
        self.is_paused = true;
        if let Some(cgroup) = cgroup {
            return cgroup.freeze();
        }
        tree::stop(getpid());
        Ok(())
    }

    fn resume(&mut self, cgroup: Option<&Cgroup>) -> io::Result<()> {
        if let Some(cgroup) = cgroup.filter(|_| self.is_paused) {
            cgroup.thaw()?;
        }
        self.is_paused = false;
        tree::signal(getpid(), PidfdSignal::CONT);
        Ok(())
    }
}

/// One round: the cgroup, which nobody in it escapes, and the descendants, of whom one may have left it.
fn kill_all(cgroup: Option<&Cgroup>) {
    if let Some(cgroup) = cgroup {
        // The descendants are killed in any case.
        let _ = cgroup.kill();
    }
    tree::kill_descendants();
}
