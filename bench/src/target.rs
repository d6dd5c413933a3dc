//! A process that says when it was asked to end.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};

/// The argument that makes this program be one.
pub(crate) const VERB: &str = "await-term";

/// Says that it is ready, then when SIGTERM has come.
pub(crate) fn await_term() -> io::Result<()> {
    let signals = SigSet::from(Signal::SIGTERM);
    signals.thread_block()?;
    let mut stdout = io::stdout();
    stdout.write_all(b"ready\n")?;
    signals.wait()?;
    let now = since_1970().as_micros();
    stdout.write_all(format!("{now}\n").as_bytes())
}

/// Now, by the clock that all processes share.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// What it said, as a time.
pub(crate) fn moment(said: &str) -> Option<Duration> {
    said.trim().parse().ok().map(Duration::from_micros)
}
