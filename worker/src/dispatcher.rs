//! Claims an execution for each free slot, and owns the supervisors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::id::ExecutionId;
use shared::life::{ChangeError, change};
use shared::outcome::{Ending, Failure, Outcome};
use shared::record::Record;
use shared::shutdown::Shutdown;
use shared::state::{Event, Progress};
use shared::store::{Claim, Claimant};
use shared::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinError, JoinSet};

use crate::{Context, supervisor};

/// The longest wait for work: a ring that got lost costs no more than this.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Tickets that a process has to itself for each millisecond of its start.
const TICKET_BITS: u32 = 20;
/// After a failed claim.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Dispatches until asked to stop, then until the last supervisor has come to its end.
pub(crate) async fn run(context: &Arc<Context>, shutdown: &Shutdown) {
    let slots = Arc::new(Semaphore::new(context.config.slots));
    let mut supervisors = Supervisors::default();
    // Unlike those of another process that goes, or went, by the same name.
    let mut ticket = Timestamp::now().as_millis().unsigned_abs() << TICKET_BITS;
    let mut next = Box::pin(next_execution(context, shutdown, &slots, ticket));
    loop {
        tokio::select! {
            Some(ended) = supervisors.tasks.join_next_with_id() => supervisors.bury(context, ended).await,
            claimed = &mut next => {
                let Some((record, permit)) = claimed else { break };
                supervisors.add(context, record, permit);
                ticket += 1;
                next.set(next_execution(context, shutdown, &slots, ticket));
            }
        }
    }
    drain(context, shutdown, supervisors).await;
}

/// The next execution with the slot that it gets; none once asked to stop.
async fn next_execution(
    context: &Context,
    shutdown: &Shutdown,
    slots: &Arc<Semaphore>,
    ticket: u64,
) -> Option<(Record, OwnedSemaphorePermit)> {
    let permit = tokio::select! {
        biased;
        () = shutdown.drain.cancelled() => return None,
        // The semaphore is never closed.
        permit = Arc::clone(slots).acquire_owned() => permit.ok()?,
    };
    let record = claim(context, shutdown, ticket).await?;
    Some((record, permit))
}

/// Claims an execution; none once asked to stop. A claim under way is never abandoned: its answer may be
/// an execution that nobody else will look after.
async fn claim(context: &Context, shutdown: &Shutdown, ticket: u64) -> Option<Record> {
    let claimant = Claimant {
        worker: context.config.name.clone(),
        queues: context.config.queues.clone(),
        lease: context.config.lease,
        ticket,
    };
    let mut has_failed = false;
    loop {
        let pause = match context.store.claim(&claimant).await {
            Ok(Claim::Claimed(record)) => return Some(*record),
            Ok(Claim::Nothing { next_due }) => {
                has_failed = false;
                next_due.map_or(LONGEST_WAIT, |due| due.min(LONGEST_WAIT))
            }
            Err(error) => {
                if !has_failed {
                    let error = shared::entry::chain(&error);
                    tracing::error!(error, "failed to claim, trying again until it works");
                }
                has_failed = true;
                Duration::ZERO
            }
        };
        tokio::select! {
            () = shutdown.drain.cancelled() => return None,
            () = tokio::time::sleep(RETRY_DELAY), if has_failed => {}
            () = context.store.wait_for_work(&claimant, pause), if !has_failed => {}
        }
    }
}

/// Waits for the supervisors: first for their executions to end, then for them to hand them back.
async fn drain(context: &Arc<Context>, shutdown: &Shutdown, mut supervisors: Supervisors) {
    if !supervisors.tasks.is_empty() {
        let running = supervisors.tasks.len();
        let timeout = context.config.drain_timeout;
        tracing::info!(running, ?timeout, "waiting for running executions to end");
    }
    let deadline = tokio::time::Instant::now() + context.config.drain_timeout;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(deadline), if !context.hand_back.is_cancelled() => {
                context.hand_back.cancel();
            }
            () = shutdown.now.cancelled(), if !context.hand_back.is_cancelled() => {
                context.hand_back.cancel();
            }
            ended = supervisors.tasks.join_next_with_id() => match ended {
                Some(ended) => supervisors.bury(context, ended).await,
                None => return,
            },
        }
    }
}

/// The supervisors that are at work, and what each of them looks after.
#[derive(Default)]
struct Supervisors {
    tasks: JoinSet<()>,
    executions: HashMap<Id, (ExecutionId, u32)>,
}

impl Supervisors {
    fn add(&mut self, context: &Arc<Context>, record: Record, permit: OwnedSemaphorePermit) {
        let (id, attempt) = (record.id.clone(), record.state.attempt());
        let context = Arc::clone(context);
        let task = self.tasks.spawn(async move {
            supervisor::supervise(&context, record).await;
            drop(permit);
        });
        self.executions.insert(task.id(), (id, attempt));
    }

    /// One bad supervisor must not take anybody with it: its execution gets an honest end.
    async fn bury(&mut self, context: &Context, ended: Result<(Id, ()), JoinError>) {
        let (task, panic) = match ended {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error)),
        };
        let execution = self.executions.remove(&task);
        let (Some((id, attempt)), Some(panic)) = (execution, panic) else {
            return;
        };
        tracing::error!(execution_id = %id, attempt, %panic, "a supervisor panicked");
        let failure = Failure::new(
            "worker_error",
            "the worker made a mistake; its log says more",
        );
        let event = Event::Finish {
            attempt,
            progress: Progress::default(),
            outcome: Outcome::unseen(Ending::Lost, 0, failure),
        };
        match change(context.store.as_ref(), &id, &event).await {
            Ok(_) | Err(ChangeError::Refused(_)) => {}
            Err(error) => tracing::error!(execution_id = %id, %error, "failed to end it"),
        }
    }
}
