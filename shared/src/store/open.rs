//! Which store to use, by the settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::embedded::EmbeddedStore;
use super::redis::RedisStore;
use super::{SharedStore, StoreError, embedded, redis};
use crate::config::{ConfigError, Reader, Setting, Source};

/// The settings of the Redis engine.
pub const REDIS_SETTINGS: &[Setting] = &[REDIS_URL, SHARDS, RETENTION];
/// The settings of `serve`, which may use either engine.
pub const ANY_SETTINGS: &[Setting] = &[REDIS_URL, SHARDS, RETENTION, DATA_DIR];

const REDIS_URL: Setting = Setting::secret(
    "REDIS_URL",
    "",
    "Where Redis is: redis://, rediss:// (TLS) or unix://",
);
const SHARDS: Setting = Setting::new(
    "CC_SHARDS",
    "1",
    "Into how many shards Redis keys are divided; the same for all API servers and workers",
);
const RETENTION: Setting = Setting::new(
    "CC_RETENTION",
    "86400",
    "Seconds that an execution is kept after its end",
);
const DATA_DIR: Setting = Setting::new(
    "CC_DATA_DIR",
    "",
    "Where the embedded store keeps its files [default: $XDG_DATA_HOME/cc-executor or ~/.local/share/cc-executor]",
);

/// Which store to use.
#[derive(Clone, Debug)]
pub enum Config {
    /// Redis.
    Redis(redis::Options),
    /// A file of one's own.
    Embedded(embedded::Options),
}

impl Config {
    /// For programs that need Redis.
    pub fn redis(source: &Source) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(source);
        let url: Option<String> = reader.optional(&REDIS_URL);
        if url.is_none() {
            reader.problem("REDIS_URL is required, like redis://127.0.0.1:6379");
        }
        let options = redis_options(&mut reader, url.unwrap_or_default());
        reader.finish(Self::Redis(options))
    }

    /// For programs that use Redis if `REDIS_URL` is set and a file of their own otherwise.
    pub fn any(source: &Source) -> Result<Self, ConfigError> {
        if source.get(REDIS_URL.name).is_some() {
            return Self::redis(source);
        }
        let mut reader = Reader::new(source);
        let directory = reader
            .optional(&DATA_DIR)
            .or_else(|| default_directory(source));
        if directory.is_none() {
            reader.problem("CC_DATA_DIR is required where neither XDG_DATA_HOME nor HOME is set");
        }
        let options = embedded::Options {
            directory: directory.unwrap_or_default(),
            retention: reader.value(&RETENTION),
        };
        reader.finish(Self::Embedded(options))
    }

    /// Opens the store, within a tokio runtime.
    pub fn open(&self) -> Result<SharedStore, StoreError> {
        Ok(match self {
            Self::Redis(options) => Arc::new(RedisStore::open(options)?),
            Self::Embedded(options) => Arc::new(EmbeddedStore::open(options)?),
        })
    }
}

fn redis_options(reader: &mut Reader<'_>, url: String) -> redis::Options {
    if !url.is_empty() && ::redis::IntoConnectionInfo::into_connection_info(url.as_str()).is_err() {
        reader.problem(
            "REDIS_URL is a URL of Redis, like redis://127.0.0.1:6379 (its value is hidden)",
        );
    }
    redis::Options {
        url,
        shards: reader.value(&SHARDS),
        retention: reader.value::<Duration>(&RETENTION),
    }
}

fn default_directory(source: &Source) -> Option<PathBuf> {
    let data = source.get("XDG_DATA_HOME").map(PathBuf::from);
    let home = || {
        source
            .get("HOME")
            .map(|home| PathBuf::from(home).join(".local/share"))
    };
    data.or_else(home).map(|data| data.join("cc-executor"))
}
