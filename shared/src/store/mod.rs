//! The store: the queue, the records and the logs of all executions, shared by every API server and
//! every worker.
//!
//! The trait is small on purpose. Taking an execution out of a queue is one step ([`Store::claim`]);
//! every other change of an execution goes through [`Store::commit`], which writes the state that
//! [`crate::state::apply`] has computed, if nobody else has changed the record in between.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::event::Line;
use crate::id::{EventId, ExecutionId, InvalidExecutionId, Owner};
use crate::record::Record;
use crate::spec::Spec;
use crate::state::{State, Status};
use crate::time::Timestamp;

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod embedded;
pub mod open;
pub mod redis;
mod wake;

pub use wake::{Wakers, Watch};

/// A store behind a pointer, as everybody uses it.
pub type SharedStore = Arc<dyn Store>;

/// A job to be put into its queue.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The execution's id.
    pub id: ExecutionId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What is to be run.
    pub spec: Arc<Spec>,
    /// The fingerprint of the request.
    pub fingerprint: String,
}

/// What has become of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is a new execution.
    Created(Record),
    /// There was an execution of that id; the caller compares the fingerprints.
    Existing(Record),
}

/// A worker's question for something to do.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// The worker's name.
    pub worker: String,
    /// The queues that it serves; empty means all of them.
    pub queues: Vec<String>,
    /// How long the lease holds unless it is renewed.
    pub lease: Duration,
    /// Tells this question from the worker's other ones. Asked again with the same ticket, because
    /// the first answer was lost, it gets the same answer.
    pub ticket: u64,
}

/// The answer to a claim.
#[derive(Clone, Debug)]
pub enum Claim {
    /// Run this; its state is `Running`, with the attempt and the worker's name.
    Claimed(Box<Record>),
    /// There is nothing now; the first delayed execution is due after this time.
    Nothing {
        /// None if nothing is delayed either.
        next_due: Option<Duration>,
    },
}

/// The lease on one attempt at one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The execution.
    pub id: ExecutionId,
    /// The attempt.
    pub attempt: u32,
    /// Who holds it.
    pub worker: String,
}

/// What has become of a lease that was to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It holds again for its whole length.
    Renewed,
    /// It holds again, and somebody has asked for the execution's end.
    CancelRequested,
    /// It holds again, and the execution is to stand still.
    PauseRequested,
    /// Somebody else has the execution, or it is over: stop at once and write nothing more.
    Lost,
}

/// A change of state to be made durable, together with the lines that tell of it.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The record as it was read; the change is refused if it has changed since.
    pub before: &'a Record,
    /// The new state.
    pub after: State,
    /// Lines for the log, in order.
    pub lines: &'a [Line],
    /// Refuse unless the execution's lease has run out (by the store's own clock).
    pub only_if_lapsed: bool,
}

/// Lines of a log that follow a cursor.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The lines, in order.
    pub lines: Vec<Line>,
    /// Set if lines between the cursor and the first line have been removed by retention: the id
    /// before which the log begins.
    pub gap_before: Option<EventId>,
}

/// Which executions to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of this owner.
    pub owner: Option<Owner>,
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those in, or from, this queue.
    pub queue: Option<String>,
    /// Only those with all of these labels.
    pub labels: Vec<(String, String)>,
}

impl Filter {
    /// Whether an execution is one of those asked for.
    pub fn matches(&self, record: &Record) -> bool {
        let labels = &record.spec.labels;
        self.owner
            .as_ref()
            .is_none_or(|owner| *owner == record.owner)
            && self
                .status
                .is_none_or(|status| status == record.state.status())
            && self
                .queue
                .as_ref()
                .is_none_or(|queue| *queue == record.spec.queue)
            && self
                .labels
                .iter()
                .all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// Where a listing goes on: after the execution of this place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListCursor {
    /// That execution's place in the order of submission.
    pub rank: u64,
    /// Its id, which tells executions of different shards apart.
    pub id: ExecutionId,
}

impl std::fmt::Display for ListCursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}~{}", self.rank, self.id)
    }
}

impl std::str::FromStr for ListCursor {
    type Err = InvalidExecutionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rank, id) = text.split_once('~').ok_or(InvalidExecutionId)?;
        Ok(Self {
            rank: rank.parse().map_err(|_| InvalidExecutionId)?,
            id: id.parse()?,
        })
    }
}

impl ListCursor {
    /// The place of an execution.
    pub fn of(record: &Record) -> Self {
        Self {
            rank: record.rank,
            id: record.id.clone(),
        }
    }
}

/// A part of a listing, newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The executions.
    pub records: Vec<Record>,
    /// Where to go on; none at the end.
    pub next: Option<ListCursor>,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerInfo {
    /// Its name, unique among the workers of a store.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// How many executions it runs at a time.
    pub slots: usize,
    /// The queues that it serves; empty means all of them.
    pub queues: Vec<String>,
    /// What it runs now.
    #[schema(value_type = Vec<String>)]
    pub executions: Vec<ExecutionId>,
    /// Whether it shuts down: it finishes what it has and claims nothing more.
    pub draining: bool,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it was last heard of.
    #[schema(value_type = String, format = DateTime)]
    pub seen_at: Timestamp,
}

/// How full a queue is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// How many executions could start now.
    pub ready: u64,
    /// How many wait for their delay to be over.
    pub delayed: u64,
    /// How long the oldest one that could start has been waiting since its submission.
    pub oldest_age_ms: Option<u64>,
}

/// A message to the worker that runs an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The execution.
    pub id: ExecutionId,
    /// The attempt that is meant.
    pub attempt: u32,
    /// What to do.
    pub action: Action,
}

/// What can be asked of a running execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// End it.
    Cancel,
    /// Let it stand still.
    Pause,
    /// Let it go on.
    Resume,
}

/// Why a store could not do what it was asked to.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Redis did not answer, or refused.
    #[error("reach redis")]
    Redis(#[from] ::redis::RedisError),
    /// The embedded database failed.
    #[error("use the embedded database")]
    Sqlite(#[from] rusqlite::Error),
    /// The data directory could not be used.
    #[error("use the data directory {path}")]
    DataDirectory {
        /// Its path.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error("open {path}: another process is using it")]
    InUse {
        /// Its path.
        path: String,
    },
    /// Something stored does not read as what it should be.
    #[error("read the stored {what} of {id}")]
    Corrupt {
        /// Which part.
        what: &'static str,
        /// Of which execution or worker.
        id: String,
        /// What went wrong.
        source: serde_json::Error,
    },
    /// Redis answered something that our scripts do not say.
    #[error("understand what redis answered")]
    UnexpectedAnswer,
    /// The embedded database could not write to its disk; the change has not been made.
    #[error("write to the embedded database")]
    NotDurable,
    /// The engine has been shut down.
    #[error("use a store that has been closed")]
    Closed,
}

/// Why lines were not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The lease is lost: another attempt has begun, or the execution is over or gone.
    #[error("append under a lease that is lost")]
    Fenced,
    /// The store failed; trying again with the same lines is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a change was not made.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The record or its log has changed since it was read: read it again.
    #[error("commit a change to a record that has changed meanwhile")]
    Conflict,
    /// The change was to be made only if the lease had run out, and it has not.
    #[error("take over a lease that holds")]
    LeaseHeld,
    /// The store failed; the change may or may not have been made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A durable, shared store of executions. All methods may be called at any time by any number of
/// callers; each is one atomic step.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Puts an execution into its queue, with `queued` as the first line of its log, unless there is
    /// one of that id.
    async fn submit(&self, submission: &Submission) -> Result<Submitted, StoreError>;

    /// Takes the most urgent, then oldest, due execution out of the claimant's queues and gives it
    /// the lease. After an error the worker asks again with the same ticket.
    async fn claim(&self, claimant: &Claimant) -> Result<Claim, StoreError>;

    /// Returns when there may be something to claim, or after `at_most`.
    async fn wait_for_work(&self, claimant: &Claimant, at_most: Duration);

    /// Appends lines to the log under a lease. Lines that are there already, from a call whose answer
    /// was lost, are not appended again.
    async fn append(&self, lease: &Lease, lines: &[Line]) -> Result<(), AppendError>;

    /// Renews leases, in the order given.
    async fn renew(&self, leases: &[Lease], length: Duration) -> Result<Vec<Renewal>, StoreError>;

    /// Makes a change of state durable, and returns the record as it is now.
    async fn commit(&self, commit: Commit<'_>) -> Result<Record, CommitError>;

    /// Running executions whose lease has run out.
    async fn lapsed(&self, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// One record.
    async fn load(&self, id: &ExecutionId) -> Result<Option<Record>, StoreError>;

    /// Records that match, newest first.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// At most `limit` lines of a log after a cursor.
    async fn read(
        &self,
        id: &ExecutionId,
        after: EventId,
        limit: usize,
    ) -> Result<Batch, StoreError>;

    /// The id of the last line of a log; [`EventId::START`] if there is none.
    async fn last_event(&self, id: &ExecutionId) -> Result<EventId, StoreError>;

    /// Notices of new lines in a log. Take it before the first read, or lines may be missed.
    async fn watch(&self, id: &ExecutionId) -> Watch;

    /// Sends a message to a worker; it may get lost.
    async fn control(&self, worker: &str, control: &Control) -> Result<(), StoreError>;

    /// The messages to a worker.
    async fn controls(&self, worker: &str) -> mpsc::Receiver<Control>;

    /// Says that a worker is alive; it is forgotten after `expires_after` unless it says so again.
    async fn announce(
        &self,
        worker: &WorkerInfo,
        expires_after: Duration,
    ) -> Result<(), StoreError>;

    /// Says that a worker is gone.
    async fn withdraw(&self, worker: &str) -> Result<(), StoreError>;

    /// The workers that are alive, by name.
    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError>;

    /// The queues that have anything in them, by name.
    async fn queues(&self) -> Result<Vec<QueueInfo>, StoreError>;

    /// Removes executions that ended longer ago than the retention, and says how many.
    async fn sweep(&self) -> Result<usize, StoreError>;

    /// Whether the store can take and give jobs.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Which engine it is, for people.
    fn engine(&self) -> &'static str;

    /// Whether workers of other processes may hold leases.
    fn is_shared(&self) -> bool;
}
