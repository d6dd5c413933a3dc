//! What the `main` of every server does: flags, settings, logs, a runtime, signals.

use std::process::ExitCode;

use clap::Command;
use tokio::task::JoinSet;

use crate::config::{ConfigError, Setting, Source, with_flags};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The exit code for bad flags and bad settings.
const BAD_CONFIGURATION: u8 = 2;

/// Reads the settings from flags and the environment, or ends the process as clap does.
pub fn source(command: Command, settings: &[&[Setting]]) -> Source {
    let matches = with_flags(command, settings).get_matches();
    Source::environment().with_flags_of(&matches, settings)
}

/// Puts together the results of reading several parts of the configuration, with all their problems.
pub fn all_of<A, B>(
    first: Result<A, ConfigError>,
    second: Result<B, ConfigError>,
) -> Result<(A, B), ConfigError> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (first, second) => {
            let problems = first.err().into_iter().chain(second.err());
            Err(ConfigError(problems.flat_map(|error| error.0).collect()))
        }
    }
}

/// Runs a server until it ends or is asked to, with logs and signals in place.
pub fn serve<C, F>(
    name: &str,
    source: &Source,
    config: Result<C, ConfigError>,
    run: impl FnOnce(C, Shutdown) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>>,
{
    let (telemetry, config) = match all_of(telemetry::Config::read(source), config) {
        Ok(both) => both,
        Err(error) => {
            eprint!("{name}: {error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    telemetry.start();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(name, &error),
    };
    let result = runtime.block_on(async {
        let shutdown = Shutdown::default();
        let mut signals = JoinSet::new();
        signals.spawn(shutdown.clone().on_signals());
        run(config, shutdown).await
    });
    // Blocking reads of the embedded store may be under way; nothing waits for their result.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(name, error.as_ref()),
    }
}

/// Prints an error with its causes.
pub fn fail(name: &str, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("{name}: failed to {}", chain(error));
    ExitCode::FAILURE
}

/// An error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
