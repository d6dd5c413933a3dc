//! Forking, and what else there is no safe wrapper for.
//!
//! The guardian and its shims have one thread, so a forked child may do what any process may:
//! no lock can be held by a thread that the child does not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

/// In which of the two processes one finds oneself.
#[must_use]
pub(crate) enum Forked {
    Child { is_in_cgroup: bool },
    Parent { child: Pid },
}

/// Forks. Only for processes that have one thread.
#[expect(unsafe_code, reason = "the caller has one thread, as the module says")]
pub(crate) fn fork() -> io::Result<Forked> {
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent { child }),
        ForkResult::Child => Ok(Forked::Child {
            is_in_cgroup: false,
        }),
    }
}

/// Forks a child that begins its life in a cgroup. Where `clone3` is not to be had, as under Docker's
/// seccomp profile, the child is still where its parent is, and knows it.
/// <https://man7.org/linux/man-pages/man2/clone3.2.html>
#[expect(
    unsafe_code,
    reason = "libc has no safe wrapper; the caller has one thread, as the module says"
)]
pub(crate) fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Forked> {
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = Arguments {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        ..Arguments::default()
    };
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    match Errno::result(answer) {
        Ok(0) => Ok(Forked::Child { is_in_cgroup: true }),
        Ok(pid) => {
            let pid = i32::try_from(pid).map_err(io::Error::other)?;
            Ok(Forked::Parent {
                child: Pid::from_raw(pid),
            })
        }
        Err(_) => fork(),
    }
}

/// Ends this process, and nothing else: what the parent has set up for its exit is the parent's.
#[expect(
    unsafe_code,
    reason = "libc has no safe wrapper; it has no preconditions"
)]
pub(crate) fn leave(code: i32) -> ! {
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from `first` on, at the next `execve`.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    close_range(first, CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on. Only for a process that has opened none of them itself.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

/// <https://man7.org/linux/man-pages/man2/close_range.2.html>
#[expect(
    unsafe_code,
    reason = "libc has no safe wrapper; callers own none of these descriptors any more"
)]
fn close_range(first: u32, flags: u32) -> io::Result<()> {
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    Errno::result(answer)?;
    Ok(())
}

/// Forgets every disposition of a signal that was inherited or set: programs that are started
/// ignore no signal.
#[expect(
    unsafe_code,
    reason = "the default dispositions run no code of this process"
)]
pub(crate) fn reset_signals() {
    const LAST_SIGNAL: i32 = 64;
    /// The kernel's `struct sigaction`: handler, flags, restorer and mask, all of them none.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    for signal in 1..=LAST_SIGNAL {
        // Not by the C library, which keeps two signals to itself. SIGKILL and SIGSTOP need no resetting.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null::<u64>(),
                MASK_BYTES,
            )
        };
    }
}
