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

/// How far a tab reaches, in what a job has written.
const TAB: &str = "    ";

/// Show a job as it stands
///
/// Of a job that did not succeed it shows the last 4 KiB that were written to standard error.
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
        ("reaped", reaped(execution)),
    ];
    let mut text = String::new();
    // Writing to a string does not fail.
    for (name, value) in rows {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:8}  {}", one_line(&value));
        }
    }
    let tail = execution.stderr_tail.as_deref().unwrap_or_default();
    for (index, line) in tail.lines().enumerate() {
        let name = if index == 0 { "stderr" } else { "" };
        let line = one_line(&line.replace('\t', TAB));
        let _ = writeln!(text, "{}", format!("{name:8}  {line}").trim_end());
    }
    text
}

fn reaped(execution: &Execution) -> Option<String> {
    match execution.reaped? {
        0 => None,
        1 => Some("1 process that it had left behind".to_owned()),
        count => Some(format!("{count} processes that it had left behind")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(more: &str) -> String {
        let json = format!(
            r#"{{"execution_id":"x","status":"failed","command":"make","queue":"default","priority":5,
                "attempt":1,"max_attempts":1,"created_at":"2026-11-21T10:00:00.000Z",
                "ended_at":"2026-11-21T10:00:01.000Z"{more}}}"#
        );
        describe(&Execution::parse(&json).expect("is read"))
    }

    #[test]
    fn what_went_to_standard_error_is_shown_line_by_line() {
        let text = shown(r#","stderr_tail":"one\r\n\n\ttwo \u001b[2J","reaped":2"#);
        let expected = "\
reaped    2 processes that it had left behind
stderr    one

              two \\u{1b}[2J
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_there_is_none_of_is_left_out() {
        for more in [
            "",
            r#","stderr_tail":"","reaped":0"#,
            r#","stderr_tail":null,"reaped":null"#,
        ] {
            let text = shown(more);
            assert!(
                !text.contains("stderr") && !text.contains("reaped"),
                "{text}"
            );
        }
    }
}
