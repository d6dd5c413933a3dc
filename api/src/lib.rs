//! The HTTP front end: takes jobs in, and serves what the store knows of them.
//!
//! A handler never runs anything and keeps nothing: what it acknowledges is in the store. Any number
//! of these servers may work on one store, and a client may change between them at any line.

mod body;
pub mod config;
mod error;
mod feed;
mod guard;
mod health;
pub mod openapi;
mod params;
mod reader;
mod routes;
mod transcript;
mod view;

use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use shared::id::ExecutionId;
use shared::shutdown::Shutdown;
use shared::store::{SharedStore, open};
use shared::{entry, telemetry};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::Config;

use crate::feed::Feeds;
use crate::guard::Keys;

/// How long requests that are being answered may take once the server has been asked to stop.
const SHUTDOWN_SECONDS: u64 = 5;

/// How long an idle connection is kept: longer than clients and proxies keep theirs, so that none of
/// them sends a request into a connection that is being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What all handlers share.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) store: SharedStore,
    pub(crate) keys: Keys,
    pub(crate) feeds: Feeds,
    /// Set off when streams have to end because the server stops.
    pub(crate) ending: CancellationToken,
    /// Executions to be cancelled because the client that asked for that has gone.
    pub(crate) abandoned: mpsc::UnboundedSender<ExecutionId>,
}

/// Why the server could not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The server failed.
    #[error("serve")]
    Serve(#[source] std::io::Error),
}

/// The program: flags, settings, signals, [`run`].
pub fn main() -> ExitCode {
    let command = clap::Command::new("cc-executor-api")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The HTTP front end of cc-executor, on Redis.")
        .arg(
            clap::Arg::new("health")
                .long("health")
                .action(clap::ArgAction::SetTrue)
                .help("Ask the server that runs with the same settings whether it is healthy, and exit with 0 or 1"),
        );
    let settings = [open::REDIS_SETTINGS, config::SETTINGS, telemetry::SETTINGS];
    let matches = shared::config::with_flags(command, &settings).get_matches();
    let source = shared::config::Source::environment().with_flags_of(&matches, &settings);
    if matches.get_flag("health") {
        return health::main(&source);
    }
    let config = entry::all_of(open::Config::redis(&source), Config::read(&source));
    entry::serve(
        "cc-executor-api",
        &source,
        config,
        |(store, config), shutdown| async move {
            let listener = listen(&config)?;
            run(config, store.open()?, listener, shutdown).await?;
            Ok(())
        },
    )
}

/// Binds the configured address.
pub fn listen(config: &Config) -> Result<TcpListener, ServeError> {
    let address = config.bind;
    TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source })
}

/// Serves until asked to stop.
pub async fn run(
    config: Config,
    store: SharedStore,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let (abandoned, to_cancel) = mpsc::unbounded_channel();
    let state = web::Data::new(State {
        keys: Keys::new(&config.keys),
        feeds: Feeds::new(store.clone()),
        ending: CancellationToken::new(),
        abandoned,
        store,
        config,
    });
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, store = state.store.engine(), "listening on http://{address}");
    }
    let mut background = JoinSet::new();
    background.spawn(cancel_abandoned(state.store.clone(), to_cancel));

    let for_app = state.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(for_app.clone())
            .wrap(from_fn(guard::check))
            .configure(routes::configure)
            .default_service(web::to(routes::nothing_here))
    })
    // Nagle's algorithm holds small lines back for 40 ms.
    .tcp_nodelay(true)
    .keep_alive(KEEP_ALIVE)
    // A client that has gone is noticed at once, not when writing to it has failed twice.
    .h1_allow_half_closed(false)
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .disable_signals()
    .listen(listener)
    .map_err(ServeError::Serve)?
    .run();

    let handle = server.handle();
    background.spawn(async move {
        shutdown.drain.cancelled().await;
        state.ending.cancel();
        handle.stop(true).await;
    });
    server.await.map_err(ServeError::Serve)
}

/// Cancels what clients have asked to be cancelled when they go.
async fn cancel_abandoned(store: SharedStore, mut abandoned: mpsc::UnboundedReceiver<ExecutionId>) {
    while let Some(id) = abandoned.recv().await {
        match shared::life::cancel(store.as_ref(), &id).await {
            Ok(_) => tracing::info!(execution_id = %id, "cancelled: its client has gone"),
            Err(error) => tracing::debug!(execution_id = %id, %error, "nothing to cancel"),
        }
    }
}
