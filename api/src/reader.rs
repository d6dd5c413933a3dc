//! One client's way through a log: everything after a cursor, then what comes, until the end.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use shared::id::{EventId, ExecutionId};
use shared::store::Watch;
use tokio::time::{Instant, sleep_until};

use crate::State;
use crate::feed::{Chunk, Follower};

/// After a read that failed.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// What a reader gets.
pub(crate) enum Step {
    /// Lines.
    Chunk(Arc<Chunk>),
    /// Nothing for a while; the connection lives.
    Heartbeat,
    /// The execution is gone, though it had not ended.
    Vanished,
}

/// A reader of one log.
pub(crate) struct LogReader {
    state: web::Data<State>,
    id: ExecutionId,
    follower: Follower,
    watch: Watch,
    cursor: EventId,
    phase: Phase,
    heartbeat_at: Instant,
    follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There may be old lines to be read.
    CatchingUp,
    /// There is something new, which others may have read already.
    Near,
    /// There was nothing more when it was last read, and no notice has been taken since.
    AtEnd,
    /// Nothing more will come.
    Done,
}

impl LogReader {
    /// Begins after `cursor`; ends at what there is now unless it is to `follow`.
    ///
    /// The watch is taken before anything is read: what comes in between is noticed.
    pub(crate) fn new(
        state: web::Data<State>,
        id: ExecutionId,
        watch: Watch,
        cursor: EventId,
        follow: bool,
    ) -> Self {
        Self {
            follower: state.feeds.join(&id),
            heartbeat_at: Instant::now() + state.config.heartbeat,
            state,
            id,
            watch,
            cursor,
            phase: Phase::CatchingUp,
            follow,
        }
    }

    /// Whether the `complete` line has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// What comes next; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        loop {
            let read = match self.phase {
                Phase::Done => return None,
                Phase::CatchingUp => self.follower.catch_up(self.cursor).await,
                Phase::Near => self.follower.next(self.cursor).await,
                Phase::AtEnd if !self.follow => return None,
                Phase::AtEnd => {
                    if let Some(step) = self.wait().await {
                        return step;
                    }
                    continue;
                }
            };
            match read {
                Ok(found) => {
                    self.phase = if found.is_end {
                        Phase::AtEnd
                    } else {
                        self.phase
                    };
                    if !found.chunk.lines.is_empty() {
                        return Some(self.advance(found.chunk));
                    }
                }
                Err(error) => {
                    let error = shared::entry::chain(&error);
                    tracing::debug!(execution_id = %self.id, error, "failed to read a log, trying again");
                    tokio::time::sleep(RETRY_DELAY).await;
                    self.phase = Phase::CatchingUp;
                    if Instant::now() < self.heartbeat_at {
                        continue;
                    }
                    return Some(self.beat());
                }
            }
        }
    }

    /// Waits at the end of the log; none once there is something to be read.
    async fn wait(&mut self) -> Option<Option<Step>> {
        let ending = self.state.ending.clone();
        tokio::select! {
            () = self.watch.changed() => {
                self.phase = Phase::Near;
                None
            }
            () = ending.cancelled() => Some(None),
            () = sleep_until(self.heartbeat_at) => Some(Some(self.look_around().await)),
        }
    }

    fn advance(&mut self, chunk: Arc<Chunk>) -> Step {
        self.cursor = chunk.last();
        if chunk.is_complete() {
            self.phase = Phase::Done;
        }
        self.heartbeat_at = Instant::now() + self.state.config.heartbeat;
        Step::Chunk(chunk)
    }

    fn beat(&mut self) -> Step {
        self.heartbeat_at = Instant::now() + self.state.config.heartbeat;
        Step::Heartbeat
    }

    /// A notice may have been lost, and the execution with its store: look for oneself.
    async fn look_around(&mut self) -> Step {
        self.phase = Phase::CatchingUp;
        if let Ok(None) = self.state.store.load(&self.id).await {
            self.phase = Phase::Done;
            return Step::Vanished;
        }
        self.beat()
    }
}
