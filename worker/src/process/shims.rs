//! The worker's side of [`crate::guard`]: the guardian, the shims that wait for a job, and the
//! conversation with the one that has one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use nix::sys::prctl;
use nix::unistd::{Pid, getpid};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::claim::Claim;
use crate::confinement::CgroupChoice;
use crate::guard::cgroup::create_nursery;
use crate::guard::death::{Death, next_death};
use crate::guard::wire::{Launch, Order, Report, Step, decode, encode, send};
use crate::guard::{NAME, tree};

/// How long what a guardian has left may take to be gone.
const LONGEST_SWEEP: Duration = Duration::from_secs(5);
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

/// All shims of a worker.
pub(crate) struct Shims {
    nursery: Option<Claim>,
    guardian: Mutex<Option<Guardian>>,
    idle: Mutex<Vec<Shim>>,
}

/// The guardian as the worker sees it. It ends when its socket is closed.
struct Guardian {
    pid: Pid,
    socket: StdUnixStream,
}

/// A shim, for one job at a time.
pub(crate) struct Shim {
    socket: UnixStream,
    inbox: BytesMut,
}

/// Why a process was not started.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The kernel refused at this step.
    Refused { step: Step, errno: i32 },
    /// The shim is gone. The process may have been started, and is being killed if so.
    ShimLost(io::Error),
    /// The shim was gone before it could be asked.
    NotAsked(io::Error),
}

impl Shims {
    /// Makes this process one that can look after what a guardian leaves.
    pub(crate) fn new(cgroup: &CgroupChoice) -> io::Result<Self> {
        prctl::set_child_subreaper(true)?;
        // Jobs of the same user are not to read the worker's memory, nor its environment.
        prctl::set_dumpable(false)?;
        tree::is_visible()?;
        let nursery = match cgroup {
            CgroupChoice::Off => None,
            CgroupChoice::Own => create_nursery(None)
                .inspect_err(|error| tracing::info!(%error, "no cgroups can be made"))
                .ok(),
            CgroupChoice::Within(path) => Some(create_nursery(Some(path))?),
        };
        Ok(Self {
            nursery,
            guardian: Mutex::default(),
            idle: Mutex::default(),
        })
    }

    /// How all processes of a job are found and ended, in words for the log.
    pub(crate) fn mechanism(&self) -> &'static str {
        match self.nursery {
            Some(_) => "cgroup.kill and subreaper",
            None => "subreaper",
        }
    }

    /// A shim without a job.
    pub(crate) fn take(&self) -> io::Result<Shim> {
        loop {
            // Not in the condition, or the lock would be held in the body.
            let idle = lock(&self.idle).pop();
            match idle {
                Some(shim) if shim.is_there() => return Ok(shim),
                Some(_) => {}
                None => break,
            }
        }
        let (ours, theirs) = StdUnixStream::pair()?;
        self.ask_for_shim(&theirs)?;
        ours.set_nonblocking(true)?;
        Ok(Shim {
            socket: UnixStream::from_std(ours)?,
            inbox: BytesMut::new(),
        })
    }

    /// Gives a shim back whose job is over, with nothing left of it.
    pub(crate) fn put_back(&self, shim: Shim) {
        lock(&self.idle).push(shim);
    }

    fn ask_for_shim(&self, socket: &StdUnixStream) -> io::Result<()> {
        let mut guardian = lock(&self.guardian);
        if let Some(guardian) = &*guardian
            && send(&guardian.socket, &[0], &[socket.as_fd()]).is_ok()
        {
            return Ok(());
        }
        let new = guardian.insert(self.start_guardian()?);
        send(&new.socket, &[0], &[socket.as_fd()])?;
        Ok(())
    }

    fn start_guardian(&self) -> io::Result<Guardian> {
        let (ours, theirs) = StdUnixStream::pair()?;
        // A guardian that does not listen is none, and nobody waits for it.
        ours.set_nonblocking(true)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the guardian is no job; it starts them"
        )]
        // What the link leads to may have been replaced by a newer version; the link itself has not.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(NAME)
            .args(self.nursery.as_ref().map(|nursery| &nursery.path))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        // Reaped with all other children of this process, in `look_after`.
        let pid = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
        Ok(Guardian {
            pid: Pid::from_raw(pid),
            socket: ours,
        })
    }

    /// Takes leave of the children of this process, for as long as it is polled: of the guardian, and of whatever
    /// comes to this process when the guardian has been killed.
    pub(crate) async fn look_after(&self) -> io::Result<()> {
        let mut deaths = signal(SignalKind::child())?;
        loop {
            deaths.recv().await;
            if self.bury()? {
                tracing::error!("the guardian was killed, so all jobs are ended");
                self.sweep().await?;
            }
        }
    }

    /// Reaps whoever has ended; whether the guardian was among them.
    fn bury(&self) -> io::Result<bool> {
        let mut was_guardian = false;
        while let Death::Of(pid, _) = next_death()? {
            let mut guardian = lock(&self.guardian);
            if guardian
                .as_ref()
                .is_some_and(|guardian| guardian.pid == pid)
            {
                *guardian = None;
                was_guardian = true;
            }
        }
        Ok(was_guardian)
    }

    async fn sweep(&self) -> io::Result<()> {
        lock(&self.idle).clear();
        let deadline = Instant::now() + LONGEST_SWEEP;
        while self.kill_strays() && Instant::now() < deadline {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.bury()?;
        }
        Ok(())
    }

    fn kill_strays(&self) -> bool {
        let guardian = lock(&self.guardian).as_ref().map(|guardian| guardian.pid);
        tree::kill_strays(getpid(), |pid| Some(pid) == guardian)
    }
}

impl Shim {
    /// Starts a process and returns its pid once its program has begun.
    pub(crate) async fn start(
        &mut self,
        launch: Launch,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<u32, StartError> {
        let message = encode(&Order::Start(Box::new(launch))).map_err(StartError::NotAsked)?;
        let sent = self.send_with(&message, descriptors).await;
        let sent = sent.map_err(StartError::NotAsked)?;
        // A shim starts nothing before it has read the whole message.
        let rest = self.socket.write_all(&message[sent..]).await;
        rest.map_err(StartError::NotAsked)?;
        match self.next().await.map_err(StartError::ShimLost)? {
            Report::Started { pid } => Ok(pid),
            Report::Refused { step, errno } => Err(StartError::Refused { step, errno }),
            other => Err(StartError::ShimLost(unexpected(&other))),
        }
    }

    async fn send_with(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let send = || send(&self.socket, message, descriptors);
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// Gives an order. That nobody takes it is seen when nobody reports.
    pub(crate) async fn order(&mut self, order: Order) {
        let message = encode(&order).unwrap_or_default();
        if let Err(error) = self.socket.write_all(&message).await {
            tracing::debug!(%error, ?order, "a shim takes no order");
        }
    }

    /// What the shim has to say next. Nothing is lost if this is dropped half-way.
    pub(crate) async fn next(&mut self) -> io::Result<Report> {
        loop {
            if let Some((report, length)) = decode(&self.inbox)? {
                self.inbox.advance(length);
                return Ok(report);
            }
            if self.socket.read_buf(&mut self.inbox).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whether it is still there, and silent.
    fn is_there(&self) -> bool {
        let read = self.socket.try_read(&mut [0]);
        self.inbox.is_empty() && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn unexpected(report: &Report) -> io::Error {
    io::Error::other(format!("the shim says {report:?} and has not been asked"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both are whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
