//! What the worker and its shims say to each other: JSON behind its length, over a Unix socket.
//! Descriptors travel beside the first byte of a message.
//! <https://man7.org/linux/man-pages/man7/unix.7.html>

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::spec::Limits;

use crate::guard::confine::{Account, Confinement};
use crate::process::exit::Exit;

/// Working directory, standard input, output and error.
pub(crate) const DESCRIPTORS_OF_A_JOB: usize = 4;
const LENGTH_BYTES: usize = 4;
/// More than the kernel executes: arguments and environment have at most 6 MiB.
const LONGEST_MESSAGE: usize = 64 << 20;

/// What the worker asks of a shim. An order that finds no process to obey it is void.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start a process. The descriptors come with it.
    Start(Box<Launch>),
    /// SIGTERM, to all of them.
    Terminate,
    /// SIGKILL, to all of them, until none is left.
    Kill,
    Pause,
    Resume,
}

/// A process to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The full path of what is executed.
    pub(crate) program: PathBuf,
    pub(crate) argv: Vec<String>,
    /// `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// Whether the descriptors are a terminal, which is to become the process's own.
    pub(crate) is_terminal: bool,
    pub(crate) limits: Limits,
    pub(crate) confinement: Confinement,
    /// Whom the process belongs to, if not to the worker's user.
    pub(crate) account: Option<Account>,
    /// Removed by the shim, if the worker cannot do so any more.
    pub(crate) workspace: PathBuf,
}

/// What a shim has to say.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process runs.
    Started { pid: u32 },
    /// It could not be started.
    Refused { step: Step, errno: i32 },
    /// A limit has been reached; all of them are being killed.
    LimitReached(Limit),
    /// The leader is gone and has left this many behind. Unless none is, `Gone` follows.
    Exited {
        exit: Exit,
        left: u32,
        is_empty: bool,
    },
    /// Nothing is left; or these, which not even SIGKILL ends.
    Gone { immortal: u32 },
}

/// The steps between a fork and the new program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Step {
    Fork,
    Terminal,
    Descriptors,
    Limits,
    Cgroup,
    Account,
    Directory,
    Confinement,
    Execute,
}

impl Step {
    pub(crate) const ALL: [Self; 9] = [
        Self::Fork,
        Self::Terminal,
        Self::Descriptors,
        Self::Limits,
        Self::Cgroup,
        Self::Account,
        Self::Directory,
        Self::Confinement,
        Self::Execute,
    ];
}

/// What a job may have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Limit {
    Memory,
    CpuTime,
    Processes,
}

/// A message, ready to be sent.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - LENGTH_BYTES).map_err(io::Error::other)?;
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// The first whole message in `bytes` and its length there, if there is one.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Option<(T, usize)>> {
    let Some((header, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = checked_length(*header)?;
    match rest.get(..length) {
        Some(body) => Ok(Some((serde_json::from_slice(body)?, LENGTH_BYTES + length))),
        None => Ok(None),
    }
}

fn checked_length(header: [u8; LENGTH_BYTES]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
    if length > LONGEST_MESSAGE {
        return Err(io::Error::other("a message that nobody would send"));
    }
    Ok(length)
}

/// Sends as much as fits, descriptors with the first byte; how much that was.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_OF_A_JOB))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(sent)
}

/// Waits for `bytes.len()` bytes at most, and takes the descriptors that come with them.
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_OF_A_JOB))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

/// The shim's end: it has time to wait.
pub(crate) struct Line(pub(crate) UnixStream);

impl Line {
    /// The next order, with the descriptors that came with it.
    pub(crate) fn next(&mut self) -> io::Result<(Order, Vec<OwnedFd>)> {
        let mut header = [0; LENGTH_BYTES];
        let (received, descriptors) = receive(&self.0, &mut header)?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.read_exact(&mut header[received..])?;
        let mut body = vec![0; checked_length(header)?];
        self.0.read_exact(&mut body)?;
        Ok((serde_json::from_slice(&body)?, descriptors))
    }

    pub(crate) fn report(&mut self, report: &Report) -> io::Result<()> {
        let bytes = encode(report)?;
        let mut sent = 0;
        while sent < bytes.len() {
            sent += send(&self.0, &bytes[sent..], &[])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_once_it_is_whole() {
        let bytes = encode(&Report::Started { pid: 7 }).expect("is encoded");
        for length in 0..bytes.len() {
            let part: Option<(Report, usize)> = decode(&bytes[..length]).expect("may go on");
            assert_eq!(part, None);
        }
        let mut two = bytes.clone();
        two.extend_from_slice(&bytes);
        let first = decode(&two).expect("is right");
        assert_eq!(first, Some((Report::Started { pid: 7 }, bytes.len())));
        assert!(decode::<Report>(&[0xff; 8]).is_err(), "is no length");
    }

    #[test]
    fn descriptors_come_with_their_order_and_with_no_other() {
        let (worker, shim) = UnixStream::pair().expect("is made");
        let file = std::fs::File::open("/dev/null").expect("exists");
        for (order, descriptors) in [
            (Order::Pause, vec![]),
            (Order::Kill, vec![file.as_fd(), file.as_fd()]),
            (Order::Resume, vec![]),
        ] {
            let bytes = encode(&order).expect("is encoded");
            assert_eq!(
                send(&worker, &bytes, &descriptors).expect("is sent"),
                bytes.len()
            );
        }
        let mut line = Line(shim);
        let counts: Vec<usize> = (0..3)
            .map(|_| line.next().expect("has come").1.len())
            .collect();
        assert_eq!(counts, [0, 2, 0]);
        drop(worker);
        assert!(line.next().is_err(), "nobody is there any more");
    }
}
