//! Everything a store knows of one execution, but for its log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, Owner};
use crate::spec::Spec;
use crate::state::{Running, State};
use crate::time::Timestamp;

/// One execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: ExecutionId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What is to be run.
    pub spec: Arc<Spec>,
    /// The fingerprint of the request that it came from.
    pub fingerprint: String,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// Its place in the order of submission, unique within its shard; larger is later.
    pub rank: u64,
    /// Goes up with each change of `state`.
    pub revision: u64,
    /// Where it stands.
    pub state: State,
}

impl Record {
    /// What is known of it as a running execution, if it is one.
    pub fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::Queued(_) | State::Ended(_) => None,
        }
    }
}
