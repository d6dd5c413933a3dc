//! `run`: submits a job, shows its output, exits as it does.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::StatusCode;
use shared::id::ExecutionId;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::client::Client;
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
    #[arg(long)]
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
        self.printer.rest();
        self.printer.notice(&self.hint());
        if timeout(SECOND_THOUGHTS, self.interrupts.recv())
            .await
            .is_err()
        {
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
        self.printer.notice("cancelling it; Ctrl-C leaves at once");
        tokio::select! {
            biased;
            _ = self.interrupts.recv() => return Ok(ExitCode::from(exit::INTERRUPTED)),
            cancelled = persist(self.client, async |client| client.cancel(&self.id).await) => {
                unless_over(cancelled)?;
            }
        }
        let code = self.until_interrupt().await?;
        Ok(code.unwrap_or(ExitCode::from(exit::INTERRUPTED)))
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

    fn hint(&self) -> String {
        let id = &self.id;
        if !self.follower.is_acknowledged() {
            return format!(
                "left before the server had confirmed the job; see whether it runs: cc-executor show {id}"
            );
        }
        format!(
            "detached; the job goes on. Press Ctrl-C again to cancel it\n  follow: cc-executor logs -f {id}\n  cancel: cc-executor cancel {id}"
        )
    }
}

/// An execution that has just ended by itself cannot be cancelled any more, and need not be.
fn unless_over(cancelled: Result<String, ClientError>) -> Result<(), ClientError> {
    match cancelled {
        Err(error) if error.status() == Some(StatusCode::CONFLICT) => Ok(()),
        cancelled => cancelled.map(drop),
    }
}
