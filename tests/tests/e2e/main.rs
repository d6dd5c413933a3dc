//! What the whole promises, asked of real processes over HTTP: one file a behaviour.

use std::path::Path;

use harness::site::{Programs, Site};
use serde_json::{Value, json};

mod access;
mod api_crash;
mod as_pid_1;
mod bad_input;
mod cancel;
mod claude_tree;
mod cli;
mod confinement;
mod disconnect;
mod endings;
mod existing_client;
mod heavy;
mod limits;
mod listing;
mod outage;
mod queues;
mod reading;
mod redis_crash;
mod repeated_submit;
mod retention;
mod serve_crash;
mod shutdown;
mod surroundings;
mod tasks;
mod terminal;
mod whole_tree;
mod worker_crash;

const PROGRAMS: Programs = Programs {
    api: env!("CARGO_BIN_EXE_test-api"),
    worker: env!("CARGO_BIN_EXE_test-worker"),
    cli: env!("CARGO_BIN_EXE_test-cli"),
};
/// The scripted process, for jobs to run.
const CHILD: &str = env!("CARGO_BIN_EXE_child");

fn on_redis() -> Site {
    Site::on_redis(PROGRAMS)
}

fn on_disk() -> Site {
    Site::on_disk(PROGRAMS)
}

/// Opens the gate that `child wait-for` waits at.
fn open(gate: &Path) {
    std::fs::write(gate, "").expect("the gate opens");
}

/// A job that waits at a gate.
fn waiting_at(gate: &Path) -> Value {
    json!({"argv": [CHILD, "wait-for", gate]})
}

/// Makes a test of each engine out of a function that takes a site.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::on_redis()).await;
            })+
        }
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::on_disk()).await;
            })+
        }
    };
}
use on_both_engines;
