//! The names of all keys. ARCHITECTURE.md documents them; change both together.
//!
//! Every key of an execution carries its shard's tag in braces, so that Redis Cluster keeps what one
//! script touches in one slot.

use crate::id::ExecutionId;

/// The start of ranks, 2025-01-01, in ms since 1970. Ranks are in µs and have 49 bits: until 2042.
pub(super) const RANK_EPOCH_MS: i64 = 1_735_689_600_000;
/// The workers that are alive.
pub(super) const WORKERS: &str = "cc:workers";
/// Before the id of an execution: the channel of notices that its log has grown.
pub(super) const WAKE_CHANNEL: &str = "cc:wake:";
/// Before the name of a worker: the channel of messages to it.
pub(super) const CONTROL_CHANNEL: &str = "cc:control:";

/// The keys of one shard.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) prefix: String,
}

impl Shard {
    pub(super) fn numbered(number: usize) -> Self {
        Self {
            prefix: format!("cc:{{{number}}}:"),
        }
    }

    fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// Hash: the record of an execution.
    pub(super) fn record(&self, id: &ExecutionId) -> String {
        self.key(&format!("x:{id}"))
    }

    /// Stream: the log of an execution.
    pub(super) fn log(&self, id: &ExecutionId) -> String {
        self.key(&format!("log:{id}"))
    }

    /// Sorted set: all executions by rank.
    pub(super) fn index(&self) -> String {
        self.key("index")
    }

    /// String: the last rank given.
    pub(super) fn clock(&self) -> String {
        self.key("clock")
    }

    /// Set: the names of queues that have anything in them.
    pub(super) fn queues(&self) -> String {
        self.key("queues")
    }

    /// Sorted set: what could start now, by urgency and rank.
    pub(super) fn ready(&self, queue: &str) -> String {
        self.key(&format!("ready:{queue}"))
    }

    /// Sorted set: what may start later, by the time it is due.
    pub(super) fn delayed(&self, queue: &str) -> String {
        self.key(&format!("delayed:{queue}"))
    }

    /// List: one mark for each submission, popped by those who wait for work in this queue.
    pub(super) fn bell(&self, queue: &str) -> String {
        self.key(&format!("bell:{queue}"))
    }

    /// List: the same for those who serve all queues.
    pub(super) fn bell_of_all(&self) -> String {
        self.key("bell")
    }

    /// String, for ten minutes: the ticket and the execution of a worker's last claim.
    pub(super) fn last_claim(&self, worker: &str) -> String {
        self.key(&format!("claim:{worker}"))
    }

    /// Sorted set: running executions by the time their lease runs out.
    pub(super) fn leases(&self) -> String {
        self.key("leases")
    }

    /// Sorted set: ended executions by the time they are to be removed.
    pub(super) fn ended(&self) -> String {
        self.key("ended")
    }
}

/// All shards.
#[derive(Clone, Debug)]
pub(super) struct Keyspace {
    pub(super) shards: Vec<Shard>,
}

impl Keyspace {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(Shard::numbered).collect(),
        }
    }

    /// The shard of an execution: FNV-1a of its id, which stays the same everywhere and for ever.
    pub(super) fn shard(&self, id: &ExecutionId) -> &Shard {
        let hash = id
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let count = self.shards.len() as u64;
        &self.shards[usize::try_from(hash % count).unwrap_or(0)]
    }
}

/// The score of a queued execution is made from its urgency, 0 for priority 9, and its rank.
pub(super) fn urgency(priority: u8) -> u8 {
    9 - priority.min(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_stays_in_its_shard_and_its_keys_carry_the_tag() {
        let keyspace = Keyspace::new(16);
        let id: ExecutionId = "a:b.c-1".parse().expect("is an id");
        let shard = keyspace.shard(&id);
        assert_eq!(shard.prefix, keyspace.shard(&id).prefix);
        assert_eq!(shard.record(&id), format!("{}x:a:b.c-1", shard.prefix));
        let tag = &shard.prefix[3..shard.prefix.len() - 1];
        assert!(tag.starts_with('{') && tag.ends_with('}'));
    }
}
