//! The processes between the worker and its jobs.
//!
//! ```text
//! worker ── guardian ─┬─ shim ── job's leader ── …
//!     ╰────────────── ├─ shim ── job's leader ── …
//!        a socket each ╰ …
//! ```
//!
//! # Theory of operation
//!
//! A worker is large and has many threads, which makes forking dear and the order of events uncertain. So it
//! starts this program once more, as the *guardian*, which stays small and has one thread. The guardian forks a
//! *shim* for each slot of the worker, and does nothing else until something dies.
//!
//! A shim starts jobs, one after the other, at the word of the worker, with whom it shares a socket. It is
//! the parent of the job's leader and the subreaper of everything else: a process of the job can do what it
//! likes, it stays a descendant of its shim until it is dead. That the shim has no children left is how one
//! knows that a job has come to its end. Where a cgroup can be made, it kills and freezes at one stroke.
//!
//! Any two of the three may be killed:
//!
//! | killed | then |
//! |---|---|
//! | worker | each shim sees its socket close, ends its job and itself; the guardian sees to those that do not |
//! | guardian | each shim sees a pipe close, ends its job and itself; what is left comes to the worker, which ends it |
//! | shim | the kernel kills the leader; the rest comes to the guardian, which ends it |

pub(crate) mod cgroup;
pub(crate) mod confine;
pub(crate) mod death;
mod fork;
mod guardian;
mod launch;
mod priority;
mod shim;
pub(crate) mod tree;
mod usage;
pub(crate) mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

/// By this name the program is started when it is to be the guardian.
pub(crate) const NAME: &str = "cc-executor-guardian";

/// Runs as the guardian, if that is what this process was started for. The first thing in every `main` that
/// may work as a worker, while there is but one thread.
pub fn take_over() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    let nursery = arguments.next().map(PathBuf::from);
    match guardian::run(nursery) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{NAME}: failed to guard the worker's jobs: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}
