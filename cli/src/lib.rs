//! `cc-executor`: what a person types. `serve` is the API server and a worker in one process; every
//! other command is an HTTP client of an API server.
//!
//! A command that follows an execution (`stream`) survives broken connections and restarts of the
//! server: it resumes behind the last line it has seen. What it sees is written by a thread of its own
//! (`printer`), so that a pager that does not read never keeps Ctrl-C from being noticed.

mod client;
pub mod config;
mod control;
mod execution;
mod exit;
mod failure;
mod format;
mod job;
mod limits;
mod lines;
mod list;
mod logs;
mod output;
mod patience;
mod printer;
mod run;
mod serve;
mod show;
mod spinner;
mod stream;
mod submit;
mod wait;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use shared::config::{Source, with_flags};

use crate::client::Client;
use crate::config::Config;

const NAME: &str = "cc-executor";

/// Run command-line jobs dependably.
#[derive(Debug, Parser)]
#[command(name = NAME, version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
A job outlives everybody who watches it: leave `run` or lose the connection, and it goes on.

Examples:
  cc-executor serve                              start a server on this machine
  cc-executor run -- echo hello                  run a program and see its output
  cc-executor run -c 'make test 2>&1 | tail'     run a shell command
  id=$(cc-executor submit -- ./nightly.sh)       queue it and go on
  cc-executor logs -f $id                        watch it, from its first byte
  cc-executor wait $id                           exit as it does

Exit codes: 2 for bad usage or settings, 1 for other failures. `run` and `wait` exit as their
job does; their --help says how. What is printed for people is printed for machines with --json.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Run(run::Arguments),
    Submit(submit::Arguments),
    Logs(logs::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Cancel(control::Cancel),
    Pause(control::Pause),
    Resume(control::Resume),
    Wait(wait::Arguments),
}

/// The program: flags, settings, the command.
pub fn main() -> ExitCode {
    // `serve` works as a worker too.
    if let Some(code) = worker::guard::take_over() {
        return code;
    }
    // Refused only if there is a provider already, as in a test that calls this twice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let Some((_, of_command)) = matches.subcommand() else {
        // clap has refused that already.
        return ExitCode::from(exit::BAD_USAGE);
    };
    match cli.command {
        Command::Serve(_) => serve::main(of_command),
        command => match client(&matches, of_command) {
            Ok(client) => ask(&client, command),
            Err(code) => code,
        },
    }
}

/// The whole command line: what is derived, and the flags of the tables of settings.
fn command() -> clap::Command {
    let of_client = |command: clap::Command| {
        with_flags(command.next_help_heading("Connection"), &[config::SETTINGS])
    };
    of_client(Cli::command()).mut_subcommands(|command| {
        if command.get_name() == "serve" {
            serve::with_settings(command)
        } else {
            of_client(command)
        }
    })
}

/// A client, by the flags before and after the command and the environment.
fn client(before: &ArgMatches, after: &ArgMatches) -> Result<Client, ExitCode> {
    let settings = [config::SETTINGS];
    let source = Source::environment()
        .with_flags_of(before, &settings)
        .with_flags_of(after, &settings);
    let config = Config::read(&source).map_err(|error| {
        eprint!("{NAME}: {error}");
        ExitCode::from(exit::BAD_USAGE)
    })?;
    Client::new(&config).map_err(|error| exit::report(&error.into(), exit::FAILURE))
}

/// Carries a command out.
fn ask(client: &Client, command: Command) -> ExitCode {
    let failure = match command {
        Command::Run(_) | Command::Wait(_) => exit::NO_JOB_CODE,
        _ => exit::FAILURE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(client, command)),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start")),
    };
    result.unwrap_or_else(|error| exit::report(&error, failure))
}

async fn dispatch(client: &Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(_) => Ok(ExitCode::from(exit::BAD_USAGE)),
        Command::Run(arguments) => run::main(client, arguments).await,
        Command::Submit(arguments) => submit::main(client, arguments).await,
        Command::Logs(arguments) => logs::main(client, arguments).await,
        Command::List(arguments) => list::main(client, arguments).await,
        Command::Show(arguments) => show::main(client, arguments).await,
        Command::Cancel(arguments) => arguments.main(client).await,
        Command::Pause(arguments) => arguments.main(client).await,
        Command::Resume(arguments) => arguments.main(client).await,
        Command::Wait(arguments) => wait::main(client, arguments).await,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_holds_together() {
        super::command().debug_assert();
    }
}
