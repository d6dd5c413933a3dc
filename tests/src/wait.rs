//! Waiting for what others do, without guessing how long it takes.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(5);

/// Asks again and again until there is an answer, or panics after `deadline`, saying `what` has not
/// come about.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "after {deadline:?} still not: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
