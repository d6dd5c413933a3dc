//! When to try again, when to say so, and when to give up.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::failure::ClientError;
use crate::output;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// How long to try to reach a server that has never been there: it may be starting, or the address
/// is wrong. One that has been there is waited for without end.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// How one conversation with the server is going.
#[derive(Debug)]
pub(crate) struct Patience {
    has_met: bool,
    failing_since: Option<Instant>,
    failures: u32,
    has_told: bool,
    retry_at: Instant,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self {
            has_met: false,
            failing_since: None,
            failures: 0,
            has_told: false,
            retry_at: Instant::now(),
        }
    }

    /// Waits until it is time to try.
    pub(crate) async fn pause(&self) {
        sleep_until(self.retry_at).await;
    }

    /// The server has said something worth having.
    pub(crate) fn met(&mut self) {
        if !self.has_met || self.failures > 0 {
            *self = Self {
                has_met: true,
                ..Self::new()
            };
        }
    }

    /// Something went wrong. It is an error if trying again is no use; else there may be something to
    /// tell the person who waits, once for each time that it goes wrong.
    pub(crate) fn failed(&mut self, error: ClientError) -> Result<Option<String>, ClientError> {
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        self.has_met |= !matches!(error, ClientError::Unreachable { .. });
        let is_over = !self.has_met && now.duration_since(since) > FIRST_CONTACT;
        if !error.is_transient() || is_over {
            return Err(error);
        }
        let delay = FIRST_DELAY * 2_u32.pow(self.failures.min(8));
        self.retry_at = now + delay.min(LONGEST_DELAY);
        self.failures += 1;
        // A break alone is not worth a word: the next try may succeed at once.
        let is_break = matches!(error, ClientError::Broken { .. } | ClientError::Cut { .. });
        if self.has_told || (is_break && self.failures < 3) {
            return Ok(None);
        }
        self.has_told = true;
        Ok(Some(self.notice(&error)))
    }

    fn notice(&self, error: &ClientError) -> String {
        if self.has_met {
            return format!("still trying: {error}");
        }
        let seconds = FIRST_CONTACT.as_secs();
        let hint = error.hint().map(|hint| format!("; {hint}"));
        format!(
            "trying for {seconds} s: {error}{}",
            hint.unwrap_or_default()
        )
    }
}

/// Makes a request until it is answered.
pub(crate) async fn persist<T>(
    client: &Client,
    request: impl AsyncFn(&Client) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut patience = Patience::new();
    loop {
        patience.pause().await;
        match request(client).await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                if let Some(notice) = patience.failed(error)? {
                    output::say(&notice);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut() -> ClientError {
        ClientError::Cut {
            url: "http://localhost".to_owned(),
        }
    }

    #[tokio::test]
    async fn there_is_one_notice_for_each_outage() {
        let mut patience = Patience::new();
        for _ in 0..2 {
            let told = (0..10).filter_map(|_| patience.failed(cut()).expect("is transient"));
            assert_eq!(told.count(), 1);
            patience.met();
        }
    }

    #[tokio::test]
    async fn the_delay_has_a_ceiling() {
        let mut patience = Patience::new();
        for _ in 0..50 {
            let _ = patience.failed(cut());
        }
        assert!(patience.retry_at <= Instant::now() + LONGEST_DELAY);
    }
}
