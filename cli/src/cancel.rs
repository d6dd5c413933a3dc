//! `cancel`: asks for the end of jobs.

use std::process::ExitCode;

use shared::id::ExecutionId;

use crate::client::Client;
use crate::execution::Execution;
use crate::exit;
use crate::output::{print, print_json, say};
use crate::patience::persist;

/// Cancel jobs
///
/// A queued job ends at once. A running one is sent SIGTERM, and SIGKILL after a grace, with everything
/// that it has started; `wait` waits for that.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<ExecutionId>,
    /// Print each execution as JSON, one a line
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cc-executor cancel build-42 && cc-executor wait build-42
  cc-executor list --all --json --label team=a --status running | jq -r '.executions[].execution_id' |
    xargs cc-executor cancel";

pub(crate) async fn main(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for id in &arguments.ids {
        match persist(client, async |client| client.cancel(id).await).await {
            Ok(json) if arguments.json => print_json(&json)?,
            Ok(json) => {
                let standing = Execution::parse(&json)?.standing();
                print(&format!("{id}  {standing}\n"))?;
            }
            // The other jobs are to be cancelled all the same.
            Err(error) if error.status().is_some() => {
                say(&format!("{id}: {error}"));
                code = ExitCode::from(exit::FAILURE);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(code)
}
