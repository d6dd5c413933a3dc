//! A thread that writes what comes, so that nobody else waits for a terminal or a pager; and the loop
//! that brings a log from the server to it.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::exit::End;
use crate::failure::ClientError;
use crate::output::{Form, Output, Pipe, say, unwritten};
use crate::spinner::{Spinner, TICK};
use crate::stream::{Follower, News};

/// How many lines may wait to be written, each of at most 64 KiB. More stay with the server.
const WAITING: usize = 64;
/// How long somebody who leaves waits for what has come already to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

enum Message {
    News(News),
    Tick,
}

/// The way to the thread that writes.
pub(crate) struct Printer {
    messages: Option<mpsc::Sender<Message>>,
    written: oneshot::Receiver<io::Result<()>>,
    /// Keeps the spinner turning.
    ticks: JoinSet<()>,
    end: Option<End>,
}

impl Printer {
    /// Starts to write, within a runtime.
    pub(crate) fn start(form: Form, only: Option<Pipe>, spinner: Spinner) -> Self {
        let (messages, waiting) = mpsc::channel(WAITING);
        let (done, written) = oneshot::channel();
        let mut ticks = JoinSet::new();
        if spinner.is_wanted() {
            ticks.spawn(tick(messages.downgrade()));
        }
        let output = Output::new(form, only, spinner);
        std::thread::spawn(move || {
            // If nobody asks any more, the process is about to end.
            let _ = done.send(write(output, waiting));
        });
        Self {
            messages: Some(messages),
            written,
            ticks,
            end: None,
        }
    }

    /// Brings a log here until its end, and says how the execution ended if it did. Losing interest
    /// while it waits loses nothing.
    pub(crate) async fn follow(
        &mut self,
        follower: &mut Follower<'_>,
    ) -> anyhow::Result<Option<End>> {
        let passed_on = self.pass_on(follower).await;
        // What has come before a failure is shown before the failure is.
        self.finish().await?;
        passed_on?;
        Ok(self.end.take())
    }

    /// No more spinner: nothing is being followed for now.
    pub(crate) fn rest(&mut self) {
        self.ticks.abort_all();
    }

    /// Says something between the lines; if they do not get on, past them.
    pub(crate) fn notice(&self, text: &str) {
        let place = self.messages.as_ref().map(mpsc::Sender::try_reserve);
        match place {
            Some(Ok(place)) => place.send(Message::News(News::Notice(text.to_owned()))),
            Some(Err(_)) | None => say(text),
        }
    }

    async fn pass_on(&mut self, follower: &mut Follower<'_>) -> Result<(), ClientError> {
        let Some(messages) = &self.messages else {
            return Ok(());
        };
        // There is no place where the thread has ended because it cannot write; finishing says why.
        while let Ok(place) = messages.reserve().await {
            let Some(news) = follower.next().await? else {
                break;
            };
            if let News::Line(line) = &news
                && follower.is_over()
            {
                self.end = End::parse(line);
            }
            place.send(Message::News(news));
        }
        Ok(())
    }

    /// Writes what waits, but for a reader who does not read.
    pub(crate) async fn leave(&mut self) {
        // Whoever leaves does not want to know what could not be written.
        let _ = timeout(LAST_WORDS, self.finish()).await;
    }

    /// Waits until everything has been written.
    async fn finish(&mut self) -> anyhow::Result<()> {
        self.messages = None;
        self.rest();
        match (&mut self.written).await {
            Ok(written) => written.map_err(unwritten),
            Err(_) => anyhow::bail!("the thread that writes has panicked"),
        }
    }
}

/// Ticks for as long as somebody follows. Where lines wait there is no quiet for a spinner to show in,
/// so no tick waits with them.
async fn tick(messages: mpsc::WeakSender<Message>) {
    let mut ticks = interval(TICK);
    loop {
        ticks.tick().await;
        match messages.upgrade() {
            Some(messages) => drop(messages.try_send(Message::Tick)),
            None => return,
        }
    }
}

fn write(mut output: Output, mut waiting: mpsc::Receiver<Message>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(WAITING);
    while waiting.blocking_recv_many(&mut batch, WAITING) > 0 {
        for message in batch.drain(..) {
            match message {
                Message::News(News::Line(line)) => output.line(&line)?,
                Message::News(News::Notice(text)) => output.notice(&text)?,
                Message::Tick => output.tick(),
            }
        }
        output.flush()?;
    }
    output.finish()
}
