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
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = ExecutionId> {
        "[A-Za-z0-9._:-]{1,128}|[a-z:]{1,3}".prop_map(|text| text.parse().expect("is an id"))
    }

    /// What Redis Cluster looks at: the text between the first braces.
    fn tag(key: &str) -> Option<&str> {
        let (_, rest) = key.split_once('{')?;
        rest.split_once('}').map(|(tag, _)| tag)
    }

    fn keys_of_all(shard: &Shard) -> [String; 6] {
        [
            shard.index(),
            shard.clock(),
            shard.queues(),
            shard.bell_of_all(),
            shard.leases(),
            shard.ended(),
        ]
    }

    #[test]
    fn an_execution_stays_in_its_shard_for_ever() {
        // Written down, because what is stored somewhere is found there only by this.
        let keyspace = Keyspace::new(16);
        let record = |id: &str| {
            let id = id.parse().expect("is an id");
            keyspace.shard(&id).record(&id)
        };
        assert_eq!(record("a:b.c-1"), "cc:{9}:x:a:b.c-1");
        assert_eq!(record("x"), "cc:{7}:x:x");
    }

    proptest! {
        #[test]
        fn the_keys_of_an_execution_carry_the_tag_of_its_shard(
            id in id(), queue in "[A-Za-z0-9._-]{1,64}", worker in "\\PC{0,30}", shards in 1..64_usize,
        ) {
            let keyspace = Keyspace::new(shards);
            let shard = keyspace.shard(&id);
            let of_queue = [shard.ready(&queue), shard.delayed(&queue), shard.bell(&queue)];
            let of_id = [shard.record(&id), shard.log(&id), shard.last_claim(&worker)];
            let expected = tag(&shard.prefix);
            prop_assert!(expected.is_some_and(|tag| !tag.is_empty()));
            for key in of_id.iter().chain(&of_queue).chain(&keys_of_all(shard)) {
                prop_assert_eq!(tag(key), expected, "{}", key);
            }
        }

        #[test]
        fn no_two_things_share_a_key(
            one in id(), other in id(), shards in 1..8_usize,
            queues in proptest::collection::hash_set("[A-Za-z0-9._-]{1,64}|[a-z]{1,2}", 1..3),
            workers in proptest::collection::hash_set("\\PC{0,30}", 1..3),
        ) {
            prop_assume!(one != other);
            let keyspace = Keyspace::new(shards);
            let mut keys = Vec::new();
            for id in [&one, &other] {
                let shard = keyspace.shard(id);
                keys.extend([shard.record(id), shard.log(id)]);
            }
            for shard in &keyspace.shards {
                keys.extend(keys_of_all(shard));
                for queue in &queues {
                    keys.extend([shard.ready(queue), shard.delayed(queue), shard.bell(queue)]);
                }
                keys.extend(workers.iter().map(|worker| shard.last_claim(worker)));
            }
            keys.push(WORKERS.to_owned());
            let distinct: HashSet<&String> = keys.iter().collect();
            prop_assert_eq!(distinct.len(), keys.len());
        }
    }
}
