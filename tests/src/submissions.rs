//! Executions for tests that talk to a store without a worker.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::event::{Head, Line, Stream};
use shared::id::{EventId, Owner};
use shared::output::Piece;
use shared::record::Record;
use shared::request::Request;
use shared::spec::{Policy, Spec};
use shared::store::{Claimant, Lease, Submission};

/// Neither a lease nor a retention of this length runs out during a test.
pub const LONG: Duration = Duration::from_hours(1);

/// A submission of `true`, adjusted.
pub fn submission(id: &str, adjust: impl FnOnce(&mut Spec)) -> Submission {
    let request = Request {
        command: Some("true".to_owned()),
        ..Request::default()
    };
    let fingerprint = request.fingerprint();
    let mut spec = Spec::check(request, &Policy::default()).expect("is right");
    adjust(&mut spec);
    Submission {
        id: id.parse().expect("is an id"),
        owner: Owner::local(),
        spec: Arc::new(spec),
        fingerprint,
    }
}

/// A worker that serves all queues, with a ticket that has not been used.
pub fn claimant(worker: &str) -> Claimant {
    static TICKETS: AtomicU64 = AtomicU64::new(1);
    Claimant {
        worker: worker.to_owned(),
        queues: Vec::new(),
        lease: LONG,
        ticket: TICKETS.fetch_add(1, Ordering::Relaxed),
    }
}

/// The lease on a record that has been claimed.
pub fn lease(held: &Record) -> Lease {
    let running = held.running().expect("is running");
    Lease {
        id: held.id.clone(),
        attempt: running.attempt,
        worker: running.worker.clone(),
    }
}

/// Lines of output of one attempt.
pub fn output(attempt: u32, sequences: RangeInclusive<u64>) -> Vec<Line> {
    let line = |sequence| {
        let text = format!("line {sequence}\n");
        let head = Head::now(EventId { attempt, sequence });
        head.output(Stream::Stdout, None, Piece::Text(&text))
    };
    sequences.map(line).collect()
}
