//! The flags that describe a job, and the request that they make.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use shared::id::ExecutionId;
use shared::request::{LimitsRequest, Request};

use crate::format;

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
    /// How much output is kept: 1048576, 64MiB, 1GiB [default: the server's]
    #[arg(long, value_name = "SIZE", value_parser = format::bytes)]
    output_limit: Option<i64>,
}

impl JobFlags {
    /// The request, and the id that it goes by. The id is made here, so that a request whose answer
    /// got lost can be sent again and is still one job.
    pub(crate) fn request(self, stream: bool) -> anyhow::Result<(ExecutionId, Request)> {
        let id = self.id.unwrap_or_else(ExecutionId::generate);
        let limits = self.output_limit.map(|bytes| LimitsRequest {
            output_bytes: Some(bytes),
            ..LimitsRequest::default()
        });
        let request = Request {
            execution_id: Some(id.to_string()),
            stream: Some(stream),
            argv: self.command.is_none().then_some(self.argv),
            command: self.command,
            timeout: self.timeout,
            stall_timeout: self.stall_timeout,
            queue: self.queue,
            priority: self.priority,
            delay: self.delay,
            max_attempts: self.max_attempts,
            cwd: self.cwd,
            env: map(self.env),
            stdin: self.stdin_file.as_deref().map(read_text).transpose()?,
            limits,
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
            --cwd /tmp -e A=1 -e B=x=y -l team=a --output-limit 1KiB";
        let expected = serde_json::json!({
            "command": "true", "timeout": 300.0, "stall_timeout": 0.5, "queue": "slow",
            "priority": 9, "delay": 1.0, "max_attempts": 3, "cwd": "/tmp",
            "env": {"A": "1", "B": "x=y"}, "labels": {"team": "a"},
            "limits": {"output_bytes": 1024},
        });
        assert_eq!(body(&line.split_whitespace().collect::<Vec<_>>()), expected);
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
