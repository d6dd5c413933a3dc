//! What all processes of a job together use, measured against the job's limits.
//!
//! The kernel limits single processes; a job is many. So the shim adds up, a few times a second,
//! but only for a job that has such a limit.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use shared::spec::Limits;

use crate::guard::tree::{Process, descendants};
use crate::guard::wire::Limit;

/// Forking is fast.
const INTERVAL_FOR_PROCESSES: Duration = Duration::from_millis(20);
const INTERVAL: Duration = Duration::from_millis(100);

/// Measures one job.
#[derive(Debug)]
pub(crate) struct Meter {
    root: Pid,
    limits: Limits,
    /// What earlier jobs of this shim have used.
    cpu_before: Duration,
}

impl Meter {
    /// Measures the descendants of this process from now on.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            root: nix::unistd::getpid(),
            limits,
            cpu_before: cpu_of_reaped(),
        }
    }

    /// How often to look; never, where there is nothing to look for.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let Limits {
            memory_bytes,
            cpu_seconds,
            processes,
            ..
        } = self.limits;
        match (processes, memory_bytes.or(cpu_seconds)) {
            (Some(_), _) => Some(INTERVAL_FOR_PROCESSES),
            (None, Some(_)) => Some(INTERVAL),
            (None, None) => None,
        }
    }

    /// The limit that has been reached, if one has.
    pub(crate) fn measure(&self) -> Option<Limit> {
        let processes = descendants(self.root);
        let Limits {
            memory_bytes,
            cpu_seconds,
            processes: count,
            ..
        } = self.limits;
        if count.is_some_and(|most| processes.len() as u64 > most) {
            return Some(Limit::Processes);
        }
        if memory_bytes.is_some_and(|most| memory_of(&processes) > most) {
            return Some(Limit::Memory);
        }
        let cpu_limit = cpu_seconds.map(Duration::from_secs);
        if cpu_limit.is_some_and(|most| self.cpu_of(&processes) >= most) {
            return Some(Limit::CpuTime);
        }
        None
    }

    fn cpu_of(&self, processes: &[Process]) -> Duration {
        let ticks: u64 = processes.iter().map(|process| process.cpu_ticks).sum();
        let of_living = Duration::from_millis(ticks.saturating_mul(1_000) / ticks_per_second());
        of_living + cpu_of_reaped().saturating_sub(self.cpu_before)
    }
}

fn ticks_per_second() -> u64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let ticks = ticks
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok());
    ticks.filter(|&ticks| ticks > 0).unwrap_or(100)
}

/// The time of the children that this process has reaped, and of those that they had reaped.
fn cpu_of_reaped() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return Duration::ZERO;
    };
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
}

/// What they hold in memory that is not a file's: private memory and its copies on write.
fn memory_of(processes: &[Process]) -> u64 {
    let pages: u64 = processes.iter().map(|process| pages_of(process.pid)).sum();
    pages.saturating_mul(rustix::param::page_size() as u64)
}

/// <https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html>
fn pages_of(pid: Pid) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let mut fields = statm
        .split(' ')
        .filter_map(|field| field.parse::<u64>().ok());
    let resident = fields.nth(1).unwrap_or(0);
    let of_files = fields.next().unwrap_or(0);
    resident.saturating_sub(of_files)
}
