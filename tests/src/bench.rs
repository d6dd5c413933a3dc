//! The engines, as the conformance suite wants them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::id::ExecutionId;
use shared::store::SharedStore;
use shared::store::conformance::Bench;
use shared::store::embedded::{self, EmbeddedStore};
use shared::store::redis::{self, RedisStore};
use tempfile::TempDir;

use crate::redis::RedisServer;

/// Redis, with the executions divided into shards.
pub struct Redis {
    server: RedisServer,
    shards: usize,
}

impl Redis {
    /// On a server of its own.
    pub fn with_shards(shards: usize) -> Self {
        Self {
            server: RedisServer::start(),
            shards,
        }
    }
}

#[async_trait]
impl Bench for Redis {
    async fn open(&self, retention: Duration) -> SharedStore {
        let options = redis::Options {
            url: self.server.url(),
            shards: self.shards,
            retention,
        };
        Arc::new(RedisStore::open(&options).expect("opens"))
    }

    fn ids_in_one_order(&self, count: usize) -> Vec<ExecutionId> {
        let ids = (0..).map(|number| format!("in-order-{number}"));
        let of_first_shard = ids.filter(|id| shard(id, self.shards) == 0);
        let parsed = of_first_shard.map(|id| id.parse().expect("is an id"));
        parsed.take(count).collect()
    }
}

/// The shard of an id. Deployments rely on it, so it is written down here once more.
pub fn shard(id: &str, shards: usize) -> usize {
    let fnv_1a = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(fnv_1a % shards as u64).expect("is small")
}

/// The embedded engine, in a directory of its own.
pub struct Embedded {
    directory: TempDir,
}

impl Embedded {
    /// In a new directory.
    pub fn create() -> Self {
        Self {
            directory: TempDir::new().expect("makes a directory"),
        }
    }
}

#[async_trait]
impl Bench for Embedded {
    async fn open(&self, retention: Duration) -> SharedStore {
        let options = embedded::Options {
            directory: self.directory.path().to_owned(),
            retention,
        };
        Arc::new(EmbeddedStore::open(&options).expect("opens"))
    }

    fn ids_in_one_order(&self, count: usize) -> Vec<ExecutionId> {
        let ids = (0..count).map(|number| format!("in-order-{number}"));
        ids.map(|id| id.parse().expect("is an id")).collect()
    }
}
