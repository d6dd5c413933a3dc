//! `submit`: queues a job and goes on.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use crate::client::Client;
use crate::job::JobFlags;
use crate::output::{print, print_json, say};
use crate::patience::persist;

/// Queue a job and print its id
#[derive(Debug, clap::Args)]
#[command(override_usage = USAGE, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    job: JobFlags,
    /// Print the execution as JSON
    // Not under the heading that the flags of the job end with.
    #[arg(long, help_heading = None::<&str>)]
    json: bool,
}

const USAGE: &str = "\
cc-executor submit [OPTIONS] [--] <PROGRAM> [ARGUMENTS]...
       cc-executor submit [OPTIONS] --command <TEXT>";

const AFTER_HELP: &str = "\
What is acknowledged is stored durably: it survives a crash of the server.

Examples:
  id=$(cc-executor submit -- ./nightly.sh)
  cc-executor submit --id build-42 --queue slow --delay 10m -c 'make release'";

pub(crate) async fn main(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (id, request) = arguments.job.request(false)?;
    let submitted = persist(client, async |client| {
        let response = client.submit(&request).await?;
        client.text(response).await
    });
    let json = submitted.await?;
    if arguments.json {
        print_json(&json)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("{id}\n"))?;
    if std::io::stdout().is_terminal() {
        say(&format!("queued; follow it: cc-executor logs -f {id}"));
    }
    Ok(ExitCode::SUCCESS)
}
