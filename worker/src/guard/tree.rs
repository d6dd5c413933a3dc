//! The descendants of a process, found through `/proc`.
//!
//! The shim is the subreaper of its job: whatever a process of the job does (`setsid`, forking twice,
//! clearing its environment), it stays a descendant of the shim. Processes are signalled by pidfd, and only
//! after it was seen that the pidfd is that of a descendant: a pid that is used again hits nobody.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::killpg;
use nix::unistd::{Pid, getpgid, getpgrp, getpid};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process as `/proc/<pid>/stat` shows it.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    parent: Pid,
    state: u8,
    /// Of itself and of the children that it has waited for.
    pub(crate) cpu_ticks: u64,
}

impl Process {
    fn read(pid: Pid) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &stat)
    }

    fn parse(pid: Pid, stat: &[u8]) -> Option<Self> {
        // The name before it may contain anything, parentheses too.
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let parent = Pid::from_raw(fields.get(1)?.parse().ok()?);
        let times = fields.get(11..15)?.iter();
        Some(Self {
            pid,
            parent,
            state: *fields.first()?.as_bytes().first()?,
            cpu_ticks: times.filter_map(|time| time.parse::<u64>().ok()).sum(),
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// A descendant that is held by a pidfd, so that it is this one and no other.
struct Held {
    process: Process,
    pidfd: OwnedFd,
}

impl Held {
    fn hold(pid: Pid, parent: Pid) -> Option<Self> {
        let raw = rustix::process::Pid::from_raw(pid.as_raw())?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        let process = Process::read(pid)?;
        (process.parent == parent).then_some(Self { process, pidfd })
    }

    fn signal(&self, signal: Signal) {
        // It may have ended by now; a program of another user that it has become cannot be helped.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }
}

/// The descendants of `root` that are alive.
pub(crate) fn descendants(root: Pid) -> Vec<Process> {
    let mut found = Vec::new();
    walk(root, |pid, parent| {
        let process = Process::read(pid).filter(|process| process.parent == parent);
        found.extend(process.filter(Process::is_alive));
    });
    found
}

/// Sends SIGKILL to every descendant of this process, parents first, after the groups of its children.
///
/// A group is killed at one stroke, however fast it forks. Its number is nobody else's as long as a child of this
/// process is in it, because nobody else can reap that child.
///
/// A process that has been sent SIGKILL forks no more, so its children are looked for after it has been
/// signalled: those that a walk misses are the children of processes that have died meanwhile. They are
/// children of `root` by now, where the next walk finds them.
pub(crate) fn kill_descendants() {
    let root = getpid();
    kill_groups_of(&children(root, &mut String::new()));
    kill(root);
}

fn kill_groups_of(children: &[Pid]) {
    let own = getpgrp();
    let groups = children.iter().filter_map(|&pid| getpgid(Some(pid)).ok());
    let groups: BTreeSet<Pid> = groups.filter(|&group| group != own).collect();
    for group in groups {
        // Only zombies may be left of it.
        let _ = killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
}

/// The walk of [`kill_descendants`], below any process.
fn kill(root: Pid) {
    walk(root, |pid, parent| {
        if let Some(held) = Held::hold(pid, parent) {
            held.signal(Signal::KILL);
        }
    });
}

/// Sends a signal to every descendant of `root`, once.
///
/// All are found before the first one is signalled: it may die of that, and its children would be where the
/// walk has been already.
pub(crate) fn signal(root: Pid, signal: Signal) {
    let mut found = Vec::new();
    walk(root, |pid, parent| found.push((pid, parent)));
    for (pid, parent) in found {
        let held = Held::hold(pid, parent).or_else(|| Held::hold(pid, root));
        if let Some(held) = held {
            held.signal(signal);
        }
    }
}

/// Kills the children of `root` that are not `kept`, with their descendants; whether there were any.
pub(crate) fn kill_strays(root: Pid, is_kept: impl Fn(Pid) -> bool) -> bool {
    let mut strays = children(root, &mut String::new());
    strays.retain(|&pid| !is_kept(pid));
    kill_groups_of(&strays);
    for &stray in &strays {
        if let Some(held) = Held::hold(stray, root) {
            held.signal(Signal::KILL);
        }
        kill(stray);
    }
    !strays.is_empty()
}

/// Walks over which a tree is stopped; one that forks faster than that is not.
const WALKS_TO_STOP: usize = 100;

/// Stops every descendant of `root`; whether all of them are.
pub(crate) fn stop(root: Pid) -> bool {
    (0..WALKS_TO_STOP).any(|_| {
        let mut are_all_stopped = true;
        walk(root, |pid, parent| {
            let Some(held) = Held::hold(pid, parent) else {
                return;
            };
            if held.process.is_alive() && !held.process.is_stopped() {
                held.signal(Signal::STOP);
                are_all_stopped = false;
            }
        });
        are_all_stopped
    })
}

/// Visits the descendants of `root` with their parents, each before its own children are looked for.
fn walk(root: Pid, mut visit: impl FnMut(Pid, Pid)) {
    let mut pending = vec![root];
    let mut path = String::new();
    while let Some(parent) = pending.pop() {
        for child in children(parent, &mut path) {
            visit(child, parent);
            pending.push(child);
        }
    }
}

/// The children of all threads of a process; none if it is gone.
fn children(parent: Pid, path: &mut String) -> Vec<Pid> {
    let mut found = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
        return found;
    };
    for thread in threads.flatten() {
        path.clear();
        let name = thread.file_name();
        let _ = write!(path, "/proc/{parent}/task/{}/children", name.display());
        let pids = fs::read_to_string(&*path).unwrap_or_default();
        let pids = pids.split_ascii_whitespace();
        found.extend(pids.filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    found
}

/// Whether the kernel shows the children of a process (`CONFIG_PROC_CHILDREN`).
pub(crate) fn is_visible() -> io::Result<()> {
    fs::metadata("/proc/thread-self/children").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_name_looks_like_fields_is_read_right() {
        let stat = b"42 (a) Z 1 (b) S 7 42 42 0 -1 4194560 9 0 0 0 1 2 3 4 20 0 1 0 55 0 0";
        let process = Process::parse(Pid::from_raw(42), stat).expect("is a process");
        assert_eq!(process.parent, Pid::from_raw(7));
        assert_eq!(process.cpu_ticks, 10);
        assert!(process.is_alive());
    }

    #[test]
    fn a_process_is_found_below_its_parent_and_not_below_another() {
        assert!(is_visible().is_ok());
        let own = nix::unistd::getpid();
        let all = descendants(nix::unistd::getppid());
        assert!(all.iter().any(|process| process.pid == own));
        assert!(!descendants(own).iter().any(|process| process.pid == own));
        assert!(Held::hold(own, own).is_none(), "it is not its own parent");
    }
}
