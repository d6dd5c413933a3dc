//! Logs: to standard error, as text for people or as JSON for machines.

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Reader, Setting, Source};

/// The settings of logging.
pub const SETTINGS: &[Setting] = &[LOG, LOG_FORMAT];

const LOG: Setting = Setting::new(
    "CC_LOG",
    "info",
    "What to log: error, warn, info, debug or trace, or a filter like info,worker=debug",
);
const LOG_FORMAT: Setting = Setting::new("CC_LOG_FORMAT", "text", "Logs as text or as json");

/// What says at `info` what nobody asked; a filter that names it has the last word.
const QUIET: &str = "actix_server=warn";

/// How to log.
#[derive(Debug)]
pub struct Config {
    filter: EnvFilter,
    is_json: bool,
}

impl Config {
    /// Reads the settings.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(source);
        let filter: String = reader.value(&LOG);
        let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).unwrap_or_else(|error| {
            reader.problem(format!("CC_LOG is a log filter, not {filter:?}: {error}"));
            EnvFilter::default()
        });
        let format: String = reader.value(&LOG_FORMAT);
        if !["text", "json"].contains(&format.as_str()) {
            reader.problem(format!("CC_LOG_FORMAT is text or json, not {format:?}"));
        }
        reader.finish(Self {
            filter,
            is_json: format == "json",
        })
    }

    /// Starts logging; a second call in one process changes nothing.
    pub fn start(self) {
        use std::io::IsTerminal as _;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        // A failure means that a subscriber is in place already, as in tests.
        let _ = if self.is_json {
            builder.json().try_init()
        } else {
            builder.try_init()
        };
    }
}
