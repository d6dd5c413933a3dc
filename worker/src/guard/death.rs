//! Children that have ended, one after the other.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

/// What there is to know about the children of this process.
pub(crate) enum Death {
    /// This one has ended, and is no more.
    Of(Pid, WaitStatus),
    /// All others live.
    NotYet,
    NobodyLeft,
}

/// Reaps one child that has ended, if one has.
pub(crate) fn next_death() -> io::Result<Death> {
    loop {
        return match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                Ok(Death::Of(Pid::from_raw(pid.as_raw_nonzero().get()), status))
            }
            Ok(None) => Ok(Death::NotYet),
            Err(Errno::CHILD) => Ok(Death::NobodyLeft),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno.into()),
        };
    }
}

/// A descriptor that is readable when a child has ended. SIGCHLD has to be blocked.
pub(crate) fn deaths() -> io::Result<SignalFd> {
    let signals = SigSet::from(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&signals, flags)?)
}
