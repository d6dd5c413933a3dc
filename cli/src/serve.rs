//! `serve`: the API server and a worker in one process.
//!
//! Each has a [`Shutdown`] of its own. Asked to stop, the worker drains first while the API goes on
//! serving those who watch; the API stops when the worker has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ArgMatches;
use shared::config::{ConfigError, Setting, Source, with_flags};
use shared::shutdown::Shutdown;
use shared::store::open;
use shared::{entry, telemetry};

use worker::Exposure;

use crate::output;

/// Start a server on this machine: the API and a worker in one process
///
/// Nothing has to be installed: jobs are kept in files of its own, durable across restarts and crashes.
/// With a Redis URL they are kept in Redis, which other API servers and workers can share.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {}

const AFTER_HELP: &str = "\
SIGTERM or Ctrl-C stops it once running jobs have ended, or CC_DRAIN_TIMEOUT is over; again, at once.

Examples:
  cc-executor serve
  CC_DATA_DIR=./jobs CC_BIND=127.0.0.1:8123 cc-executor serve
  CC_API_KEYS=$(openssl rand -hex 32) cc-executor serve --bind 0.0.0.0:8000
  REDIS_URL=redis://127.0.0.1 cc-executor serve --slots 8";

const SETTINGS: [&[Setting]; 4] = [
    api::config::SETTINGS,
    open::ANY_SETTINGS,
    worker::config::SETTINGS,
    telemetry::SETTINGS,
];

/// Adds the flags for all settings.
pub(crate) fn with_settings(command: clap::Command) -> clap::Command {
    let headings = ["API server", "Store", "Worker", "Logs"];
    let parts = headings.into_iter().zip(SETTINGS);
    parts.fold(command, |command, (heading, settings)| {
        with_flags(command.next_help_heading(heading), &[settings])
    })
}

struct Config {
    api: api::Config,
    worker: worker::Config,
    store: open::Config,
}

impl Config {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        let api_and_worker = entry::all_of(
            api::Config::read(source),
            worker::Config::read(source, Exposure::Person),
        );
        let ((api, worker), store) = entry::all_of(api_and_worker, open::Config::any(source))?;
        Ok(Self { api, worker, store })
    }
}

/// The command.
pub(crate) fn main(matches: &ArgMatches) -> ExitCode {
    let source = Source::environment().with_flags_of(matches, &SETTINGS);
    let config = Config::read(&source);
    entry::serve(
        crate::NAME,
        &source,
        config,
        |config, shutdown| async move { Ok(run(config, shutdown).await?) },
    )
}

async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let listener = listen(&config.api)?;
    let store = config.store.open().context("open the store")?;
    announce(&config, listener.local_addr()?);

    let of_api = Shutdown::default();
    let api = async {
        let served = api::run(config.api, store.clone(), listener, of_api.clone()).await;
        // Without an API there is nobody to work for.
        shutdown.drain.cancel();
        served.context("serve the API")
    };
    let worker = async {
        let worked = worker::run(config.worker, store.clone(), shutdown.clone()).await;
        of_api.drain.cancel();
        worked.context("work")
    };
    let (of_api, of_worker) = tokio::join!(api, worker);
    of_api.and(of_worker)
}

fn listen(config: &api::Config) -> anyhow::Result<TcpListener> {
    let in_use = |error: &api::ServeError| match error {
        api::ServeError::Listen { source, .. } => source.kind() == std::io::ErrorKind::AddrInUse,
        api::ServeError::Serve(_) => false,
    };
    api::listen(config).map_err(|error| {
        if in_use(&error) {
            let address = config.bind;
            anyhow::anyhow!(
                "listen on {address}: it is taken, perhaps by another cc-executor; CC_BIND (or --bind) sets another address"
            )
        } else {
            error.into()
        }
    })
}

/// Says to a person where it is, and what to try.
fn announce(config: &Config, address: SocketAddr) {
    let url = format!("http://{}", reachable(address));
    let store = match &config.store {
        open::Config::Redis(_) => "Redis".to_owned(),
        open::Config::Embedded(options) => options.directory.display().to_string(),
    };
    let has_keys = !config.api.keys.is_empty();
    let key = if has_keys {
        "-H \"Authorization: Bearer $CC_API_KEY\" "
    } else {
        ""
    };
    let client_url = if url == "http://127.0.0.1:8000" {
        String::new()
    } else {
        format!("CC_URL={url} ")
    };
    let text = format!(
        "cc-executor {} listens on http://{address}
  jobs are kept in  {store}
  at a time         {} of them run

In another terminal, try{}:
  {client_url}cc-executor run -- echo hello
  curl -N {url}/execute {key}-H 'Content-Type: application/json' -d '{{\"command\":\"echo hello\"}}'

Ctrl-C stops it once running jobs have ended; a second one at once.
",
        env!("CARGO_PKG_VERSION"),
        config.worker.slots,
        if has_keys {
            ", with one of the keys as CC_API_KEY"
        } else {
            ""
        },
    );
    if output::print(&text).is_err() {
        tracing::debug!("nobody reads standard output");
    }
}

/// An address that binds everything is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}
