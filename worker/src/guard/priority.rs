//! A shim goes before its job, where that is allowed: who ends a job that forks without end needs time to run.
//! <https://man7.org/linux/man-pages/man2/getpriority.2.html>

use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// As urgent as can be.
const MOST_URGENT: i32 = -20;

/// The priority that this process had, and that its jobs get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Priority {
    before: Option<i32>,
}

impl Priority {
    /// Makes this process as urgent as it may be. Who may not is as urgent as others are.
    pub(crate) fn raise() -> Self {
        let before = getpriority_process(None).ok();
        let is_raised = setpriority_process(None, MOST_URGENT).is_ok();
        Self {
            before: before.filter(|_| is_raised),
        }
    }

    /// Makes this process as urgent as the shim was before.
    pub(crate) fn give_up(self) -> io::Result<()> {
        self.before
            .map_or(Ok(()), |priority| Ok(setpriority_process(None, priority)?))
    }
}
