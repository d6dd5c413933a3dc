//! The one seam through which everything reaches Redis.
//!
//! Commands of the whole process share one pipelined connection, which reconnects by itself.
//! Blocking pops have connections of their own, from a pool: on the shared one they would make
//! everybody wait.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisResult};

/// A server that takes longer than this to answer counts as gone.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many commands may queue up inside the shared connection before callers wait.
const PIPELINE_DEPTH: usize = 1024;

/// Connections to one Redis.
#[derive(Clone)]
pub(super) struct Connections {
    client: Client,
    commands: ConnectionManager,
    blocking: Pool,
}

impl Connections {
    /// Prepares connections; nothing is connected before it is needed.
    pub(super) fn open(url: &str) -> RedisResult<Self> {
        let info = connection_info(url)?;
        let client = Client::open(info.clone())?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(200))
            .set_pipeline_buffer_size(PIPELINE_DEPTH);
        let commands = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let blocking = blocking_pool(info)?;
        Ok(Self {
            client,
            commands,
            blocking,
        })
    }

    /// The shared connection.
    pub(super) fn commands(&self) -> ConnectionManager {
        self.commands.clone()
    }

    /// Blocks until a mark can be popped from one of `bells`, or for `at_most`.
    pub(super) async fn pop_any(&self, bells: &[String], at_most: Duration) -> RedisResult<()> {
        let connection = self.blocking.get().await.map_err(|error| {
            redis::RedisError::from((
                redis::ErrorKind::Io,
                "no connection for a blocking command",
                error.to_string(),
            ))
        })?;
        // To Redis, no time at all means for ever.
        let at_most = at_most.max(Duration::from_millis(1));
        let mut blocked = Blocked(Some(connection));
        let Some(connection) = blocked.0.as_mut() else {
            return Ok(());
        };
        connection.set_response_timeout(at_most + RESPONSE_TIMEOUT);
        let _: Option<(String, String)> = redis::cmd("BLPOP")
            .arg(bells)
            .arg(at_most.as_secs_f64())
            .query_async(connection)
            .await?;
        blocked.give_back();
        Ok(())
    }

    /// A new connection for subscriptions.
    pub(super) async fn subscriber(&self) -> RedisResult<redis::aio::PubSub> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.client.get_async_pubsub())
            .await
            .unwrap_or_else(|_| Err((redis::ErrorKind::Io, "connecting took too long").into()))
    }
}

fn connection_info(url: &str) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    // A peer that vanishes without a word is noticed in half a minute, not in hours.
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(socket_keepalive());
    let redis = info
        .redis_settings()
        .clone()
        .set_protocol(redis::ProtocolVersion::RESP3);
    Ok(info.set_tcp_settings(tcp).set_redis_settings(redis))
}

fn socket_keepalive() -> redis::io::tcp::socket2::TcpKeepalive {
    redis::io::tcp::socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(4)
}

fn blocking_pool(info: ConnectionInfo) -> RedisResult<Pool> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT));
    let manager = Manager::new_with_config(info, config)?;
    Pool::builder(manager)
        .max_size(16)
        .timeouts(Timeouts {
            wait: Some(CONNECT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(Duration::from_millis(500)),
        })
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| {
            (
                redis::ErrorKind::InvalidClientConfig,
                "the pool of blocking connections",
                error.to_string(),
            )
                .into()
        })
}

/// A connection that may be in a blocking command. Unless it is given back it is closed: the server
/// would hand its next mark to somebody who has gone.
struct Blocked(Option<deadpool_redis::Connection>);

impl Blocked {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(deadpool_redis::Connection::take(connection));
        }
    }
}
