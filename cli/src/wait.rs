//! `wait`: until jobs have ended.

use std::process::ExitCode;
use std::time::Duration;

use shared::id::{EventId, ExecutionId};
use tokio::time::{Instant, timeout_at};

use crate::client::Client;
use crate::execution::Execution;
use crate::exit::{self, End};
use crate::format;
use crate::output::{print, print_json, say};
use crate::patience::persist;
use crate::stream::{Follower, News};

/// Wait until jobs have ended, and exit as they did
///
/// With several jobs, the exit code is that of the first one, in the order given, that did not exit with 0.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, after_long_help = LONG_AFTER_HELP.as_str())]
pub(crate) struct Arguments {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<ExecutionId>,
    /// How long to wait for all of them: 90, 500ms, 5m, 2h; then it exits with 124, and they go on [default: for ever]
    #[arg(short, long, value_name = "TIME", value_parser = format::seconds)]
    timeout: Option<f64>,
    /// Print each execution as JSON, one a line, as it ends
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cc-executor wait build-42 && echo good
  cc-executor wait --timeout 10m $a $b $c";

static LONG_AFTER_HELP: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{AFTER_HELP}\n\n{}", exit::HELP));

pub(crate) async fn main(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let limit = arguments.timeout.map(Duration::from_secs_f64);
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut code = 0;
    for id in &arguments.ids {
        let waiting = until_end(client, id);
        let ended = match deadline {
            None => Some(waiting.await),
            Some(deadline) => timeout_at(deadline, waiting).await.ok(),
        };
        let Some(ended) = ended else {
            say(&format!("{id} has not ended yet; it goes on"));
            return Ok(ExitCode::from(exit::TIMED_OUT));
        };
        let (json, end) = ended?;
        if arguments.json {
            print_json(&json)?;
        } else {
            print(&describe(&Execution::parse(&json)?))?;
        }
        if code == 0 {
            code = end.code();
        }
    }
    Ok(ExitCode::from(code))
}

/// The snapshot of an execution once it has ended.
async fn until_end(client: &Client, id: &ExecutionId) -> anyhow::Result<(String, End)> {
    loop {
        let json = persist(client, async |client| client.snapshot(id).await).await?;
        if let Some(end) = End::parse(json.as_bytes()) {
            return Ok((json, end));
        }
        let mut follower = Follower::of(client, id.clone(), EventId::START, true);
        while let Some(news) = follower.next().await? {
            if let News::Notice(text) = news {
                say(&text);
            }
        }
    }
}

fn describe(execution: &Execution) -> String {
    let exit = execution.exit();
    let exit = exit.map_or_else(String::new, |exit| format!("  exit {exit}"));
    let took = execution.duration();
    let took = took.map_or_else(String::new, |took| format!("  {took}"));
    format!("{}  {}{exit}{took}\n", execution.id, execution.status)
}
