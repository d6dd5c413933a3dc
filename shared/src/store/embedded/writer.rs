//! The one thread that writes: it takes every change that is waiting, makes them in one transaction,
//! and answers once that transaction is on the disk. The slower the disk, the larger the group.

use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// Changes that may wait before callers have to.
const BACKLOG: usize = 1024;
/// The largest group.
const GROUP: usize = 256;

/// Makes one change, and returns what is to be done once it is durable, or is known not to be.
type Change = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(bool) + Send>;

/// The way to the writing thread, which ends when the writer is dropped.
pub(super) struct Writer {
    changes: Option<mpsc::Sender<Change>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (changes, waiting) = mpsc::channel(BACKLOG);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(&connection, waiting))?;
        Ok(Self {
            changes: Some(changes),
            thread: Some(thread),
        })
    }

    /// Makes a change and waits until it is durable.
    pub(super) async fn write<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (sender, receiver) = oneshot::channel();
        let boxed: Change = Box::new(move |connection| {
            let result = in_savepoint(connection, change);
            Box::new(move |is_durable| {
                let result = if is_durable || result.is_err() {
                    result
                } else {
                    Err(StoreError::NotDurable.into())
                };
                // Whoever asked may have gone away; the change stands all the same.
                let _ = sender.send(result);
            })
        });
        let changes = self.changes.as_ref().ok_or(StoreError::Closed)?;
        changes.send(boxed).await.map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.changes.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already, and there is nothing left to save.
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, mut waiting: mpsc::Receiver<Change>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match waiting.try_recv() {
                Ok(change) => group.push(change),
                Err(_) => break,
            }
        }
        let (answers, is_durable) = commit(connection, group);
        for answer in answers {
            answer(is_durable);
        }
    }
}

fn commit(connection: &Connection, group: Vec<Change>) -> (Vec<Answer>, bool) {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        tracing::error!(%error, "failed to begin a transaction in the embedded database");
    }
    let answers = group.into_iter().map(|change| change(connection)).collect();
    match connection.execute_batch("COMMIT") {
        Ok(()) => (answers, true),
        Err(error) => {
            tracing::error!(%error, "failed to commit to the embedded database");
            // Fails too if the transaction is gone already, which is what it is for.
            let _ = connection.execute_batch("ROLLBACK");
            (answers, false)
        }
    }
}

/// Undoes a change that fails, without undoing its group.
fn in_savepoint<T, E: From<StoreError>>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    connection
        .execute_batch("SAVEPOINT change")
        .map_err(StoreError::from)?;
    let result = change(connection);
    let end = if result.is_ok() {
        "RELEASE change"
    } else {
        "ROLLBACK TO change; RELEASE change"
    };
    connection.execute_batch(end).map_err(StoreError::from)?;
    result
}
