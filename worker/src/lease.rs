//! The leases this worker holds: renewed all together, before they run out, by one task, which also
//! says that the worker is alive and passes on what is asked of running executions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::id::ExecutionId;
use shared::store::{Action, Control, Lease, Renewal, StoreError, WorkerInfo};
use shared::time::Timestamp;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{Config, Context};

/// Leases are renewed this often within their length, so that two renewals may fail.
const RENEWALS_PER_LEASE: u32 = 3;

/// What may be asked of a supervisor from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    /// Somebody has asked for the execution's end.
    pub(crate) cancel: CancellationToken,
    /// The lease is lost: kill at once, write nothing more.
    pub(crate) lost: CancellationToken,
    /// Whether the execution is to stand still.
    pub(crate) pause: watch::Sender<bool>,
}

impl Orders {
    fn set_paused(&self, is_paused: bool) {
        self.pause
            .send_if_modified(|paused| std::mem::replace(paused, is_paused) != is_paused);
    }

    /// Returns once the execution is to stand still, or is to go on.
    pub(crate) async fn pause_is(&self, wanted: bool) {
        // The sender lives as long as this borrow of it.
        let _ = self
            .pause
            .subscribe()
            .wait_for(|paused| *paused == wanted)
            .await;
    }
}

/// The leases that this worker holds.
pub(crate) struct Leases {
    held: Mutex<HashMap<ExecutionId, (Lease, Orders)>>,
    started_at: Timestamp,
    interval: Duration,
}

/// One lease, held until this is dropped.
pub(crate) struct Held<'a> {
    leases: &'a Leases,
    pub(crate) lease: Lease,
    pub(crate) orders: Orders,
}

impl Leases {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            held: Mutex::default(),
            started_at: Timestamp::now(),
            interval: config.lease / RENEWALS_PER_LEASE,
        }
    }

    /// Renews `lease` from now on.
    pub(crate) fn hold(&self, lease: Lease) -> Held<'_> {
        let orders = Orders::default();
        self.lock()
            .insert(lease.id.clone(), (lease.clone(), orders.clone()));
        Held {
            leases: self,
            lease,
            orders,
        }
    }

    fn all(&self) -> Vec<(Lease, Orders)> {
        self.lock().values().cloned().collect()
    }

    fn obey(&self, control: &Control) {
        let held = self.lock();
        let Some((lease, orders)) = held.get(&control.id) else {
            return;
        };
        if lease.attempt != control.attempt {
            return;
        }
        match control.action {
            Action::Cancel => orders.cancel.cancel(),
            Action::Pause => orders.set_paused(true),
            Action::Resume => orders.set_paused(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, (Lease, Orders)>> {
        // The map is whole after every statement, so a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.lease.id);
    }
}

/// Renews leases and says that the worker is alive, for as long as it is polled.
pub(crate) async fn keep(context: Arc<Context>, drain: CancellationToken) {
    let leases = &context.leases;
    let mut controls = context.store.controls(&context.config.name).await;
    let mut ticks = tokio::time::interval(leases.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_draining = false;
    let mut has_failed = false;
    loop {
        tokio::select! {
            Some(control) = controls.recv() => leases.obey(&control),
            () = drain.cancelled(), if !is_draining => {
                is_draining = true;
                ticks.reset_immediately();
            }
            _ = ticks.tick() => {
                let result = renew(&context, is_draining).await;
                report(&result, has_failed);
                has_failed = result.is_err();
                if has_failed {
                    ticks.reset_after(leases.interval.min(RETRY_DELAY));
                }
            }
        }
    }
}

/// After a failed renewal, unless leases are shorter.
const RETRY_DELAY: Duration = Duration::from_millis(500);

fn report(result: &Result<(), StoreError>, had_failed: bool) {
    match result {
        Ok(()) if had_failed => tracing::info!("leases are being renewed again"),
        Err(error) if !had_failed => {
            let error = shared::entry::chain(error);
            tracing::error!(error, "failed to renew leases, trying again until it works");
        }
        Ok(()) | Err(_) => {}
    }
}

async fn renew(context: &Context, is_draining: bool) -> Result<(), StoreError> {
    let held = context.leases.all();
    announce(context, &held, is_draining).await?;
    if held.is_empty() {
        return Ok(());
    }
    let leases: Vec<Lease> = held.iter().map(|(lease, _)| lease.clone()).collect();
    let renewals = context.store.renew(&leases, context.config.lease).await?;
    for ((lease, orders), renewal) in held.iter().zip(renewals) {
        match renewal {
            Renewal::Renewed => orders.set_paused(false),
            Renewal::PauseRequested => orders.set_paused(true),
            Renewal::CancelRequested => orders.cancel.cancel(),
            Renewal::Lost => {
                // It may simply have ended between the question and the answer.
                tracing::debug!(execution_id = %lease.id, attempt = lease.attempt, "lease lost");
                orders.lost.cancel();
            }
        }
    }
    Ok(())
}

async fn announce(
    context: &Context,
    held: &[(Lease, Orders)],
    is_draining: bool,
) -> Result<(), StoreError> {
    let config = &context.config;
    let info = WorkerInfo {
        name: config.name.clone(),
        host: config.host.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: config.slots,
        queues: config.queues.clone(),
        executions: held.iter().map(|(lease, _)| lease.id.clone()).collect(),
        draining: is_draining,
        started_at: context.leases.started_at,
        seen_at: Timestamp::now(),
    };
    context.store.announce(&info, config.lease).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Exposure;
    use shared::config::Source;

    #[test]
    fn an_order_for_another_attempt_is_not_obeyed() {
        let leases =
            Leases::new(&Config::read(&Source::default(), Exposure::Person).expect("has defaults"));
        let id: ExecutionId = "x".parse().expect("is an id");
        let lease = Lease {
            id: id.clone(),
            attempt: 2,
            worker: "w".to_owned(),
        };
        let held = leases.hold(lease);
        let order = |attempt| Control {
            id: id.clone(),
            attempt,
            action: Action::Cancel,
        };
        leases.obey(&order(1));
        assert!(!held.orders.cancel.is_cancelled());
        leases.obey(&order(2));
        assert!(held.orders.cancel.is_cancelled());
        drop(held);
        assert!(leases.all().is_empty());
    }
}
