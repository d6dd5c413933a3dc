//! Looks after executions whose worker is gone, and after those whose time is up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::life::{ChangeError, change};
use shared::state::Event;
use shared::store::StoreError;

use crate::Context;

const RECLAIM_BATCH: usize = 100;
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// Reclaims and sweeps for as long as it is polled.
///
/// After an outage of the store all leases may have run out, although their holders are alive and
/// about to renew. So leases are only taken for lapsed after the store has been within reach for the
/// length of one without a break.
pub(crate) async fn run(context: Arc<Context>) {
    let lease = context.config.lease;
    let pause = (lease / 5).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    let mut in_reach_since = Instant::now();
    let mut swept_at = None;
    loop {
        let has_been_in_reach = in_reach_since.elapsed() >= lease;
        let result = if has_been_in_reach || !context.store.is_shared() {
            reclaim(&context).await
        } else {
            context.store.ping().await
        };
        let result = match result {
            Ok(()) if swept_at.is_none_or(|at: Instant| at.elapsed() >= SWEEP_INTERVAL) => {
                swept_at = Some(Instant::now());
                sweep(&context).await
            }
            other => other,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "failed to look for lost executions");
            in_reach_since = Instant::now();
        }
        tokio::time::sleep(pause).await;
    }
}

async fn reclaim(context: &Context) -> Result<(), StoreError> {
    for record in context.store.lapsed(RECLAIM_BATCH).await? {
        let attempt = record.state.attempt();
        let event = Event::LapseLease { attempt };
        match change(context.store.as_ref(), &record.id, &event).await {
            Ok(after) => {
                let worker = record.running().map(|running| running.worker.as_str());
                let status = after.state.status().as_str();
                tracing::warn!(execution_id = %record.id, attempt, worker, status, "reclaimed from a lost worker");
            }
            // Somebody else was faster, or the worker was not lost after all.
            Err(
                ChangeError::LeaseHeld
                | ChangeError::Refused(_)
                | ChangeError::Unknown
                | ChangeError::Contended,
            ) => {}
            Err(ChangeError::Store(error)) => return Err(error),
        }
    }
    Ok(())
}

async fn sweep(context: &Context) -> Result<(), StoreError> {
    let removed = context.store.sweep().await?;
    if removed > 0 {
        tracing::info!(removed, "removed executions past their retention");
    }
    Ok(())
}
