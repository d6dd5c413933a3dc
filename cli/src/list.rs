//! `list`: what jobs there are.

use std::process::ExitCode;

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Deserialize;

use crate::client::Client;
use crate::execution::Execution;
use crate::format::shorten;
use crate::output::{print, print_json, say};

/// The page size that needs the fewest requests.
const LARGEST_PAGE: usize = 500;
/// Room for the command where there is no terminal, and the least on a narrow one.
const COMMAND_WIDTH: usize = 120;
const LEAST_COMMAND_WIDTH: usize = 20;
/// Between columns.
const PADDING: u16 = 2;

/// List jobs, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[arg(
        long,
        help = "Only those that are queued, running, succeeded, failed, timed_out, stalled, cancelled, lost or rejected"
    )]
    status: Option<String>,
    /// Only those of this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only those with this label; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// How many, 1 to 500 [default: 50]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on where another list has ended
    #[arg(long)]
    cursor: Option<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    all: bool,
    /// Print the server's JSON; with --all one document a page
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cc-executor list --status running
  cc-executor list --all --json | jq -r '.executions[].execution_id'";

#[derive(Debug, Deserialize)]
struct Page {
    executions: Vec<Execution>,
    next_cursor: Option<String>,
}

pub(crate) async fn main(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut executions = Vec::new();
    let mut cursor = arguments.cursor.clone();
    loop {
        let json = client.list(&query(&arguments, cursor)).await?;
        let page: Page =
            serde_json::from_str(&json).context("the server's answer is not a list")?;
        if arguments.json {
            print_json(&json)?;
        } else {
            executions.extend(page.executions);
        }
        cursor = page.next_cursor;
        if !arguments.all || cursor.is_none() {
            break;
        }
    }
    if !arguments.json {
        show(&arguments, &executions)?;
        if let Some(cursor) = cursor {
            say(&format!(
                "there are more: --cursor {cursor} shows the next ones, --all shows all"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn query(arguments: &Arguments, cursor: Option<String>) -> Vec<(&'static str, String)> {
    let limit = if arguments.all {
        Some(LARGEST_PAGE)
    } else {
        arguments.limit
    };
    let single = [
        ("status", arguments.status.clone()),
        ("queue", arguments.queue.clone()),
        ("limit", limit.map(|limit| limit.to_string())),
        ("cursor", cursor),
    ];
    let labels = arguments.label.iter().map(|label| ("label", label.clone()));
    let single = single
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    single.chain(labels).collect()
}

fn show(arguments: &Arguments, executions: &[Execution]) -> anyhow::Result<()> {
    if executions.is_empty() {
        let is_filtered =
            arguments.status.is_some() || arguments.queue.is_some() || !arguments.label.is_empty();
        say(if is_filtered {
            "no job is like that"
        } else {
            "there are no jobs yet; try: cc-executor run -- echo hello"
        });
        return Ok(());
    }
    print(&table(executions))
}

fn table(executions: &[Execution]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["ID", "STATUS", "AGE", "TOOK", "EXIT", "QUEUE", "COMMAND"]);
    let rows: Vec<_> = executions.iter().map(row).collect();
    let width = table.width().map_or(COMMAND_WIDTH, |width| {
        usize::from(width)
            .saturating_sub(width_of(&rows))
            .max(LEAST_COMMAND_WIDTH)
    });
    for (row, execution) in rows.into_iter().zip(executions) {
        let command = shorten(&execution.program(), width);
        table.add_row(row.into_iter().chain([command]));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, PADDING));
    }
    format!("{}\n", table.trim_fmt())
}

fn row(execution: &Execution) -> [String; 6] {
    [
        execution.id.clone(),
        execution.standing(),
        execution.age(),
        execution.duration().unwrap_or_default(),
        execution.exit().unwrap_or_default(),
        execution.queue.clone(),
    ]
}

/// How much room the columns in front of the command take, their padding and its own included.
fn width_of(rows: &[[String; 6]]) -> usize {
    const HEADER: [usize; 6] = [2, 6, 3, 4, 4, 5];
    let widths = (0..6).map(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default().max(HEADER[column]) + usize::from(PADDING)
    });
    widths.sum::<usize>() + usize::from(PADDING)
}
