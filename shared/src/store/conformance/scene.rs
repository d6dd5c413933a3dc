//! What the cases have in common: a store, and short ways to bring executions into a state.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Bench;
use crate::event::{Head, Line, Stream, kind};
use crate::id::{EventId, ExecutionId, Owner};
use crate::life::{ChangeError, change, change_as_holder};
use crate::outcome::{Ending, Outcome};
use crate::output::Piece;
use crate::record::Record;
use crate::request::Request;
use crate::spec::{Policy, Spec};
use crate::state::{Event, Progress};
use crate::store::{Claim, Claimant, Lease, SharedStore, Submission, Submitted};

/// Longer than any case takes: whoever waits this long waits for ever.
const DEADLINE: Duration = Duration::from_secs(20);
/// No lease of this length runs out during a case.
pub(super) const LONG: Duration = Duration::from_hours(1);

/// A store and those who use it.
pub(super) struct Scene {
    pub(super) store: SharedStore,
    tickets: AtomicU64,
}

impl Scene {
    pub(super) async fn new(bench: &dyn Bench) -> Self {
        Self::with_retention(bench, LONG).await
    }

    pub(super) async fn with_retention(bench: &dyn Bench, retention: Duration) -> Self {
        Self {
            store: bench.open(retention).await,
            tickets: AtomicU64::new(1),
        }
    }

    /// Submits `true`, adjusted.
    pub(super) async fn submit(&self, id: &str, adjust: impl FnOnce(&mut Spec)) -> Record {
        let submission = submission(id, adjust);
        match self.store.submit(&submission).await.expect("submits") {
            Submitted::Created(record) => record,
            Submitted::Existing(record) => panic!("{} is there already", record.id),
        }
    }

    /// A claimant of some queues, or of all if none is named.
    pub(super) fn claimant(&self, worker: &str, queues: &[&str]) -> Claimant {
        Claimant {
            worker: worker.to_owned(),
            queues: queues.iter().copied().map(str::to_owned).collect(),
            lease: LONG,
            ticket: self.tickets.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What a worker gets out of some queues, if anything.
    pub(super) async fn try_claim(&self, worker: &str, queues: &[&str]) -> Option<Record> {
        match self.ask(worker, queues).await {
            Claim::Claimed(record) => Some(*record),
            Claim::Nothing { .. } => None,
        }
    }

    /// The answer to a worker that asks for something out of some queues.
    pub(super) async fn ask(&self, worker: &str, queues: &[&str]) -> Claim {
        let claimant = self.claimant(worker, queues);
        self.store.claim(&claimant).await.expect("claims")
    }

    /// What a worker gets; there has to be something.
    pub(super) async fn claim(&self, worker: &str) -> Record {
        let claimed = self.try_claim(worker, &[]).await;
        claimed.expect("something can be claimed")
    }

    /// Submits an execution and has it claimed.
    pub(super) async fn start(&self, id: &str, worker: &str, max_attempts: u32) -> Record {
        self.submit(id, |spec| spec.max_attempts = max_attempts)
            .await;
        let record = self.claim(worker).await;
        assert_eq!(record.id.as_str(), id, "nothing else was waiting");
        record
    }

    pub(super) async fn change(
        &self,
        id: &ExecutionId,
        event: &Event,
    ) -> Result<Record, ChangeError> {
        change(self.store.as_ref(), id, event).await
    }

    /// Lets the worker that holds `held` see it end well, after `lines` of output.
    pub(super) async fn finish(&self, held: &Record, lines: u64) -> Result<Record, ChangeError> {
        let event = finish(held.state.attempt());
        let next = event_id(held.state.attempt(), lines + 1);
        change_as_holder(self.store.as_ref(), held, &event, &[], next).await
    }

    /// Makes a lease run out here and now.
    pub(super) async fn let_lapse(&self, held: &Record) {
        let renewed = self.store.renew(&[lease(held)], Duration::ZERO).await;
        renewed.expect("renews");
    }

    /// Takes an execution away from its worker, whose lease has run out.
    pub(super) async fn reclaim(&self, held: &Record) -> Record {
        self.let_lapse(held).await;
        let attempt = held.state.attempt();
        let reclaimed = self.change(&held.id, &Event::LapseLease { attempt }).await;
        reclaimed.expect("reclaims")
    }

    pub(super) async fn load(&self, id: &ExecutionId) -> Record {
        let found = self.store.load(id).await.expect("loads");
        found.expect("is there")
    }

    /// The whole log, read in small steps.
    pub(super) async fn lines(&self, id: &ExecutionId) -> Vec<Line> {
        self.lines_after(id, EventId::START, 3).await
    }

    /// The log after a cursor, read in steps of `step` lines.
    pub(super) async fn lines_after(
        &self,
        id: &ExecutionId,
        cursor: EventId,
        step: usize,
    ) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let cursor = lines.last().map_or(cursor, |line| line.id);
            let batch = self.store.read(id, cursor, step).await.expect("reads");
            assert!(batch.lines.len() <= step, "no more than asked for");
            assert_eq!(batch.gap_before, None, "nothing has been removed");
            if batch.lines.is_empty() {
                return lines;
            }
            lines.extend(batch.lines);
        }
    }

    /// The log in short: id and kind of each line.
    pub(super) async fn log(&self, id: &ExecutionId) -> Vec<String> {
        let lines = self.lines(id).await;
        let short = |line: &Line| format!("{} {}", line.id, kind(&line.json).unwrap_or("?"));
        lines.iter().map(short).collect()
    }
}

/// A submission of `true`, adjusted.
pub(super) fn submission(id: &str, adjust: impl FnOnce(&mut Spec)) -> Submission {
    let request = Request {
        command: Some("true".to_owned()),
        ..Request::default()
    };
    let mut spec = Spec::check(request, &Policy::default()).expect("is right");
    adjust(&mut spec);
    Submission {
        id: id.parse().expect("is an id"),
        owner: Owner::local(),
        spec: Arc::new(spec),
        fingerprint: format!("fingerprint of {id}"),
    }
}

/// The lease on a record that has been claimed.
pub(super) fn lease(held: &Record) -> Lease {
    let running = held.running().expect("is running");
    Lease {
        id: held.id.clone(),
        attempt: running.attempt,
        worker: running.worker.clone(),
    }
}

pub(super) fn event_id(attempt: u32, sequence: u64) -> EventId {
    EventId { attempt, sequence }
}

/// Lines of output of one attempt.
pub(super) fn output(attempt: u32, sequences: RangeInclusive<u64>) -> Vec<Line> {
    let line = |sequence| {
        let text = format!("line {sequence}\n");
        let head = Head::now(event_id(attempt, sequence));
        head.output(Stream::Stdout, None, Piece::Text(&text))
    };
    sequences.map(line).collect()
}

/// An end as it should be.
pub(super) fn success() -> Outcome {
    Outcome {
        ending: Ending::Succeeded,
        exit_code: Some(0),
        signal: None,
        duration_ms: 7,
        output_bytes: Some(0),
        output_sha256: Some("e3b0".to_owned()),
        truncated: false,
        error: None,
        reaped: Some(0),
        stderr_tail: None,
    }
}

/// An attempt ends well.
pub(super) fn finish(attempt: u32) -> Event {
    Event::Finish {
        attempt,
        progress: Progress {
            completed: 1,
            failed: 0,
        },
        outcome: success(),
    }
}

/// What comes out of `future`, which must not take for ever.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("{what} takes for ever"))
}
