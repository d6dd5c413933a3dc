//! What every part of cc-executor agrees on: the life of one execution.
//!
//! ```text
//!  Request ──check──▶ Spec ──submit──▶ Queued ──claim──▶ Running ──finish──▶ Ended(Outcome)
//!                                        ▲                 │ │                   ▲
//!                                        └── hand back, ───┘ └── lease lapsed, ──┘
//!                                            attempts left       none left
//! ```
//!
//! * A client sends a [`request::Request`]. It is checked once and becomes a [`spec::Spec`], which
//!   nobody checks again.
//! * An execution's [`state::State`] changes only through [`state::apply`], a pure function; a
//!   [`store::Store`] makes each change one atomic, durable step, and refuses it when somebody else
//!   was faster ([`life`] holds the loop that reads, applies and commits).
//! * What happens in an execution is a log of NDJSON lines ([`event`]). The API server writes the
//!   first one (`queued`, attempt 0). After that only the worker that holds the lease writes, under
//!   the number of its attempt; whoever takes the execution away from it closes that attempt's part
//!   of the log for ever, so a stale worker cannot add a line. Exactly one `complete` line ends it.
//! * Two engines implement the store: [`store::redis`] for many machines and [`store::embedded`] for
//!   one. `store::conformance` (feature `conformance`) says what both must do.

pub mod config;
pub mod entry;
pub mod event;
pub mod id;
pub mod life;
pub mod outcome;
pub mod output;
pub mod record;
pub mod request;
pub mod shutdown;
pub mod spec;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod time;
