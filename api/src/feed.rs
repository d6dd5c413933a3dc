//! What is new in a log, read from the store once for all who follow it here.
//!
//! Followers of one execution share a [`Feed`]. Woken all together, one of them reads what is new,
//! and the others find it among the recent batches. Nobody waits for anybody slower: a follower that
//! has fallen behind the recent batches reads for itself.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use shared::event::{self, Line};
use shared::id::{EventId, ExecutionId};
use shared::output::MAX_LINE_BYTES;
use shared::store::{SharedStore, StoreError};

/// Recent batches that a feed remembers.
const RECENT_BATCHES: usize = 8;
const RECENT_BYTES: usize = 1 << 20;
/// Bytes that all readers together may have in hand, roughly.
const TOTAL_BYTES: usize = 64 << 20;
const SMALLEST_BATCH_BYTES: usize = 32 << 10;
const LARGEST_BATCH_BYTES: usize = 256 << 10;
/// Lines may turn out to be as long as they can be, after many short ones: then one read returns
/// this many times its share at most.
const LEEWAY: usize = 4;

/// Lines that follow one another, ready to be sent.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The cursor they were read after.
    pub(crate) after: EventId,
    pub(crate) lines: Vec<Line>,
    /// Set if lines in front of them are missing.
    pub(crate) gap_before: Option<EventId>,
    /// The lines as NDJSON, in front of them a `gap` line if some are missing.
    pub(crate) ndjson: Bytes,
}

impl Chunk {
    /// The cursor after these lines.
    pub(crate) fn last(&self) -> EventId {
        self.lines.last().map_or(self.after, |line| line.id)
    }

    /// Whether the log ends with them.
    pub(crate) fn is_complete(&self) -> bool {
        self.lines.last().is_some_and(Line::is_complete)
    }
}

/// All feeds of this server.
pub(crate) struct Feeds {
    store: SharedStore,
    by_id: Mutex<HashMap<ExecutionId, Weak<Feed>>>,
    readers: Arc<AtomicUsize>,
}

impl Feeds {
    pub(crate) fn new(store: SharedStore) -> Self {
        Self {
            store,
            by_id: Mutex::default(),
            readers: Arc::default(),
        }
    }

    /// The feed of an execution, shared by all who have it now.
    pub(crate) fn join(&self, id: &ExecutionId) -> Follower {
        let mut by_id = whole(&self.by_id);
        let feed = by_id.get(id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let feed = Arc::new(Feed {
                store: self.store.clone(),
                id: id.clone(),
                recent: Mutex::default(),
                reading: tokio::sync::Mutex::default(),
            });
            by_id.retain(|_, feed| feed.strong_count() > 0);
            by_id.insert(id.clone(), Arc::downgrade(&feed));
            feed
        });
        self.readers.fetch_add(1, Ordering::Relaxed);
        Follower {
            feed,
            readers: Arc::clone(&self.readers),
            line_bytes: SMALLEST_BATCH_BYTES,
        }
    }
}

/// One reader's part in a feed.
pub(crate) struct Follower {
    feed: Arc<Feed>,
    readers: Arc<AtomicUsize>,
    /// How long the lines of the last batch were, on average.
    line_bytes: usize,
}

struct Feed {
    store: SharedStore,
    id: ExecutionId,
    recent: Mutex<VecDeque<Arc<Chunk>>>,
    /// Held by the one who reads what is new for all.
    reading: tokio::sync::Mutex<()>,
}

/// What a follower has got.
pub(crate) struct Found {
    pub(crate) chunk: Arc<Chunk>,
    /// Whether the log went no further when it was read, just now.
    pub(crate) is_end: bool,
}

impl Follower {
    /// What follows `cursor`, from the store.
    pub(crate) async fn catch_up(&mut self, cursor: EventId) -> Result<Found, StoreError> {
        let limit = self.limit();
        let chunk = Arc::new(self.feed.read(cursor, limit).await?);
        Ok(self.found(chunk, limit))
    }

    /// What follows `cursor`, which is at or near the end of the log: from the recent batches if
    /// somebody has read it already.
    pub(crate) async fn next(&mut self, cursor: EventId) -> Result<Found, StoreError> {
        if let Some(chunk) = self.feed.recent_after(cursor) {
            return Ok(Found {
                chunk,
                is_end: false,
            });
        }
        let limit = self.limit();
        let chunk = {
            let _reading = self.feed.reading.lock().await;
            if let Some(chunk) = self.feed.recent_after(cursor) {
                // Read by somebody else, perhaps before the notice that has woken this one.
                return Ok(Found {
                    chunk,
                    is_end: false,
                });
            }
            self.feed.read_and_remember(cursor, limit).await?
        };
        Ok(self.found(chunk, limit))
    }

    fn found(&mut self, chunk: Arc<Chunk>, limit: usize) -> Found {
        let count = chunk.lines.len();
        if count == limit {
            // A few short lines, like those of the start, say nothing of what comes after them.
            self.line_bytes = chunk.ndjson.len() / limit;
        }
        Found {
            is_end: count < limit,
            chunk,
        }
    }

    /// How many lines to read, so that what all readers have in hand stays bounded.
    fn limit(&self) -> usize {
        let readers = self.readers.load(Ordering::Relaxed).max(1);
        let share = (TOTAL_BYTES / readers).clamp(SMALLEST_BATCH_BYTES, LARGEST_BATCH_BYTES);
        let most = (LEEWAY * share / MAX_LINE_BYTES).max(1);
        (share / self.line_bytes.max(1)).clamp(1, most)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feed {
    async fn read(&self, after: EventId, limit: usize) -> Result<Chunk, StoreError> {
        let batch = self.store.read(&self.id, after, limit).await?;
        let gap = batch.gap_before.map(|before| event::gap(after, before));
        Ok(Chunk {
            after,
            ndjson: join(gap, &batch.lines),
            gap_before: batch.gap_before,
            lines: batch.lines,
        })
    }

    async fn read_and_remember(
        &self,
        after: EventId,
        limit: usize,
    ) -> Result<Arc<Chunk>, StoreError> {
        let chunk = Arc::new(self.read(after, limit).await?);
        if !chunk.lines.is_empty() {
            let mut recent = whole(&self.recent);
            recent.push_back(Arc::clone(&chunk));
            while recent.len() > RECENT_BATCHES || total_bytes(&recent) > RECENT_BYTES {
                recent.pop_front();
            }
        }
        Ok(chunk)
    }

    fn recent_after(&self, cursor: EventId) -> Option<Arc<Chunk>> {
        whole(&self.recent)
            .iter()
            .find(|chunk| chunk.after == cursor)
            .cloned()
    }
}

fn total_bytes(chunks: &VecDeque<Arc<Chunk>>) -> usize {
    chunks.iter().map(|chunk| chunk.ndjson.len()).sum()
}

/// One piece of NDJSON; a single line is passed through as it is.
fn join(gap: Option<Bytes>, lines: &[Line]) -> Bytes {
    match (gap, lines) {
        (None, [line]) => line.json.clone(),
        (gap, lines) => {
            let gap = gap.unwrap_or_default();
            let length = gap.len() + lines.iter().map(|line| line.json.len()).sum::<usize>();
            let mut joined = BytesMut::with_capacity(length);
            joined.extend_from_slice(&gap);
            for line in lines {
                joined.extend_from_slice(&line.json);
            }
            joined.freeze()
        }
    }
}

fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks protect is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
