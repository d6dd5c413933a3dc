//! The flags that say how much of everything a job may use.

use clap::{Args, ValueEnum};
use shared::request::{LimitsRequest, OnOutputLimit};

use crate::format;

/// What a job may use.
#[derive(Debug, Args)]
pub(crate) struct LimitFlags {
    /// The memory of all its processes: 1048576, 64MiB, 1GiB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = format::bytes)]
    memory: Option<i64>,
    /// The processor time of all its processes: 90, 5m, 2h [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = format::whole_seconds)]
    cpu_time: Option<i64>,
    /// How many processes it may have at a time [default: no limit]
    #[arg(long, value_name = "N")]
    processes: Option<i64>,
    /// The largest file that it may write [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = format::bytes)]
    file_size: Option<i64>,
    /// How many files each of its processes may have open [default: the worker's]
    #[arg(long, value_name = "N")]
    open_files: Option<i64>,
    /// How much output is kept: 1048576, 64MiB, 1GiB [default: the server's]
    #[arg(long, value_name = "SIZE", value_parser = format::bytes)]
    output_limit: Option<i64>,
    /// What becomes of it when there is more output than that [default: truncate]
    #[arg(long, value_name = "WHAT")]
    on_output_limit: Option<AtLimit>,
}

/// [`OnOutputLimit`] as a person writes it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AtLimit {
    /// It goes on; the rest of its output is discarded
    Truncate,
    /// It is ended
    Kill,
}

impl LimitFlags {
    /// The limits that were given, if any was.
    pub(crate) fn request(&self) -> Option<LimitsRequest> {
        let limits = LimitsRequest {
            output_bytes: self.output_limit,
            memory_bytes: self.memory,
            cpu_seconds: self.cpu_time,
            processes: self.processes,
            file_bytes: self.file_size,
            open_files: self.open_files,
        };
        (limits != LimitsRequest::default()).then_some(limits)
    }

    pub(crate) fn on_output_limit(&self) -> Option<OnOutputLimit> {
        self.on_output_limit.map(|at_limit| match at_limit {
            AtLimit::Truncate => OnOutputLimit::Truncate,
            AtLimit::Kill => OnOutputLimit::Kill,
        })
    }
}
