//! `logs`: what a job has written, and what it writes.

use std::process::ExitCode;

use shared::id::{EventId, ExecutionId};

use crate::client::Client;
use crate::output::{Form, Pipe};
use crate::printer::Printer;
use crate::spinner::Spinner;
use crate::stream::Follower;

/// Show a job's output, from its first byte or after a cursor
///
/// Standard output and standard error are the job's, byte for byte. It exits with 0 however the job
/// ended; `wait` exits as the job did.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The job
    id: ExecutionId,
    /// Go on until the job has ended
    #[arg(short, long)]
    follow: bool,
    /// Only what came after the line with this id, like 1-42 (--json shows the ids)
    #[arg(long, value_name = "CURSOR")]
    after: Option<EventId>,
    /// Only one of the two
    #[arg(long, value_name = "STREAM")]
    stream: Option<Pipe>,
    /// Print the event log instead, as NDJSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cc-executor logs -f 0198c0de-1234-7000-8000-0123456789ab
  cc-executor logs --stream stderr build-42 2>errors.txt
  cc-executor logs --json --after 1-42 build-42";

pub(crate) async fn main(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let after = arguments.after.unwrap_or(EventId::START);
    let mut follower = Follower::of(client, arguments.id, after, arguments.follow);
    let form = if arguments.json {
        Form::Json
    } else {
        Form::Bytes
    };
    let spinner = if arguments.follow && !arguments.json {
        Spinner::on_terminal()
    } else {
        Spinner::absent()
    };
    let mut printer = Printer::start(form, arguments.stream, spinner);
    printer.follow(&mut follower).await?;
    Ok(ExitCode::SUCCESS)
}
