//! The processes of one task: the leader and everything in its process group.
//! <https://man7.org/linux/man-pages/man2/killpg.2.html>

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A process group, named by its leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    group: Pid,
}

impl Tree {
    /// The group that `leader` was started in.
    pub(crate) fn of(leader: u32) -> Option<Self> {
        let group = Pid::from_raw(i32::try_from(leader).ok()?);
        Some(Self { group })
    }

    /// Asks all of them to end.
    pub(crate) fn terminate(self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends all of them.
    pub(crate) fn kill(self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(self, signal: Signal) {
        // That nobody is left to be signalled is what one hopes for.
        match killpg(self.group, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => tracing::warn!(group = %self.group, %signal, %error, "failed to signal"),
        }
    }
}
