//! The benchmark: what cc-executor does, beside what the machine can do at best, in one run.
//!
//! The program is also the servers it measures: started under their names, it is them. So one release
//! build is all that is needed.

mod limits;
mod load;
mod report;
mod stack;
mod statistics;
mod target;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::limits::Limits;
use crate::load::{Load, Measured};
use crate::stack::{Engine, Stack};

/// Each measurement is made this often, the engines taking turns; medians are reported.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    // The worker starts this program, which is the worker, as its guardian.
    if let Some(code) = worker::guard::take_over() {
        return code;
    }
    if std::env::args()
        .nth(1)
        .is_some_and(|verb| verb == target::VERB)
    {
        return target::await_term().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let name = std::env::args().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("cc-executor-api") => api::main(),
        Some("cc-executor-worker") => worker::main(),
        Some("cc-executor") => cli::main(),
        _ => match bench() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn bench() -> Result<()> {
    // A failure means that there is a provider already, which is what it is for.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut limits = Vec::new();
        let mut measured: Vec<(Engine, Vec<Measured>)> =
            Engine::ALL.map(|engine| (engine, Vec::new())).into();
        for round in 1..=ROUNDS {
            eprintln!("round {round} of {ROUNDS}: limits");
            limits.push(Limits::measure().await?);
            for (engine, results) in &mut measured {
                eprintln!("round {round} of {ROUNDS}: {}", engine.name());
                results.push(measure(*engine).await?);
            }
        }
        print!("{}", report::render(&limits, &measured));
        Ok(())
    })
}

async fn measure(engine: Engine) -> Result<Measured> {
    let stack = Stack::start(engine).await?;
    let load = Load::on(&stack.url)?;
    let latency = load.first_byte().await?;
    let rate = load.rate().await?;
    let throughput = load.throughput().await?;
    let cancel = load.cancel().await?;
    Ok(Measured {
        latency,
        rate,
        throughput,
        cancel,
        peak_memory: stack.peak_memory(),
        redis_peak: stack.redis_peak().await?,
    })
}
