//! The end of an execution, made durable: the last lines, the outcome, the lease given up, in one step.

use std::time::Duration;

use shared::event::Line;
use shared::id::EventId;
use shared::life::{ChangeError, change_as_holder};
use shared::outcome::Outcome;
use shared::record::Record;
use shared::state::{Event, Progress};
use shared::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::process::exit::Exit;
use crate::publisher::Published;
use crate::verdict::{Stop, Verdict};

/// After a failed commit.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// An execution whose tasks are over, and which has to be concluded.
#[must_use]
pub(crate) struct Ended<'a> {
    pub(crate) context: &'a Context,
    pub(crate) lost: CancellationToken,
    pub(crate) record: Record,
    pub(crate) progress: Progress,
    pub(crate) verdict: Verdict,
    /// How many processes were left when their leader had gone.
    pub(crate) reaped: u32,
}

impl Ended<'_> {
    /// Writes the end, unless somebody else has the say by now.
    pub(crate) async fn conclude(self, published: Published) {
        let Some(running) = self.record.running() else {
            return;
        };
        let (attempt, id) = (running.attempt, &self.record.id);
        if self.lost.is_cancelled() {
            tracing::warn!(execution_id = %id, attempt, "stopped: the lease is lost");
            return;
        }
        let event = match &self.verdict {
            Verdict::Stopped(Stop::HandBack(cause), _) => Event::HandBack {
                attempt,
                cause: *cause,
            },
            Verdict::Exited(_) | Verdict::Rejected(_) | Verdict::Stopped(..) => Event::Finish {
                attempt,
                progress: self.progress,
                outcome: self.outcome(&published, Timestamp::now().ms_since(running.started_at)),
            },
        };
        let lines = Lines {
            pending: &published.pending,
            first_free: published.next_id,
        };
        if let Some(record) = persist(self.context, &self.record, &event, lines).await {
            let status = record.state.status().as_str();
            let (reaped, output_bytes) = (self.reaped, published.output_bytes);
            tracing::info!(execution_id = %id, attempt, status, output_bytes, reaped, "ended");
        }
    }

    fn outcome(&self, published: &Published, duration_ms: u64) -> Outcome {
        let exit = self.verdict.exit();
        let stderr_tail = published.stderr_tail.as_str();
        let has_tail = !self.verdict.is_success() && !stderr_tail.is_empty();
        Outcome {
            ending: self.verdict.ending(),
            exit_code: exit.and_then(Exit::code),
            signal: exit.and_then(Exit::signal),
            duration_ms,
            output_bytes: Some(published.output_bytes),
            output_sha256: Some(published.output_sha256.clone()),
            truncated: published.truncated,
            error: self.verdict.failure(&self.record.spec, stderr_tail),
            reaped: Some(self.reaped),
            stderr_tail: has_tail.then(|| stderr_tail.to_owned()),
        }
    }
}

/// The lines that a change brings with it.
pub(crate) struct Lines<'a> {
    /// Those that are still to be written.
    pub(crate) pending: &'a [Line],
    /// The id after them.
    pub(crate) first_free: EventId,
}

impl Lines<'_> {
    /// For a change that the log says nothing of.
    pub(crate) const NONE: Self = Self {
        pending: &[],
        first_free: EventId::START,
    };
}

/// Commits a change as often as it takes; none if the execution is somebody else's by now, or if
/// the worker must not wait for the store any longer.
pub(crate) async fn persist(
    context: &Context,
    record: &Record,
    event: &Event,
    lines: Lines<'_>,
) -> Option<Record> {
    let Lines {
        pending,
        first_free,
    } = lines;
    let mut has_failed = false;
    loop {
        match change_as_holder(context.store.as_ref(), record, event, pending, first_free).await {
            Ok(record) => return Some(record),
            Err(ChangeError::Store(error)) => {
                if !has_failed {
                    let error = shared::entry::chain(&error);
                    tracing::warn!(execution_id = %record.id, error, "failed to commit, trying again until it works");
                }
                has_failed = true;
                if context.now.is_cancelled() {
                    return None;
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
            Err(ChangeError::Contended) => tokio::time::sleep(RETRY_DELAY).await,
            Err(ChangeError::Unknown | ChangeError::Refused(_) | ChangeError::LeaseHeld) => {
                tracing::warn!(execution_id = %record.id, "the execution is somebody else's by now");
                return None;
            }
        }
    }
}
