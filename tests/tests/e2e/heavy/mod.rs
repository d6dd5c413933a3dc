//! Tests that keep both cores busy; nextest runs them one at a time (`.config/nextest.toml`).

mod back_pressure;
mod exact_output;
mod many_jobs;
mod many_readers;
mod random_cancels;
mod random_cuts;
mod rolling_restart;
