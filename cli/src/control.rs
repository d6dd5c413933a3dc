//! `cancel`, `pause` and `resume`: what jobs can be asked to do.

use std::process::ExitCode;

use serde::Serialize;
use shared::id::ExecutionId;

use crate::client::Client;
use crate::execution::Execution;
use crate::exit;
use crate::output::{print, print_json, say};
use crate::patience::persist;

/// What a job can be asked to do. To ask twice is as good as to ask once.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// To end.
    Cancel,
    /// To stand still.
    Pause,
    /// To go on.
    Resume,
}

/// Cancel jobs
///
/// A queued job ends at once. A running one is sent SIGTERM, and SIGKILL after a grace, with everything
/// that it has started; `wait` waits for that.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cc-executor cancel build-42 && cc-executor wait build-42
  cc-executor list --all --json --label team=a --status running |
    jq -r '.executions[].execution_id' | xargs cc-executor cancel")]
pub(crate) struct Cancel {
    #[command(flatten)]
    jobs: Jobs,
}

/// Pause running jobs
///
/// A job stands still with everything that it has started, and its timeouts do too. It keeps its
/// memory and its worker's slot, until `resume` or `cancel`. A queued job cannot be paused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cc-executor pause build-42
  cc-executor list --all --json --queue slow --status running |
    jq -r '.executions[].execution_id' | xargs cc-executor pause")]
pub(crate) struct Pause {
    #[command(flatten)]
    jobs: Jobs,
}

/// Let paused jobs go on
///
/// A job goes on where it was paused. To resume one that is not paused changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cc-executor resume build-42 && cc-executor logs -f build-42
  cc-executor list --all --json |
    jq -r '.executions[] | select(.paused).execution_id' | xargs cc-executor resume")]
pub(crate) struct Resume {
    #[command(flatten)]
    jobs: Jobs,
}

#[derive(Debug, clap::Args)]
struct Jobs {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<ExecutionId>,
    /// Print each execution as JSON, one a line
    #[arg(long)]
    json: bool,
}

impl Cancel {
    pub(crate) async fn main(self, client: &Client) -> anyhow::Result<ExitCode> {
        self.jobs.ask(client, Action::Cancel).await
    }
}

impl Pause {
    pub(crate) async fn main(self, client: &Client) -> anyhow::Result<ExitCode> {
        self.jobs.ask(client, Action::Pause).await
    }
}

impl Resume {
    pub(crate) async fn main(self, client: &Client) -> anyhow::Result<ExitCode> {
        self.jobs.ask(client, Action::Resume).await
    }
}

impl Jobs {
    async fn ask(self, client: &Client, action: Action) -> anyhow::Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        for id in &self.ids {
            match persist(client, async |client| client.control(id, action).await).await {
                Ok(json) if self.json => print_json(&json)?,
                Ok(json) => {
                    let standing = Execution::parse(&json)?.standing();
                    print(&format!("{id}  {standing}\n"))?;
                }
                // The other jobs are to be asked all the same.
                Err(error) if error.status().is_some() => {
                    say(&format!("{id}: {error}"));
                    code = ExitCode::from(exit::FAILURE);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(code)
    }
}
