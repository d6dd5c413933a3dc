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
        // The last word only marks the process, for a test to find it.
        ["sleep", _mark] => std::thread::sleep(LONGEST_LIFE),
        ["ignore-term", _mark] => ignore_term()?,
        ["write-once", count] => write_once(number(count)?)?,
        ["zombies", count, _mark] => zombies(number(count)?)?,
        ["nest", depth, mark] => nest(number(depth)?, mark)?,
        ["forks", _mark] => forks()?,
        ["await-term", _mark] => await_term()?,
        ["memory", mebibytes] => memory(number(mebibytes)?),
        ["reserve", mebibytes] => reserve(number(mebibytes)?),
        ["flood", seconds] => flood(Duration::from_secs(number(seconds)?))?,
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

/// Writes as much as fits into the pipe, and exits with the rest pending: what Node does on `process.exit()`.
fn write_once(count: u64) -> io::Result<()> {
    let bytes = vec![b'x'; usize::try_from(count).map_err(io::Error::other)?];
    let stdout = io::stdout();
    let flags = nix::fcntl::fcntl(&stdout, nix::fcntl::F_GETFL)?;
    let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&stdout, nix::fcntl::F_SETFL(flags))?;
    let mut written = 0;
    while written < bytes.len() {
        match nix::unistd::write(&stdout, &bytes[written..]) {
            Ok(more) => written += more,
            Err(_) => break,
        }
    }
    Ok(())
}

/// Has children that have ended, and does not care.
fn zombies(count: u64) -> io::Result<()> {
    for _ in 0..count {
        start(&["lines", "0", "0"])?;
    }
    println!("ready");
    std::thread::sleep(LONGEST_LIFE);
    Ok(())
}

/// A process that waits for a process that waits for a process…
fn nest(depth: u64, mark: &str) -> io::Result<()> {
    if depth == 0 {
        println!("ready");
        std::thread::sleep(LONGEST_LIFE);
    } else {
        start(&["nest", &(depth - 1).to_string(), mark])?.wait()?;
    }
    Ok(())
}

/// Starts children that start children, for as long as it lives: each leaves the session of the one before.
fn forks() -> io::Result<()> {
    let mark = std::env::args().next_back().unwrap_or_default();
    let _ = nix::unistd::setsid();
    loop {
        // When there can be no more of them, those that are there go on trying.
        let _ = start(&["forks", &mark]);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn start(words: &[&str]) -> io::Result<std::process::Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is a job, not the worker that runs it"
    )]
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(words).spawn()
}

/// Says when SIGTERM came, in microseconds since 1970.
fn await_term() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    println!("ready");
    signals.wait()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    println!("{}", now.map_err(io::Error::other)?.as_micros());
    Ok(())
}

/// Fills memory and keeps it.
fn memory(mebibytes: u64) {
    let mut all = Vec::new();
    for _ in 0..mebibytes {
        all.push(vec![1_u8; 1 << 20]);
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(LONGEST_LIFE);
    drop(all);
}

/// Asks for memory and does not use it.
fn reserve(mebibytes: u64) {
    let bytes = usize::try_from(mebibytes << 20).unwrap_or(usize::MAX);
    let mut all: Vec<u8> = Vec::with_capacity(bytes);
    all.push(1);
    println!("{}", all.capacity());
}

/// Writes as fast as it can.
fn flood(length: Duration) -> io::Result<()> {
    let line = [b'x'; 8 * 1024];
    let begun = Instant::now();
    let mut stdout = io::stdout().lock();
    while begun.elapsed() < length {
        stdout.write_all(&line)?;
    }
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
