//! The embedded engine: one SQLite file, for one process, with nothing to install.
//!
//! Changes go through one writing thread that commits them in groups; reads have connections of
//! their own and see what has been committed.

mod queue;
mod rows;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, ToSql};
use tokio::sync::{Notify, mpsc};

use self::queue::OwnedCommit;
use self::rows::{RECORD, signed};
use self::writer::Writer;
use super::{
    AppendError, Batch, Claim, Claimant, Commit, CommitError, Control, Filter, Lease, ListCursor,
    Page, QueueInfo, Renewal, Store, StoreError, Submission, Submitted, Wakers, Watch, WorkerInfo,
};
use crate::event::Line;
use crate::id::{EventId, ExecutionId};
use crate::record::Record;
use crate::state::State;
use crate::time::Timestamp;

/// How many executions one change removes at most, so that a sweep does not hold others up.
const SWEEP_STEP: usize = 10;
/// How many executions a page of a list looks at, at most.
const SCAN_LIMIT: usize = 10_000;
/// Reading connections that are kept open.
const IDLE_READERS: usize = 4;
const CONTROL_BACKLOG: usize = 1024;

/// Where the database is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory, made if it does not exist.
    pub directory: PathBuf,
    /// How long an execution is kept after its end.
    pub retention: Duration,
}

/// The engine.
pub struct EmbeddedStore {
    /// Closed before the writer, whose connection then tidies the files up as the last one.
    readers: Arc<Readers>,
    writer: Writer,
    wakers: Wakers,
    retention: Duration,
    /// One for each worker that has asked for work.
    claimants: Mutex<HashMap<String, Arc<Notify>>>,
    inboxes: Mutex<HashMap<String, mpsc::Sender<Control>>>,
    workers: Mutex<BTreeMap<String, (Timestamp, WorkerInfo)>>,
    /// Held for as long as the database is in use.
    _lock: File,
}

impl EmbeddedStore {
    /// Opens the database, or makes it. Executions that were running when it was last closed count
    /// as abandoned: their leases have run out.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        let directory = &options.directory;
        let unusable = |source| StoreError::DataDirectory {
            path: directory.display().to_string(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let lock = lock(directory)?;
        let path = directory.join("cc-executor.db");
        let connection = Connection::open(&path)?;
        connection.execute_batch(include_str!("schema.sql"))?;
        connection.set_prepared_statement_cache_capacity(64);
        queue::expire_all_leases(&connection)?;
        Ok(Self {
            writer: Writer::start(connection).map_err(unusable)?,
            readers: Arc::new(Readers {
                path,
                idle: Mutex::default(),
            }),
            wakers: Wakers::default(),
            retention: options.retention,
            claimants: Mutex::default(),
            inboxes: Mutex::default(),
            workers: Mutex::default(),
            _lock: lock,
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.with(query))
            .await
            .map_err(|_| StoreError::Closed)?
    }

    fn claimant(&self, worker: &str) -> Arc<Notify> {
        Arc::clone(whole(&self.claimants).entry(worker.to_owned()).or_default())
    }

    fn ring(&self) {
        for notify in whole(&self.claimants).values() {
            notify.notify_one();
        }
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let unusable = |source| StoreError::DataDirectory {
        path: path.display().to_string(),
        source,
    };
    let file = File::create(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: directory.display().to_string(),
        }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks protect is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections for reading, opened as they are needed.
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn with<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = whole(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        let result = query(&connection);
        let mut idle = whole(&self.idle);
        if idle.len() < IDLE_READERS {
            idle.push(connection);
        }
        result
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn submit(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        let owned = submission.clone();
        let submitted = self
            .writer
            .write(move |connection| queue::submit(connection, &owned))
            .await?;
        self.ring();
        Ok(submitted)
    }

    async fn claim(&self, claimant: &Claimant) -> Result<Claim, StoreError> {
        // Known before the question, so that what is submitted right after it rings.
        let _ = self.claimant(&claimant.worker);
        let claimant = claimant.clone();
        self.writer
            .write(move |connection| queue::claim(connection, &claimant))
            .await
    }

    async fn wait_for_work(&self, claimant: &Claimant, at_most: Duration) {
        let notify = self.claimant(&claimant.worker);
        // Both ends of the wait mean the same: look again.
        let _ = tokio::time::timeout(at_most, notify.notified()).await;
    }

    async fn append(&self, lease: &Lease, lines: &[Line]) -> Result<(), AppendError> {
        let (owned, lines) = (lease.clone(), lines.to_vec());
        self.writer
            .write(move |connection| queue::append(connection, &owned, &lines))
            .await?;
        self.wakers.wake(lease.id.as_str());
        Ok(())
    }

    async fn renew(&self, leases: &[Lease], length: Duration) -> Result<Vec<Renewal>, StoreError> {
        let leases = leases.to_vec();
        self.writer
            .write(move |connection| queue::renew(connection, &leases, length))
            .await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Record, CommitError> {
        let owned = OwnedCommit {
            before: commit.before.clone(),
            after: commit.after,
            lines: commit.lines.to_vec(),
            only_if_lapsed: commit.only_if_lapsed,
            retention: self.retention,
        };
        let record = self
            .writer
            .write(move |connection| queue::commit(connection, &owned))
            .await?;
        self.wakers.wake(record.id.as_str());
        if matches!(record.state, State::Queued(_)) {
            self.ring();
        }
        Ok(record)
    }

    async fn lapsed(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.read(move |connection| queue::lapsed(connection, limit))
            .await
    }

    async fn load(&self, id: &ExecutionId) -> Result<Option<Record>, StoreError> {
        let id = id.clone();
        self.read(move |connection| rows::load(connection, &id))
            .await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.read(move |connection| list(connection, &filter, after.as_ref(), limit))
            .await
    }

    async fn read(
        &self,
        id: &ExecutionId,
        after: EventId,
        limit: usize,
    ) -> Result<Batch, StoreError> {
        let id = id.clone();
        self.read(move |connection| {
            let lines = rows::lines_after(connection, &id, after, limit)?;
            let first = lines.first().map(|line| line.id);
            let may_follow_gap =
                first.is_some_and(|first| first != EventId::QUEUED && first != after.next());
            let gap_before = if may_follow_gap {
                rows::first_event(connection, &id)?.filter(|log_begins| {
                    *log_begins != EventId::QUEUED && Some(*log_begins) == first
                })
            } else {
                None
            };
            Ok(Batch { lines, gap_before })
        })
        .await
    }

    async fn last_event(&self, id: &ExecutionId) -> Result<EventId, StoreError> {
        let id = id.clone();
        self.read(move |connection| rows::last_event(connection, &id))
            .await
    }

    async fn watch(&self, id: &ExecutionId) -> Watch {
        self.wakers.watch(id).0
    }

    async fn control(&self, worker: &str, control: &Control) -> Result<(), StoreError> {
        if let Some(inbox) = whole(&self.inboxes).get(worker) {
            // A full inbox drops it: the worker learns the same when it renews.
            let _ = inbox.try_send(control.clone());
        }
        Ok(())
    }

    async fn controls(&self, worker: &str) -> mpsc::Receiver<Control> {
        let (sender, receiver) = mpsc::channel(CONTROL_BACKLOG);
        whole(&self.inboxes).insert(worker.to_owned(), sender);
        receiver
    }

    async fn announce(
        &self,
        worker: &WorkerInfo,
        expires_after: Duration,
    ) -> Result<(), StoreError> {
        let length_ms = u64::try_from(expires_after.as_millis()).unwrap_or(u64::MAX);
        let expires_at = worker.seen_at.plus_ms(length_ms);
        whole(&self.workers).insert(worker.name.clone(), (expires_at, worker.clone()));
        Ok(())
    }

    async fn withdraw(&self, worker: &str) -> Result<(), StoreError> {
        whole(&self.workers).remove(worker);
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError> {
        let now = Timestamp::now();
        let mut workers = whole(&self.workers);
        workers.retain(|_, (expires_at, _)| *expires_at >= now);
        Ok(workers.values().map(|(_, worker)| worker.clone()).collect())
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, StoreError> {
        self.read(queue::queues).await
    }

    async fn sweep(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let step = self
                .writer
                .write(|connection| queue::sweep(connection, SWEEP_STEP))
                .await?;
            removed += step;
            if step < SWEEP_STEP {
                break;
            }
        }
        if removed > 0 {
            self.writer.write(queue::give_back_space).await?;
        }
        Ok(removed)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // Through the writer, so that a full disk or a dead thread shows.
        self.writer
            .write(|connection| {
                connection
                    .query_row("SELECT 1", [], |_| Ok(()))
                    .map_err(StoreError::from)
            })
            .await
    }

    fn engine(&self) -> &'static str {
        "embedded"
    }

    fn is_shared(&self) -> bool {
        false
    }
}

fn list(
    connection: &Connection,
    filter: &Filter,
    after: Option<&ListCursor>,
    limit: usize,
) -> Result<Page, StoreError> {
    let sql =
        format!("SELECT {RECORD} FROM executions WHERE rank < ?1 ORDER BY rank DESC LIMIT ?2");
    let below = after.map_or(i64::MAX, |cursor| signed(cursor.rank));
    let scan = i64::try_from(SCAN_LIMIT).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&sql)?;
    let parameters: [&dyn ToSql; 2] = [&below, &scan];
    let mut page = Page::default();
    let mut scanned = 0;
    let mut last = None;
    for record in statement.query_map(parameters, rows::record)? {
        let record: Record = record?;
        scanned += 1;
        if page.records.len() == limit && filter.matches(&record) {
            page.next = page.records.last().map(ListCursor::of);
            return Ok(page);
        }
        last = Some(ListCursor::of(&record));
        if filter.matches(&record) {
            page.records.push(record);
        }
    }
    if scanned == SCAN_LIMIT {
        page.next = last;
    }
    Ok(page)
}
