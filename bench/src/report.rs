//! The table.

use std::fmt::Write as _;

use comfy_table::{Table, presets};

use crate::limits::Limits;
use crate::load::Measured;
use crate::stack::Engine;
use crate::statistics::{median, ms};

/// Everything that has been measured, as Markdown.
pub(crate) fn render(limits: &[Limits], measured: &[(Engine, Vec<Measured>)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let engines = measured.iter().map(|(engine, _)| engine.name().to_owned());
    let mut header = vec!["what".to_owned(), "limit in the same run".to_owned()];
    header.extend(engines);
    table.set_header(header);
    for row in ROWS {
        let limit = median(limits.iter().map(row.limit));
        let mut cells = vec![
            row.name.to_owned(),
            format!("{} {}", number(limit), row.limit_name),
        ];
        for (_, results) in measured {
            let value = median(results.iter().map(row.value));
            cells.push(format!("{} ({:.2} ×)", number(value), value / limit));
        }
        table.add_row(cells);
    }
    let mut memory = vec!["peak memory, MiB".to_owned(), String::new()];
    memory.extend(measured.iter().map(|(_, results)| peaks(results)));
    table.add_row(memory);
    let round_trip = limits.iter().map(|limits| limits.redis_round_trip);
    let (p50, p99): (Vec<f64>, Vec<f64>) = round_trip
        .map(|trip| (ms(trip.p50) * 1e3, ms(trip.p99) * 1e3))
        .unzip();
    format!(
        "{} · {} · medians of {} rounds\n\n{table}\n\nRedis round trip (PING, Unix socket): p50 {:.0} µs, p99 {:.0} µs.\n",
        jiff::Zoned::now().date(),
        machine(),
        limits.len(),
        median(p50),
        median(p99),
    )
}

struct Row {
    name: &'static str,
    limit_name: &'static str,
    limit: fn(&Limits) -> f64,
    value: fn(&Measured) -> f64,
}

const ROWS: [Row; 6] = [
    Row {
        name: "submit → first output byte, `echo hi`, p50 ms",
        limit_name: "(bare spawn → first byte)",
        limit: |limits| ms(limits.spawn_to_first_byte.p50),
        value: |measured| ms(measured.latency.p50),
    },
    Row {
        name: "the same, p99 ms",
        limit_name: "(the same)",
        limit: |limits| ms(limits.spawn_to_first_byte.p99),
        value: |measured| ms(measured.latency.p99),
    },
    Row {
        name: "executions/s, 2,000 × `true`, 16 in flight, 4 slots",
        limit_name: "(bare spawn and wait, 4 at a time)",
        limit: |limits| limits.spawns_per_second,
        value: |measured| measured.rate,
    },
    Row {
        name: "one job's output to one client, 256 MiB of text, MB/s",
        limit_name: "(bare pipe read)",
        limit: |limits| limits.pipe_mb_per_second,
        value: |measured| measured.throughput,
    },
    Row {
        name: "request to cancel → SIGTERM, p50 ms",
        limit_name: "(bare kill)",
        limit: |limits| ms(limits.kill.p50),
        value: |measured| ms(measured.cancel.p50),
    },
    Row {
        name: "the same, p99 ms",
        limit_name: "(the same)",
        limit: |limits| ms(limits.kill.p99),
        value: |measured| ms(measured.cancel.p99),
    },
];

fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

fn peaks(results: &[Measured]) -> String {
    let Some(last) = results.last() else {
        return String::new();
    };
    let mut text = String::new();
    for (position, (name, _)) in last.peak_memory.iter().enumerate() {
        let of_round =
            |measured: &Measured| measured.peak_memory.get(position).map(|(_, peak)| *peak);
        let peak = median(results.iter().filter_map(of_round));
        let separator = if position > 0 { ", " } else { "" };
        let _ = write!(text, "{separator}{name} {peak:.0}");
    }
    if last.redis_peak.is_some() {
        let peak = median(results.iter().filter_map(|measured| measured.redis_peak));
        let _ = write!(text, ", redis {peak:.0}");
    }
    text
}

/// The machine in a few words.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} × {model}, Linux {}", kernel.trim())
}
