//! Writes what happens in an execution to its log.
//!
//! Batches form by themselves: while one append is under way, what arrives gathers, and goes out
//! together with the next one; when nothing is under way, it goes out at once. The channel in front
//! is bounded, so a slow store slows the process down instead of filling the memory.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use shared::event::{Head, Line, Sandbox, Started, Stream, TaskComplete};
use shared::id::EventId;
use shared::outcome::Failure;
use shared::output::{Cutter, More, Piece};
use shared::store::{AppendError, Lease, SharedStore};
use shared::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Items that may wait; an item has at most 64 KiB.
const BACKLOG: usize = 16;
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(20);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Something that happens in an execution.
#[derive(Debug)]
pub(crate) enum Item {
    /// A process has started.
    Started { pid: u32, task: Option<usize> },
    /// All its processes stand still.
    Paused,
    /// They go on.
    Resumed,
    /// A process has written something.
    Output {
        stream: Stream,
        task: Option<usize>,
        bytes: Bytes,
        more: More,
    },
    /// Why a task did not succeed.
    Error {
        task: Option<usize>,
        failure: Failure,
    },
    /// A task is over.
    TaskComplete(TaskComplete),
}

/// The way into the publisher.
#[derive(Clone)]
pub(crate) struct Sender(mpsc::Sender<Item>);

impl Sender {
    /// Waits for room and passes an item on.
    pub(crate) async fn send(&self, item: Item) {
        // The publisher goes last; without it there is nobody left to tell.
        let _ = self.0.send(item).await;
    }
}

/// What has been published once all senders are gone.
#[derive(Debug)]
pub(crate) struct Published {
    /// The last lines, which are to be written together with the end.
    pub(crate) pending: Vec<Line>,
    /// The id after them.
    pub(crate) next_id: EventId,
    pub(crate) output_bytes: u64,
    pub(crate) output_sha256: String,
    pub(crate) truncated: bool,
    /// The last of standard error.
    pub(crate) stderr_tail: String,
}

/// Writes one attempt's lines.
pub(crate) struct Publisher {
    pub(crate) store: SharedStore,
    pub(crate) lease: Lease,
    pub(crate) output_limit: u64,
    /// How the processes are confined.
    pub(crate) sandbox: Sandbox,
    /// Set off when there is more output than the limit.
    pub(crate) over_limit: CancellationToken,
    /// Set off when the store says that the lease is lost.
    pub(crate) lost: CancellationToken,
    /// Once set off, a store that fails is not waited for.
    pub(crate) now: CancellationToken,
}

impl Publisher {
    /// The way in, and the publisher at work, until every clone of the way in is dropped.
    pub(crate) fn start(self) -> (Sender, impl Future<Output = Published> + use<>) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Sender(sender), self.run(receiver))
    }

    async fn run(self, mut receiver: mpsc::Receiver<Item>) -> Published {
        let mut encoder = Encoder::new(&self.lease, self.output_limit, self.sandbox);
        let mut items = Vec::with_capacity(BACKLOG);
        while receiver.recv_many(&mut items, BACKLOG).await > 0 {
            if self.lost.is_cancelled() {
                items.clear();
                continue;
            }
            let lines = encoder.encode(&mut items);
            if encoder.truncated {
                self.over_limit.cancel();
            }
            if receiver.is_closed() && receiver.is_empty() {
                return encoder.finish(lines);
            }
            if !lines.is_empty() {
                self.append(&lines).await;
            }
        }
        encoder.finish(Vec::new())
    }

    /// Appends lines, however long that takes, unless the lease is lost.
    async fn append(&self, lines: &[Line]) {
        let mut delay = FIRST_RETRY_DELAY;
        loop {
            match self.store.append(&self.lease, lines).await {
                Ok(()) => break,
                Err(AppendError::Fenced) => return self.lost.cancel(),
                Err(AppendError::Store(error)) => {
                    if delay == FIRST_RETRY_DELAY {
                        let (id, error) = (&self.lease.id, shared::entry::chain(&error));
                        tracing::warn!(execution_id = %id, error, "failed to append, holding the output back");
                    }
                    if self.now.is_cancelled() {
                        return self.lost.cancel();
                    }
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_RETRY_DELAY);
        }
        if delay > FIRST_RETRY_DELAY {
            tracing::info!(execution_id = %self.lease.id, "appending again");
        }
    }
}

/// Turns items into lines.
struct Encoder {
    worker: String,
    execution_id: shared::id::ExecutionId,
    next_id: EventId,
    stdout: Cutter,
    stderr: Cutter,
    output_limit: u64,
    output_bytes: u64,
    hash: Sha256,
    truncated: bool,
    sandbox: Sandbox,
    stderr_tail: Tail,
}

impl Encoder {
    fn new(lease: &Lease, output_limit: u64, sandbox: Sandbox) -> Self {
        Self {
            worker: lease.worker.clone(),
            execution_id: lease.id.clone(),
            next_id: EventId {
                attempt: lease.attempt,
                sequence: 1,
            },
            stdout: Cutter::default(),
            stderr: Cutter::default(),
            output_limit,
            output_bytes: 0,
            hash: Sha256::new(),
            truncated: false,
            sandbox,
            stderr_tail: Tail::default(),
        }
    }

    fn finish(self, pending: Vec<Line>) -> Published {
        let mut output_sha256 = String::with_capacity(64);
        for byte in self.hash.finalize() {
            let _ = write!(output_sha256, "{byte:02x}");
        }
        Published {
            pending,
            next_id: self.next_id,
            output_bytes: self.output_bytes,
            output_sha256,
            truncated: self.truncated,
            stderr_tail: self.stderr_tail.text(),
        }
    }

    fn encode(&mut self, items: &mut Vec<Item>) -> Vec<Line> {
        let at = Timestamp::now();
        let mut lines = Vec::with_capacity(items.len());
        let mut items = items.drain(..).peekable();
        while let Some(item) = items.next() {
            match item {
                Item::Output {
                    stream,
                    task,
                    bytes,
                    more,
                } => {
                    self.take_in(stream, &bytes);
                    // Cut together what comes from the same pipe one after the other.
                    let goes_on = matches!(items.peek(), Some(Item::Output { stream: next, .. }) if *next == stream);
                    if !goes_on || more == More::Never {
                        self.cut(at, stream, task, more, &mut lines);
                    }
                }
                Item::Started { pid, task } => {
                    let head = self.head(at);
                    let started = Started {
                        attempt: head.id.attempt,
                        worker: &self.worker,
                        pid,
                        sandbox: self.sandbox,
                        task,
                    };
                    lines.push(head.started(&self.execution_id, &started));
                }
                Item::Paused => lines.push(self.head(at).paused()),
                Item::Resumed => lines.push(self.head(at).resumed()),
                Item::Error { task, failure } => lines.push(self.head(at).error(task, &failure)),
                Item::TaskComplete(task) => lines.push(self.head(at).task_complete(&task)),
            }
        }
        lines
    }

    fn take_in(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr {
            self.stderr_tail.push(bytes);
        }
        let room = self.output_limit - self.output_bytes;
        let kept = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.truncated |= kept < bytes.len();
        self.output_bytes += kept as u64;
        self.cutter(stream).push(&bytes[..kept]);
    }

    fn cutter(&mut self, stream: Stream) -> &mut Cutter {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn cut(
        &mut self,
        at: Timestamp,
        stream: Stream,
        task: Option<usize>,
        more: More,
        lines: &mut Vec<Line>,
    ) {
        let mut cutter = std::mem::take(self.cutter(stream));
        cutter.drain(more, |piece| {
            match piece {
                Piece::Text(text) => self.hash.update(text),
                Piece::Binary(bytes) => self.hash.update(bytes),
            }
            lines.push(self.head(at).output(stream, task, piece));
        });
        *self.cutter(stream) = cutter;
    }

    fn head(&mut self, at: Timestamp) -> Head {
        let id = self.next_id;
        self.next_id = id.next();
        Head { id, at }
    }
}

/// The last of a stream.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    const MOST_BYTES: usize = 4 * 1024;

    fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(Self::MOST_BYTES)..];
        let excess = (self.0.len() + kept.len()).saturating_sub(Self::MOST_BYTES);
        self.0.drain(..excess);
        self.0.extend_from_slice(kept);
    }

    /// As text, beginning with a whole character; what is no text is shown as such.
    fn text(&self) -> String {
        let is_continuation = |byte: &&u8| (0x80..0xc0).contains(*byte);
        let cut = self.0.iter().take_while(is_continuation).count();
        String::from_utf8_lossy(&self.0[cut..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_and_begins_with_a_whole_character() {
        let mut tail = Tail::default();
        tail.push("ž".repeat(3_000).as_bytes());
        tail.push(b"x");
        let text = tail.text();
        assert_eq!(text.len(), 4_095, "half a character is left out");
        assert!(text.starts_with('ž') && text.ends_with("žx"));
        tail.push(&[b'y'; 10_000]);
        assert_eq!(tail.text(), "y".repeat(4_096));
    }
}
