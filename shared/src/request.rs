//! What a client sends to `POST /execute`, before anything about it has been checked.
//!
//! Parsing refuses what is not of the right shape and names the field; whether the values make
//! sense is the business of [`crate::spec`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// A job. Exactly one of `command`, `argv` and `tasks` is required; unknown fields are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object that describes a job")]
#[schema(example = json!({"command": "echo hello", "timeout": 120}))]
pub struct Request {
    /// Run by the worker's shell (`/bin/sh -c`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Program and arguments, executed directly, without a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Run one after another by one worker, in one execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<TaskRequest>>,
    /// With `tasks`: leave out the rest once one has failed. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_on_failure: Option<bool>,
    /// With `tasks`: seconds that each of them may take. Default: only `timeout` applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_per_task: Option<f64>,
    /// The caller's own id, 1 to 128 characters out of `A-Za-z0-9._:-`. Default: a UUIDv7. It is
    /// the idempotency key: the same id with the same job attaches to the execution there is, with
    /// another job it is refused (409).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
    /// True: the reply is the NDJSON event stream. False: 202 with the execution as JSON. Default:
    /// true, unless only `application/json` is accepted or `Prefer: respond-async` is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// With `"stream": false`: seconds (at most 300) to hold the reply until the execution has ended;
    /// if it has, the reply is 200 with the outcome and the collected output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<f64>,
    /// Seconds that the whole execution may take once it has started. Default: 3600
    /// (`CC_DEFAULT_TIMEOUT`); at most 86400 (`CC_MAX_TIMEOUT`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Seconds without any output after which the execution ends as `stalled`. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_timeout: Option<f64>,
    /// Seconds between SIGTERM and SIGKILL when the execution is ended, 0 to 300. Default: the
    /// worker's `CC_GRACE`, 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<f64>,
    /// Which queue it waits in, 1 to 64 characters out of `A-Za-z0-9._-`. Default: `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// 0 (last) to 9 (first). Default: 5. Equal priorities run in the order of their submission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Seconds before it may start. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<f64>,
    /// How often it may be started, 1 to 100. Default: 1, because commands are not idempotent: when
    /// its worker dies the execution ends as `lost`, unless there are attempts left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i64>,
    /// The working directory, an absolute path on the worker. Default: an empty directory of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment variables, added to the worker's short list of allowed ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Text for standard input. Default: `/dev/null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Ceilings for what the job may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsRequest>,
    /// What happens at `limits.output_bytes`. Default: `truncate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_output_limit: Option<OnOutputLimit>,
    /// Run it on a terminal of this size. Its output is then one stream, `stdout`, as a terminal
    /// shows it: with `\r\n`, colours, and the echo of its input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtyRequest>,
    /// The caller's own labels: at most 32, echoed back, and filters in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// One of several tasks: exactly one of `command` and `argv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with `command` or `argv`")]
#[schema(example = json!({"command": "make test"}))]
pub struct TaskRequest {
    /// Run by the worker's shell (`/bin/sh -c`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Program and arguments, executed directly, without a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
}

/// What happens to a job that prints more than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOutputLimit {
    /// It goes on; the rest of its output is read and discarded.
    #[default]
    Truncate,
    /// It is ended, with the error code `output_limit`.
    Kill,
}

/// The size of a terminal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with `rows` and `cols`")]
#[schema(example = json!({"rows": 24, "cols": 80}))]
pub struct TtyRequest {
    /// Lines, 1 to 1000. Default: 24.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Characters in a line, 1 to 1000. Default: 80.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<i64>,
}

/// Ceilings for what a job may use. Reaching one ends the job as `failed`, with an error code that names
/// it; `open_files` does not, and `output_bytes` only with `"on_output_limit": "kill"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object of limits")]
pub struct LimitsRequest {
    /// Bytes of output that are kept; what comes after them is read and discarded, and `complete`
    /// says `truncated`, unless `on_output_limit` says otherwise. Default: 64 MiB
    /// (`CC_OUTPUT_BYTES`); at most 1 GiB (`CC_MAX_OUTPUT_BYTES`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<i64>,
    /// Bytes of memory that its processes together may hold, at least 1 MiB; what is mapped from
    /// files does not count. Measured ten times a second, and `memory_limit` ends it; a single
    /// process that asks for 256 MiB more than this is refused by the kernel. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// Seconds of processor time that its processes together may use; `cpu_limit` ends it. Default: no
    /// limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<i64>,
    /// How many processes it may have at a time; `process_limit` ends it. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<i64>,
    /// Bytes of the largest file that a process may write; SIGXFSZ, and `file_size_limit`, end it.
    /// Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<i64>,
    /// How many descriptors a process may have open, at least 16. Default: the worker's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<i64>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// The field's name, with its path where it is nested; absent if no single field is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub detail: String,
    /// The stable name of this kind of problem.
    pub code: &'static str,
}

impl Problem {
    /// A value that is not acceptable in `field`.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            detail: detail.into(),
            code: "invalid_field",
        }
    }
}

impl Request {
    /// Reads a request body, or says which field has the wrong shape.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let request = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| shape_problem(&error))?;
        deserializer.end().map_err(|error| not_json(&error))?;
        Ok(request)
    }

    /// What makes two requests the same job: a hash of all that was asked for, but for the id and
    /// for how the caller wants the reply.
    pub fn fingerprint(&self) -> String {
        let job = Self {
            execution_id: None,
            stream: None,
            wait: None,
            ..self.clone()
        };
        // A struct of strings, numbers and maps with string keys always serializes.
        let canonical = serde_json::to_vec(&job).unwrap_or_default();
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(canonical) {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem {
        field: None,
        detail: format!("the body is not valid JSON: {error}"),
        code: "invalid_json",
    }
}

fn shape_problem(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let cause = error.inner();
    if !cause.is_data() {
        return not_json(cause);
    }
    let message = cause.to_string();
    let detail = message
        .split_once(" at line ")
        .map_or(message.as_str(), |(before, _)| before);
    let path = error.path().to_string();
    if let Some(name) = quoted_after(detail, "unknown field `") {
        return Problem {
            field: Some(unknown_field_path(&path, name)),
            detail: detail.to_owned(),
            code: "unknown_field",
        };
    }
    Problem {
        field: (path != ".").then_some(path),
        detail: detail.to_owned(),
        code: "invalid_field",
    }
}

fn quoted_after<'a>(detail: &'a str, opening: &str) -> Option<&'a str> {
    detail
        .strip_prefix(opening)
        .and_then(|rest| rest.split_once('`'))
        .map(|(name, _)| name)
}

/// The path of an error in a key may or may not end with that key already.
fn unknown_field_path(path: &str, name: &str) -> String {
    if path == "." || path == name {
        name.to_owned()
    } else if path.ends_with(&format!(".{name}")) {
        path.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn problem(body: &str) -> Problem {
        Request::parse(body.as_bytes()).expect_err("is refused")
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        for (body, field) in [
            (r#"{"command":"x","prompt":"hi"}"#, "prompt"),
            (r#"{"command":"x","limits":{"memory":1}}"#, "limits.memory"),
            (r#"{"command":"x","tty":{"columns":80}}"#, "tty.columns"),
            (r#"{"tasks":[{"command":"x"},{"cmd":"y"}]}"#, "tasks[1].cmd"),
        ] {
            let problem = problem(body);
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                ("unknown_field", Some(field))
            );
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_by_name() {
        for (body, field) in [
            (r#"{"command":7}"#, "command"),
            (r#"{"argv":["a",1]}"#, "argv[1]"),
            (r#"{"command":"x","timeout":"soon"}"#, "timeout"),
            (r#"{"command":"x","env":{"A":1}}"#, "env.A"),
            (r#"{"command":"x","tty":true}"#, "tty"),
            (r#"{"command":"x","tty":{"rows":24.5}}"#, "tty.rows"),
            (
                r#"{"command":"x","limits":{"cpu_seconds":1.5}}"#,
                "limits.cpu_seconds",
            ),
            (
                r#"{"command":"x","on_output_limit":"stop"}"#,
                "on_output_limit",
            ),
            (r#"{"tasks":["a prompt"]}"#, "tasks[0]"),
        ] {
            let problem = problem(body);
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                ("invalid_field", Some(field))
            );
        }
    }

    #[test]
    fn what_is_not_a_json_object_is_refused() {
        for body in [
            "",
            "nonsense",
            r#"{"command":"x""#,
            r#"{"command":"x"} 1"#,
            r#"{"timeout":NaN}"#,
        ] {
            assert_eq!(problem(body).code, "invalid_json", "{body}");
        }
        assert_eq!(problem("[]").code, "invalid_field");
    }

    fn fingerprint(body: &str) -> String {
        let request = Request::parse(body.as_bytes());
        request.expect("is a request").fingerprint()
    }

    #[test]
    fn the_fingerprint_leaves_out_the_id_and_the_form_of_the_reply() {
        let plain = fingerprint(r#"{"command":"x","labels":{"a":"1","b":"2"}}"#);
        assert_eq!(
            plain,
            fingerprint(
                r#"{"stream":false,"execution_id":"i","wait":1,"labels":{"b":"2","a":"1"},"command":"x"}"#
            )
        );
        assert_ne!(plain, fingerprint(r#"{"command":"x","labels":{"a":"1"}}"#));
    }

    #[test]
    fn whatever_changes_how_a_job_runs_makes_it_another_job() {
        let fields = [
            "",
            r#","grace":1"#,
            r#","on_output_limit":"kill""#,
            r#","tty":{}"#,
            r#","tty":{"rows":24}"#,
            r#","limits":{"memory_bytes":9}"#,
            r#","limits":{"cpu_seconds":9}"#,
            r#","limits":{"processes":9}"#,
            r#","limits":{"file_bytes":9}"#,
            r#","limits":{"open_files":9}"#,
        ];
        let jobs: BTreeSet<String> = fields
            .iter()
            .map(|field| fingerprint(&format!(r#"{{"command":"x"{field}}}"#)))
            .collect();
        assert_eq!(jobs.len(), fields.len());
    }
}
