//! The sign of life on a terminal: time and bytes, there only while nothing else is being shown.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::output::Pipe;

/// How often [`Spinner::tick`] is to be called.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// How long nothing has to be written before the spinner shows, so that it does not flicker.
const QUIET: Duration = Duration::from_millis(500);

/// A spinner that knows when it is in the way.
#[derive(Debug)]
pub(crate) struct Spinner {
    is_wanted: bool,
    /// Whether standard output is seen on the same terminal: itself, or by way of a pipe.
    shares_stdout: bool,
    started_at: Instant,
    quiet_since: Instant,
    is_at_line_start: bool,
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl Spinner {
    /// A spinner where standard error is a terminal, and none elsewhere.
    pub(crate) fn on_terminal() -> Self {
        Self {
            is_wanted: std::io::stderr().is_terminal(),
            shares_stdout: is_stdout_seen(),
            ..Self::absent()
        }
    }

    /// No spinner.
    pub(crate) fn absent() -> Self {
        Self {
            is_wanted: false,
            shares_stdout: true,
            started_at: Instant::now(),
            quiet_since: Instant::now(),
            is_at_line_start: true,
            bytes: 0,
            bar: None,
        }
    }

    /// Whether it has to be ticked.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether what is written to standard error next begins a line.
    pub(crate) fn is_at_line_start(&self) -> bool {
        self.is_at_line_start
    }

    /// Turns, or appears where nothing has been written for a while and no line is unfinished.
    pub(crate) fn tick(&mut self) {
        let is_quiet = self.is_at_line_start && self.quiet_since.elapsed() >= QUIET;
        if self.bar.is_none() && self.is_wanted && is_quiet {
            let style = ProgressStyle::with_template("{spinner} {elapsed} · {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            self.bar = Some(bar.with_elapsed(self.started_at.elapsed()));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(HumanBytes(self.bytes).to_string());
            bar.tick();
        }
    }

    /// Before something is written: out of the way.
    pub(crate) fn make_way(&mut self, pipe: Pipe) {
        if self.is_beside(pipe) {
            self.hide();
        }
    }

    /// The job has written something.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
    }

    /// After something has been written.
    pub(crate) fn has_written(&mut self, pipe: Pipe, bytes: &[u8]) {
        if self.is_beside(pipe) {
            self.is_at_line_start = bytes.last().is_none_or(|&byte| byte == b'\n');
            self.quiet_since = Instant::now();
        }
    }

    /// Takes it away.
    pub(crate) fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Whether what goes into a pipe is seen where the spinner is: on standard error.
    fn is_beside(&self, pipe: Pipe) -> bool {
        pipe == Pipe::Stderr || (self.is_wanted && self.shares_stdout)
    }
}

/// Whatever reads from a pipe may well write to our terminal; only a file is surely elsewhere.
fn is_stdout_seen() -> bool {
    let stdout = std::io::stdout();
    let file = stdout.as_fd().try_clone_to_owned().map(File::from);
    let kind = file.and_then(|file| file.metadata());
    stdout.is_terminal() || kind.is_ok_and(|kind| kind.file_type().is_fifo())
}
