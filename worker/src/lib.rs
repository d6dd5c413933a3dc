//! The worker: claims executions, supervises their processes and publishes what they print.
//!
//! # Theory of operation
//!
//! The `dispatcher` claims one execution for each free slot and hands it to a `supervisor`, which
//! sees it from the claim to the end: a workspace, a process, two pipes, an outcome. What the pipes
//! give goes through a bounded channel to a `publisher`, which writes it to the store in natural
//! batches; while the store is slow or away, the channel is full, the pipes are full, and the process
//! waits. Nothing grows.
//!
//! Two more tasks serve all supervisors. The `lease` keeper renews every lease in one go, and tells
//! a supervisor when it is to cancel or when it has lost its lease. `recovery` takes executions
//! away from workers that are gone, and removes what is past its retention.
//!
//! Asked to stop, the dispatcher claims nothing more and waits for its supervisors; those that take
//! longer than the drain timeout end their processes and hand their executions back.

mod claim;
mod conclusion;
pub mod config;
mod confinement;
mod dispatcher;
mod execution;
pub mod guard;
mod lease;
mod process;
mod publisher;
mod recovery;
mod supervisor;
mod verdict;
mod workspace;

use std::process::ExitCode;
use std::sync::Arc;

use shared::shutdown::Shutdown;
use shared::store::{SharedStore, open};
use shared::{entry, telemetry};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Config, Exposure};

use crate::confinement::Unconfined;
use crate::lease::Leases;
use crate::process::shims::Shims;
use crate::workspace::Workspaces;

/// What all tasks of a worker share.
struct Context {
    config: Config,
    store: SharedStore,
    leases: Leases,
    shims: Shims,
    workspaces: Workspaces,
    /// End what runs and hand it back: the drain timeout is over.
    hand_back: CancellationToken,
    /// The same, without grace.
    now: CancellationToken,
}

/// The program: flags, settings, signals, [`run`].
pub fn main() -> ExitCode {
    if let Some(code) = guard::take_over() {
        return code;
    }
    let command = clap::Command::new("cc-executor-worker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Claims jobs from Redis and supervises their processes.")
        .after_help("Stops on SIGTERM once its jobs have ended or CC_DRAIN_TIMEOUT is over; a second SIGTERM stops it at once.");
    let settings = [open::REDIS_SETTINGS, config::SETTINGS, telemetry::SETTINGS];
    let source = entry::source(command, &settings);
    let config = entry::all_of(
        open::Config::redis(&source),
        Config::read(&source, Exposure::Deployment),
    );
    entry::serve(
        "cc-executor-worker",
        &source,
        config,
        |(store, config), shutdown| async move {
            run(config, store.open()?, shutdown).await?;
            Ok(())
        },
    )
}

/// Works until asked to stop.
pub async fn run(
    mut config: Config,
    store: SharedStore,
    shutdown: Shutdown,
) -> Result<(), WorkError> {
    config.confinement = config.confinement.possible_here()?;
    let workspaces = Workspaces::create(&config.workspace_dir);
    let shims = Shims::new(&config.confinement.cgroup);
    let context = Arc::new(Context {
        leases: Leases::new(&config),
        workspaces: workspaces.map_err(WorkError::Workspaces)?,
        shims: shims.map_err(WorkError::Processes)?,
        config,
        store,
        hand_back: CancellationToken::new(),
        now: shutdown.now.clone(),
    });
    let Config {
        name,
        slots,
        queues,
        ..
    } = &context.config;
    let queues = if queues.is_empty() {
        "*"
    } else {
        &queues.join(",")
    };
    let (sandbox, kill) = (
        context.config.confinement.sandbox.as_str(),
        context.shims.mechanism(),
    );
    tracing::info!(worker = %name, slots, queues, sandbox, kill, store = context.store.engine(), "worker started");

    let mut background = JoinSet::new();
    background.spawn(lease::keep(Arc::clone(&context), shutdown.drain.clone()));
    background.spawn(recovery::run(Arc::clone(&context)));
    background.spawn(look_after_children(Arc::clone(&context)));
    dispatcher::run(&context, &shutdown).await;
    background.shutdown().await;

    if let Err(error) = context.store.withdraw(name).await {
        tracing::warn!(%error, "failed to take the worker off the list");
    }
    tracing::info!(worker = %name, "worker stopped");
    Ok(())
}

async fn look_after_children(context: Arc<Context>) {
    if let Err(error) = context.shims.look_after().await {
        tracing::error!(%error, "failed to look after the guardian");
    }
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The kernel cannot do what is required of it.
    #[error(transparent)]
    Unconfined(#[from] Unconfined),
    /// There is no place for working directories.
    #[error("make the directory of working directories, CC_WORKSPACE_DIR")]
    Workspaces(#[source] std::io::Error),
    /// Processes cannot be looked after.
    #[error("get ready to look after processes")]
    Processes(#[source] std::io::Error),
}
