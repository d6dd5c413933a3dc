//! A terminal for programs that only behave on one.
//! <https://man7.org/linux/man-pages/man7/pty.7.html>

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use shared::spec::TerminalSize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a keyboard sends for the end of the input.
const END_OF_INPUT: u8 = 4;

/// The side of the terminal that a person would sit at: what is written is typed, what is read is shown.
#[derive(Clone, Debug)]
pub(crate) struct Terminal(Arc<AsyncFd<OwnedFd>>);

/// A terminal of this size, and the side of it that is for the process.
pub(crate) fn open(size: TerminalSize) -> io::Result<(Terminal, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&theirs, size)?;
    let status = rustix::fs::fcntl_getfl(&ours)?;
    rustix::fs::fcntl_setfl(&ours, status | OFlags::NONBLOCK)?;
    Ok((Terminal(Arc::new(register(ours)?)), theirs))
}

#[expect(
    unsafe_code,
    reason = "the descriptor is owned, and closed only after it is deregistered"
)]
fn register(terminal: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    unsafe { AsyncFd::register(terminal) }.map_err(io::Error::from)
}

/// What has to be typed so that a program that reads lines gets `text` and then its end. There is no other
/// end on a terminal; a program that reads keys gets it as one more of them.
pub(crate) fn typed(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    // Behind an unfinished line the first one only sends that line off.
    if !text.is_empty() && !text.ends_with('\n') {
        bytes.push(END_OF_INPUT);
    }
    bytes.push(END_OF_INPUT);
    bytes
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let read = guard
                .try_io(|terminal| Ok(rustix::io::read(terminal, buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other side open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(written) = guard.try_io(|terminal| Ok(rustix::io::write(terminal, bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing to do: the end of the input has been typed.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_input_is_typed_once_at_the_beginning_of_a_line() {
        assert_eq!(typed(""), [4]);
        assert_eq!(typed("a\n"), [b'a', b'\n', 4]);
        assert_eq!(typed("a"), [b'a', 4, 4]);
    }
}
