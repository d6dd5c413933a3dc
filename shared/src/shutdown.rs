//! Being asked to stop: once means "when you are ready", twice means "now".

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What everybody who has to stop looks at.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take on nothing new, finish what there is.
    pub drain: CancellationToken,
    /// Drop everything.
    pub now: CancellationToken,
}

impl Shutdown {
    /// Obeys SIGTERM and SIGINT for as long as it is polled: the first drains, the second stops.
    pub async fn on_signals(self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        for token in [&self.drain, &self.now] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(
                signal = name,
                at_once = self.drain.is_cancelled(),
                "shutting down"
            );
            token.cancel();
        }
        std::future::pending().await
    }
}
