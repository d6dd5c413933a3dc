//! One client's way through a log: everything after a cursor, then what comes, until the end.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use shared::id::{EventId, ExecutionId};
use shared::store::{StoreError, Watch};
use tokio::time::{Instant, timeout_at};

use crate::State;
use crate::feed::{Chunk, Follower, Found};

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
    /// There has been nothing new for a heartbeat.
    Checking,
    /// The execution is no longer there.
    Vanished,
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

    /// What comes next, a heartbeat if that takes long; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        match timeout_at(self.heartbeat_at, self.find()).await {
            Ok(step) => step,
            Err(_) => Some(self.beat()),
        }
    }

    /// What comes next, however long it takes. It may be dropped while it waits, and begun again.
    async fn find(&mut self) -> Option<Step> {
        loop {
            let result = match self.phase {
                Phase::Done => return None,
                Phase::Vanished => {
                    self.phase = Phase::Done;
                    return Some(Step::Vanished);
                }
                Phase::AtEnd if !self.follow => return None,
                Phase::AtEnd => self.wait().await?,
                Phase::Checking => self.check().await,
                Phase::CatchingUp => self.follower.catch_up(self.cursor).await.map(Some),
                Phase::Near => self.follower.next(self.cursor).await.map(Some),
            };
            match result {
                Ok(None) => {}
                Ok(Some(found)) => {
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
                    self.phase = Phase::CatchingUp;
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Waits at the end of the log until there is something to be read; none if the server stops.
    async fn wait(&mut self) -> Option<Result<Option<Found>, StoreError>> {
        tokio::select! {
            () = self.watch.changed() => self.phase = Phase::Near,
            () = self.state.ending.cancelled() => return None,
        }
        Some(Ok(None))
    }

    /// A notice may have been lost, and the execution with its store: looks for itself.
    async fn check(&mut self) -> Result<Option<Found>, StoreError> {
        self.phase = match self.state.store.load(&self.id).await? {
            Some(_) => Phase::CatchingUp,
            None => Phase::Vanished,
        };
        Ok(None)
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
        if self.phase == Phase::AtEnd {
            self.phase = Phase::Checking;
        }
        self.heartbeat_at = Instant::now() + self.state.config.heartbeat;
        Step::Heartbeat
    }
}
