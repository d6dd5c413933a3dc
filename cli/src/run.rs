//! `run`: submits a job, shows its output, exits as it does.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::StatusCode;
use shared::id::ExecutionId;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::client::Client;
use crate::control::Action;
use crate::exit;
use crate::failure::ClientError;
use crate::job::JobFlags;
use crate::output::Form;
use crate::patience::persist;
use crate::printer::Printer;
use crate::spinner::Spinner;
use crate::stream::Follower;

/// How long after the first Ctrl-C a second one cancels.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);

/// Run a job: its output here, its exit code ours
///
/// Standard output and standard error are the job's, byte for byte. If the connection or the server goes
/// away, it goes on where it was once they are back. Ctrl-C leaves the job, which goes on; a second
/// Ctrl-C within 2 s cancels it.
#[derive(Debug, clap::Args)]
#[command(override_usage = USAGE, after_help = AFTER_HELP, after_long_help = LONG_AFTER_HELP.as_str())]
pub(crate) struct Arguments {
    #[command(flatten)]
    job: JobFlags,
    /// Print the job's event log instead, as NDJSON
    // Not under the heading that the flags of the job end with.
    #[arg(long, help_heading = None::<&str>)]
    json: bool,
}

const USAGE: &str = "\
cc-executor run [OPTIONS] [--] <PROGRAM> [ARGUMENTS]...
       cc-executor run [OPTIONS] --command <TEXT>";

const AFTER_HELP: &str = "\
Examples:
  cc-executor run -- echo hello
  cc-executor run -c 'make test 2>&1 | tail'
  cc-executor run --timeout 5m --env MODE=ci --label team=a -- ./build.sh --fast
  cat input.txt | cc-executor run --stdin-file - -- sort";

static LONG_AFTER_HELP: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{AFTER_HELP}\n\n{}", exit::HELP));

pub(crate) async fn main(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (id, job) = arguments.job.request(true)?;
    let (form, spinner) = if arguments.json {
        (Form::Json, Spinner::absent())
    } else {
        (Form::Bytes, Spinner::on_terminal())
    };
    let mut watched = Watched {
        client,
        interrupts: signal(SignalKind::interrupt())?,
        follower: Follower::submit(client, id.clone(), job),
        printer: Printer::start(form, None, spinner),
        id,
    };
    watched.until_end().await
}

/// What a person who has pressed Ctrl-C wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolve {
    Leave,
    Stay,
}

/// A job, and a person who may press Ctrl-C.
struct Watched<'a> {
    client: &'a Client,
    id: ExecutionId,
    interrupts: Signal,
    follower: Follower<'a>,
    printer: Printer,
}

impl Watched<'_> {
    async fn until_end(&mut self) -> anyhow::Result<ExitCode> {
        if let Some(code) = self.until_interrupt().await? {
            return Ok(code);
        }
        if self.detach().await == Resolve::Leave || self.cancel().await? == Resolve::Leave {
            return Ok(self.leave().await);
        }
        match self.until_interrupt().await? {
            Some(code) => Ok(code),
            None => Ok(self.leave().await),
        }
    }

    /// The first Ctrl-C: says where to go on, and whether there was a second one.
    async fn detach(&mut self) -> Resolve {
        self.printer.rest();
        let id = &self.id;
        if !self.follower.is_acknowledged() {
            self.printer.notice(&format!(
                "left before the server had confirmed the job; see whether it runs: cc-executor show {id}"
            ));
            return Resolve::Leave;
        }
        self.printer.notice(&format!(
            "detached; the job goes on. Press Ctrl-C again to cancel it\n  follow: cc-executor logs -f {id}\n  cancel: cc-executor cancel {id}"
        ));
        match timeout(SECOND_THOUGHTS, self.interrupts.recv()).await {
            Ok(_) => Resolve::Stay,
            Err(_) => Resolve::Leave,
        }
    }

    /// The second Ctrl-C: has the job ended, unless there is a third one.
    async fn cancel(&mut self) -> anyhow::Result<Resolve> {
        self.printer.notice("cancelling it; Ctrl-C leaves at once");
        tokio::select! {
            biased;
            _ = self.interrupts.recv() => Ok(Resolve::Leave),
            cancelled = persist(self.client, async |client| client.control(&self.id, Action::Cancel).await) => {
                unless_over(cancelled)?;
                Ok(Resolve::Stay)
            }
        }
    }

    async fn leave(&mut self) -> ExitCode {
        self.printer.leave().await;
        ExitCode::from(exit::INTERRUPTED)
    }

    /// Follows until the job has ended, or somebody presses Ctrl-C.
    async fn until_interrupt(&mut self) -> anyhow::Result<Option<ExitCode>> {
        let end = tokio::select! {
            biased;
            _ = self.interrupts.recv() => return Ok(None),
            end = self.printer.follow(&mut self.follower) => end?,
        };
        let code = end.map_or(exit::NO_JOB_CODE, |end| end.code());
        Ok(Some(ExitCode::from(code)))
    }
}

/// An execution that has just ended by itself cannot be cancelled any more, and need not be.
fn unless_over(cancelled: Result<String, ClientError>) -> Result<(), ClientError> {
    match cancelled {
        Err(error) if error.status() == Some(StatusCode::CONFLICT) => Ok(()),
        cancelled => cancelled.map(drop),
    }
}
