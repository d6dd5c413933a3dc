//! The one connection for subscriptions: notices for readers, and messages to this process's workers.
//!
//! Notices may be lost while the connection is down. Once it is up again every reader is woken, and
//! looks for itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::connection::Connections;
use super::keys::{CONTROL_CHANNEL, WAKE_CHANNEL};
use crate::id::ExecutionId;
use crate::store::{Control, Wakers, Watch};

/// How long somebody waits for a subscription to be in place before looking without it.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(1);
const RECONNECT_DELAY: Duration = Duration::from_millis(100);
/// Messages to a worker that it has not read yet; more are dropped, and found when it renews.
const CONTROL_BACKLOG: usize = 1024;

enum Order {
    Subscribe(String, oneshot::Sender<()>),
    Unsubscribe(ExecutionId),
}

type Inboxes = Arc<Mutex<HashMap<String, mpsc::Sender<Control>>>>;

/// Subscriptions of this process.
pub(super) struct Listener {
    wakers: Wakers,
    inboxes: Inboxes,
    orders: mpsc::UnboundedSender<Order>,
    _task: JoinSet<()>,
}

impl Listener {
    /// Starts listening, for as long as the listener lives.
    pub(super) fn start(connections: Connections) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        let unsubscribe = orders.clone();
        let wakers = Wakers::new(move |id| {
            // The task is gone only when the listener is; then nothing is subscribed either.
            let _ = unsubscribe.send(Order::Unsubscribe(id.clone()));
        });
        let inboxes = Inboxes::default();
        let mut task = JoinSet::new();
        task.spawn(
            Task {
                connections,
                wakers: wakers.clone(),
                inboxes: Arc::clone(&inboxes),
                orders: received,
                subscribed: HashSet::new(),
            }
            .run(),
        );
        Self {
            wakers,
            inboxes,
            orders,
            _task: task,
        }
    }

    /// Notices of new lines in one log.
    pub(super) async fn watch(&self, id: &ExecutionId) -> Watch {
        let (watch, _) = self.wakers.watch(id);
        self.subscribe(format!("{WAKE_CHANNEL}{id}")).await;
        watch
    }

    /// Messages to one worker.
    pub(super) async fn controls(&self, worker: &str) -> mpsc::Receiver<Control> {
        let (sender, receiver) = mpsc::channel(CONTROL_BACKLOG);
        let channel = format!("{CONTROL_CHANNEL}{worker}");
        lock(&self.inboxes).insert(channel.clone(), sender);
        self.subscribe(channel).await;
        receiver
    }

    async fn subscribe(&self, channel: String) {
        let (done, is_done) = oneshot::channel();
        if self.orders.send(Order::Subscribe(channel, done)).is_ok() {
            // Without an answer the reader looks anyhow, and again when the connection is back.
            let _ = tokio::time::timeout(SUBSCRIBE_TIMEOUT, is_done).await;
        }
    }
}

struct Task {
    connections: Connections,
    wakers: Wakers,
    inboxes: Inboxes,
    orders: mpsc::UnboundedReceiver<Order>,
    subscribed: HashSet<String>,
}

impl Task {
    async fn run(mut self) {
        let mut was_up = true;
        loop {
            match self.connect().await {
                Ok((sink, stream)) => {
                    if !was_up {
                        tracing::info!("subscriptions to redis are back");
                    }
                    was_up = true;
                    self.wakers.wake_all();
                    if self.listen(sink, stream).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    if was_up {
                        tracing::warn!(%error, "failed to subscribe to redis, trying again");
                    }
                    was_up = false;
                }
            }
            tokio::time::sleep(RECONNECT_DELAY).await;
        }
    }

    async fn connect(&mut self) -> redis::RedisResult<(PubSubSink, PubSubStream)> {
        let (mut sink, stream) = self.connections.subscriber().await?.split();
        self.subscribed.clear();
        let wakes = self
            .wakers
            .watched()
            .into_iter()
            .map(|id| format!("{WAKE_CHANNEL}{id}"));
        let channels: Vec<String> = wakes.chain(lock(&self.inboxes).keys().cloned()).collect();
        for some in channels.chunks(1000) {
            sink.subscribe(some).await?;
        }
        self.subscribed.extend(channels);
        Ok((sink, stream))
    }

    /// Serves one connection until it breaks; none once nobody can give orders any more.
    async fn listen(&mut self, mut sink: PubSubSink, mut stream: PubSubStream) -> Option<()> {
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => self.deliver(&message),
                    None => return Some(()),
                },
                order = self.orders.recv() => {
                    if self.obey(order?, &mut sink).await.is_err() {
                        return Some(());
                    }
                }
            }
        }
    }

    fn deliver(&self, message: &redis::Msg) {
        let channel = message.get_channel_name();
        if let Some(id) = channel.strip_prefix(WAKE_CHANNEL) {
            self.wakers.wake(id);
        } else if let Some(inbox) = lock(&self.inboxes).get(channel) {
            match serde_json::from_slice(message.get_payload_bytes()) {
                // A full inbox drops it: the worker learns the same when it renews its leases.
                Ok(control) => drop(inbox.try_send(control)),
                Err(error) => tracing::warn!(channel, %error, "failed to read a message"),
            }
        }
    }

    async fn obey(&mut self, order: Order, sink: &mut PubSubSink) -> redis::RedisResult<()> {
        match order {
            Order::Subscribe(channel, done) => {
                if !self.subscribed.contains(&channel) {
                    sink.subscribe(&channel).await?;
                    self.subscribed.insert(channel);
                }
                // Whoever asked may have gone away by now.
                let _ = done.send(());
            }
            Order::Unsubscribe(id) => {
                let channel = format!("{WAKE_CHANNEL}{id}");
                if !self.wakers.is_watched(&id) && self.subscribed.remove(&channel) {
                    sink.unsubscribe(&channel).await?;
                }
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The map is whole after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
