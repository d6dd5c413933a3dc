//! The flags that describe a job, and the request that they make.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use shared::id::ExecutionId;
use shared::request::{Request, TtyRequest};

use crate::format;
use crate::limits::LimitFlags;

/// What to run, and how.
#[derive(Debug, Args)]
pub(crate) struct JobFlags {
    /// The program and its arguments, run directly, without a shell
    #[arg(
        value_name = "PROGRAM",
        trailing_var_arg = true,
        required_unless_present = "command"
    )]
    argv: Vec<String>,
    /// Instead of a program: a command line for the server's shell
    #[arg(
        short,
        long,
        value_name = "TEXT",
        conflicts_with = "argv",
        allow_hyphen_values = true
    )]
    command: Option<String>,
    /// Its id, 1 to 128 characters out of A-Za-z0-9._:-; if that job exists already, it is that one [default: a new one]
    #[arg(long)]
    id: Option<ExecutionId>,
    /// How long it may take once it has started: 90, 500ms, 5m, 2h [default: the server's]
    #[arg(short, long, value_name = "TIME", value_parser = format::seconds)]
    timeout: Option<f64>,
    /// How long it may be silent [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = format::seconds)]
    stall_timeout: Option<f64>,
    /// From SIGTERM to SIGKILL, if it has to be ended [default: the worker's]
    #[arg(long, value_name = "TIME", value_parser = format::seconds)]
    grace: Option<f64>,
    /// How long it has to wait before it may start
    #[arg(long, value_name = "TIME", value_parser = format::seconds)]
    delay: Option<f64>,
    /// The queue that it waits in [default: default]
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// How urgent it is, 0 (last) to 9 (first) [default: 5]
    #[arg(short, long, value_name = "0-9")]
    priority: Option<i64>,
    /// How often it may be started, if its worker is lost [default: 1]
    #[arg(long, value_name = "N")]
    max_attempts: Option<i64>,
    /// Its working directory, an absolute path on the worker [default: an empty one of its own]
    #[arg(long, value_name = "PATH")]
    cwd: Option<String>,
    /// A variable of its environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A label to find it by; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// A file of text for its standard input; - is our own standard input [default: nothing]
    #[arg(long, value_name = "FILE")]
    stdin_file: Option<PathBuf>,
    #[arg(
        long,
        value_name = "ROWSxCOLS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = terminal_size,
        help = "Run it on a terminal, as large as ours, or 24x80 where there is none; all its output is one stream then"
    )]
    tty: Option<TtyRequest>,
    #[command(flatten, next_help_heading = "Limits")]
    limits: LimitFlags,
}

impl JobFlags {
    /// The request, and the id that it goes by. The id is made here, so that a request whose answer
    /// got lost can be sent again and is still one job.
    pub(crate) fn request(self, stream: bool) -> anyhow::Result<(ExecutionId, Request)> {
        let id = self.id.unwrap_or_else(ExecutionId::generate);
        let request = Request {
            execution_id: Some(id.to_string()),
            stream: Some(stream),
            argv: self.command.is_none().then_some(self.argv),
            command: self.command,
            timeout: self.timeout,
            stall_timeout: self.stall_timeout,
            grace: self.grace,
            queue: self.queue,
            priority: self.priority,
            delay: self.delay,
            max_attempts: self.max_attempts,
            cwd: self.cwd,
            env: map(self.env),
            stdin: self.stdin_file.as_deref().map(read_text).transpose()?,
            tty: self.tty,
            on_output_limit: self.limits.on_output_limit(),
            limits: self.limits.request(),
            labels: map(self.label),
            ..Request::default()
        };
        Ok((id, request))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn map(pairs: Vec<(String, String)>) -> Option<BTreeMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.into_iter().collect())
}

/// Reads `24x80`; nothing is the size of our own terminal.
fn terminal_size(text: &str) -> Result<TtyRequest, String> {
    if text.is_empty() {
        return Ok(own_terminal_size());
    }
    let sides = text.split_once('x').map(|(rows, cols)| TtyRequest {
        rows: rows.parse().ok(),
        cols: cols.parse().ok(),
    });
    sides
        .filter(|size| size.rows.is_some() && size.cols.is_some())
        .ok_or_else(|| "write rows and columns, like 24x80".to_owned())
}

/// The size of the terminal that shows our output, or whatever the server thinks right.
fn own_terminal_size() -> TtyRequest {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    // Some terminals do not know their size.
    let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or_else(TtyRequest::default, |size| TtyRequest {
        rows: Some(size.ws_row.into()),
        cols: Some(size.ws_col.into()),
    })
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        let read = io::stdin().read_to_end(&mut bytes);
        read.context("cannot read standard input")?;
    } else {
        bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    String::from_utf8(bytes).with_context(|| {
        let path = path.display();
        format!("--stdin-file {path} is not UTF-8 text, which is all that a job can be given")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        job: JobFlags,
    }

    fn body(line: &[&str]) -> serde_json::Value {
        let line = ["run"].iter().chain(line);
        let flags = Line::try_parse_from(line).expect("parses").job;
        let (id, request) = flags.request(true).expect("is read");
        let mut body = serde_json::to_value(request).expect("serializes");
        assert_eq!(body["execution_id"], id.as_str());
        let fields = body.as_object_mut().expect("is an object");
        fields.remove("execution_id");
        fields.remove("stream");
        body
    }

    #[test]
    fn a_program_takes_everything_behind_it() {
        let expected = serde_json::json!({"argv": ["echo", "-n", "--json"]});
        assert_eq!(body(&["--", "echo", "-n", "--json"]), expected);
        assert_eq!(body(&["echo", "-n", "--json"]), expected);
    }

    #[test]
    fn flags_become_fields() {
        let line = "-c true -t 5m --stall-timeout 500ms -q slow -p 9 --delay 1 --max-attempts 3 \
            --cwd /tmp -e A=1 -e B=x=y -l team=a --grace 2 --tty=50x132";
        let expected = serde_json::json!({
            "command": "true", "timeout": 300.0, "stall_timeout": 0.5, "queue": "slow",
            "priority": 9, "delay": 1.0, "max_attempts": 3, "cwd": "/tmp",
            "env": {"A": "1", "B": "x=y"}, "labels": {"team": "a"},
            "grace": 2.0, "tty": {"rows": 50, "cols": 132},
        });
        assert_eq!(body(&line.split_whitespace().collect::<Vec<_>>()), expected);
    }

    #[test]
    fn limits_become_fields() {
        let line = "-c true --memory 64MiB --cpu-time 2m --processes 10 --file-size 1GiB --open-files 64 \
            --output-limit 1KiB --on-output-limit kill";
        let expected = serde_json::json!({
            "command": "true", "on_output_limit": "kill",
            "limits": {
                "memory_bytes": 64 << 20, "cpu_seconds": 120, "processes": 10, "file_bytes": 1 << 30,
                "open_files": 64, "output_bytes": 1024,
            },
        });
        assert_eq!(body(&line.split_whitespace().collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_terminal_needs_no_size_and_takes_no_program_for_one() {
        let body = body(&["--tty", "echo", "hello"]);
        assert_eq!(body["argv"], serde_json::json!(["echo", "hello"]));
        assert!(body["tty"].is_object());
    }

    #[test]
    fn values_that_are_not_right_are_refused() {
        for flag in [
            "--tty=80",
            "--tty=axb",
            "--tty=24x",
            "--cpu-time=0.5",
            "--cpu-time=1500ms",
            "--memory=lots",
            "--grace=soon",
            "--on-output-limit=stop",
        ] {
            assert!(
                Line::try_parse_from(["run", flag, "-c", "x"]).is_err(),
                "{flag}"
            );
        }
    }

    #[test]
    fn exactly_one_of_program_and_command_is_needed() {
        for line in [
            &["run"][..],
            &["run", "-c", "x", "--", "y"],
            &["run", "--tiemout", "1"],
        ] {
            assert!(Line::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
