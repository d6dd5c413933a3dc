//! `show`: one job as it stands.

use std::fmt::Write as _;
use std::process::ExitCode;

use indicatif::HumanBytes;
use shared::id::ExecutionId;
use shared::time::Timestamp;

use crate::client::Client;
use crate::execution::Execution;
use crate::format::one_line;
use crate::output::{print, print_json};

/// Show a job as it stands
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cc-executor show --json build-42 | jq .exit_code")]
pub(crate) struct Arguments {
    /// The job
    id: ExecutionId,
    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn main(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let json = client.snapshot(&arguments.id).await?;
    if arguments.json {
        print_json(&json)?;
    } else {
        print(&describe(&Execution::parse(&json)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(execution: &Execution) -> String {
    let labels = execution.labels.iter();
    let labels: Vec<_> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let queue = format!("{}, priority {}", execution.queue, execution.priority);
    let attempt = format!("{} of {}", execution.attempt, execution.max_attempts);
    let created = format!("{} ({} ago)", execution.created_at, execution.age());
    let at = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
    let rows = [
        ("id", Some(execution.id.clone())),
        ("status", Some(execution.standing())),
        (
            "error",
            execution
                .error
                .as_ref()
                .map(|error| format!("{} ({})", error.message, error.code)),
        ),
        ("exit", execution.exit()),
        ("command", Some(execution.program())),
        ("queue", Some(queue)),
        ("labels", (!labels.is_empty()).then(|| labels.join(", "))),
        ("attempt", Some(attempt)),
        ("worker", execution.worker.clone()),
        ("created", Some(created)),
        ("started", at(execution.started_at)),
        ("ended", at(execution.ended_at)),
        ("took", execution.duration()),
        ("output", output(execution)),
        ("sha256", execution.output_sha256.clone()),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:8}  {}", one_line(&value));
        }
    }
    text
}

fn output(execution: &Execution) -> Option<String> {
    let size = HumanBytes(execution.output_bytes?);
    let cut = if execution.truncated {
        ", cut off there"
    } else {
        ""
    };
    Some(format!("{size}{cut}"))
}
