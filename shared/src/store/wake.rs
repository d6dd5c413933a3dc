//! Wake-ups for readers: who watches which execution in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::id::ExecutionId;

/// Everybody in this process who watches an execution.
#[derive(Clone, Default)]
pub struct Wakers {
    by_id: Arc<Mutex<HashMap<ExecutionId, Waker>>>,
    on_last_gone: Option<OnLastGone>,
}

type OnLastGone = Arc<dyn Fn(&ExecutionId) + Send + Sync>;

struct Waker {
    sender: watch::Sender<()>,
    watches: usize,
}

/// Notices of new lines in one execution's log.
pub struct Watch {
    receiver: watch::Receiver<()>,
    id: ExecutionId,
    wakers: Wakers,
}

impl Wakers {
    /// Wakers that call `on_last_gone` when nobody watches an execution any more.
    pub fn new(on_last_gone: impl Fn(&ExecutionId) + Send + Sync + 'static) -> Self {
        Self {
            by_id: Arc::default(),
            on_last_gone: Some(Arc::new(on_last_gone)),
        }
    }

    /// Watches an execution, and says whether this is the first watch on it.
    pub fn watch(&self, id: &ExecutionId) -> (Watch, bool) {
        let mut by_id = self.lock();
        let waker = by_id.entry(id.clone()).or_insert_with(|| Waker {
            sender: watch::channel(()).0,
            watches: 0,
        });
        waker.watches += 1;
        let watch = Watch {
            receiver: waker.sender.subscribe(),
            id: id.clone(),
            wakers: self.clone(),
        };
        (watch, waker.watches == 1)
    }

    /// Wakes those who watch `id`.
    pub fn wake(&self, id: &str) {
        if let Some(waker) = self.lock().get(id) {
            waker.sender.send_replace(());
        }
    }

    /// Wakes everybody: notices may have been lost.
    pub fn wake_all(&self) {
        for waker in self.lock().values() {
            waker.sender.send_replace(());
        }
    }

    /// Whether anybody watches `id`.
    pub fn is_watched(&self, id: &ExecutionId) -> bool {
        self.lock().contains_key(id)
    }

    /// The executions that are being watched.
    pub fn watched(&self) -> Vec<ExecutionId> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ExecutionId, Waker>> {
        // The map is whole after every statement, so a panic elsewhere does not spoil it.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Returns once there has been a notice since the last call, or since the watch began.
    pub async fn changed(&mut self) {
        // The sender lives in the wakers for as long as this watch does.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut by_id = self.wakers.lock();
        let Some(waker) = by_id.get_mut(&self.id) else {
            return;
        };
        waker.watches -= 1;
        if waker.watches > 0 {
            return;
        }
        by_id.remove(&self.id);
        // Told under the lock, so that a new first watch is told of after this.
        if let Some(on_last_gone) = &self.wakers.on_last_gone {
            on_last_gone(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notice_before_the_wait_is_not_missed_and_the_last_watch_is_reported() {
        let gone = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&gone);
        let wakers = Wakers::new(move |id| seen.lock().expect("is whole").push(id.to_string()));
        let id: ExecutionId = "x".parse().expect("is an id");
        let (mut first, is_first) = wakers.watch(&id);
        assert!(is_first);
        let (second, is_first) = wakers.watch(&id);
        assert!(!is_first);
        wakers.wake("x");
        first.changed().await;
        drop(first);
        assert!(gone.lock().expect("is whole").is_empty());
        drop(second);
        assert_eq!(*gone.lock().expect("is whole"), ["x"]);
        assert!(wakers.watched().is_empty());
    }
}
