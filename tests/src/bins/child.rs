//! A scripted process for jobs to run, where a shell would be unclear: `child VERB ARGUMENTS…`.
//!
//! Whatever it does, it ends after [`LONGEST_LIFE`], so that a test that fails leaves nothing behind.

use std::io::{self, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

const LONGEST_LIFE: Duration = Duration::from_mins(2);

fn main() -> io::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["lines", count, interval_ms] => lines(number(count)?, number(interval_ms)?)?,
        ["sleep"] => std::thread::sleep(LONGEST_LIFE),
        ["ignore-term"] => ignore_term()?,
        ["write-bytes", file] => write_bytes(file)?,
        ["hold-stdout"] => hold_stdout()?,
        ["wait-for", file] => return Ok(wait_for(Path::new(file))),
        _ => {
            eprintln!("child: no such verb: {words:?}");
            return Ok(ExitCode::from(64));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

/// Prints `line 1` to `line COUNT`, each on its own, with a pause after each.
fn lines(count: u64, interval_ms: u64) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for number in 1..=count {
        stdout.write_all(format!("line {number}\n").as_bytes())?;
        stdout.flush()?;
        if interval_ms > 0 {
            std::thread::sleep(Duration::from_millis(interval_ms));
        }
    }
    Ok(())
}

/// Says that it is ready, and from then on survives SIGTERM.
fn ignore_term() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    println!("ready");
    std::thread::sleep(LONGEST_LIFE);
    Ok(())
}

/// Prints a file as it is.
fn write_bytes(file: &str) -> io::Result<()> {
    let mut file = std::fs::File::open(file)?;
    io::copy(&mut file, &mut io::stdout().lock())?;
    Ok(())
}

/// Exits at once, but leaves a descendant behind that holds the output open.
fn hold_stdout() -> io::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is a job, not the worker that runs it"
    )]
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let descendant = command.arg("sleep").stdin(Stdio::null()).spawn()?;
    println!("{}", descendant.id());
    Ok(())
}

/// Waits until a file exists: the gate that a test opens.
fn wait_for(file: &Path) -> ExitCode {
    let deadline = Instant::now() + LONGEST_LIFE;
    while !file.exists() {
        if Instant::now() > deadline {
            return ExitCode::FAILURE;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    ExitCode::SUCCESS
}
