//! The distributed engine: Redis 7 or later, or Valkey.
//!
//! Each step that must be atomic is one script over the keys of one shard. Output goes round the
//! scripts: plain `XADD`s in one pipeline, which Redis refuses by their ids once the attempt is over.

mod connection;
mod keys;
mod list;
mod listener;
mod log;
mod record;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, RedisError, Script, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::connection::Connections;
use self::keys::{CONTROL_CHANNEL, Keyspace, RANK_EPOCH_MS, Shard, WAKE_CHANNEL, WORKERS, urgency};
use self::listener::Listener;
use self::record::{FIELDS, decode, integer, order, phase, split};
use super::{
    AppendError, Batch, Claim, Claimant, Commit, CommitError, Control, Filter, Lease, ListCursor,
    Page, QueueInfo, Renewal, Store, StoreError, Submission, Submitted, Watch, WorkerInfo,
};
use crate::event::{Head, Line};
use crate::id::{EventId, ExecutionId};
use crate::record::Record;
use crate::state::State;
use crate::time::Timestamp;

/// How many executions one sweep of a shard removes at a time.
const SWEEP_STEP: usize = 100;

/// Where Redis is and how to use it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `redis://`, `rediss://` or `unix://`.
    pub url: String,
    /// Into how many shards the executions are divided; the same for all who use one Redis.
    pub shards: usize,
    /// How long an execution is kept after its end.
    pub retention: Duration,
}

/// The engine.
pub struct RedisStore {
    connections: Connections,
    listener: Listener,
    keyspace: Keyspace,
    retention: Duration,
    scripts: Scripts,
}

struct Scripts {
    submit: Script,
    claim: Script,
    commit: Script,
    renew: Script,
    lapsed: Script,
    sweep: Script,
    queues: Script,
}

impl Scripts {
    fn new() -> Self {
        Self {
            submit: Script::new(include_str!("scripts/submit.lua")),
            claim: Script::new(include_str!("scripts/claim.lua")),
            commit: Script::new(include_str!("scripts/commit.lua")),
            renew: Script::new(include_str!("scripts/renew.lua")),
            lapsed: Script::new(include_str!("scripts/lapsed.lua")),
            sweep: Script::new(include_str!("scripts/sweep.lua")),
            queues: Script::new(include_str!("scripts/queues.lua")),
        }
    }
}

/// A worker's entry in the registry.
#[derive(Serialize, Deserialize)]
struct Announcement {
    expires_at: Timestamp,
    info: WorkerInfo,
}

impl RedisStore {
    /// Prepares the engine. Redis need not be there yet; it has to be within a tokio runtime.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        let connections = Connections::open(&options.url)?;
        Ok(Self {
            listener: Listener::start(connections.clone()),
            connections,
            keyspace: Keyspace::new(options.shards.max(1)),
            retention: options.retention,
            scripts: Scripts::new(),
        })
    }

    async fn claim_in(&self, shard: &Shard, claimant: &Claimant) -> Result<Claim, StoreError> {
        let worker_json = serde_json::Value::from(claimant.worker.as_str()).to_string();
        let answer: Value = self
            .scripts
            .claim
            .key(shard.queues())
            .key(shard.leases())
            .key(shard.bell_of_all())
            .key(shard.last_claim(&claimant.worker))
            .arg(&shard.prefix)
            .arg(&claimant.worker)
            .arg(worker_json)
            .arg(Timestamp::now().to_string())
            .arg(millis(claimant.lease))
            .arg(claimant.ticket)
            .arg(&claimant.queues)
            .invoke_async(&mut self.connections.commands())
            .await?;
        let (head, fields) = split(answer, 2);
        if integer(head.first()) == 0 {
            let next_due = u64::try_from(integer(head.get(1))).ok();
            return Ok(Claim::Nothing {
                next_due: next_due.map(Duration::from_millis),
            });
        }
        let id = head.get(1).map(String::from_redis_value_ref).transpose();
        let id = id.map_err(RedisError::from)?.unwrap_or_default();
        let record = match id.parse() {
            Ok(id) => decode(id, fields)?,
            Err(_) => None,
        };
        Ok(record.map_or(Claim::Nothing { next_due: None }, |record| {
            Claim::Claimed(Box::new(record))
        }))
    }

    async fn load_from(
        &self,
        shard: &Shard,
        id: ExecutionId,
    ) -> Result<Option<Record>, StoreError> {
        let fields: Value = redis::cmd("HMGET")
            .arg(shard.record(&id))
            .arg(&FIELDS)
            .query_async(&mut self.connections.commands())
            .await?;
        decode(id, fields)
    }

    async fn renew_in(
        &self,
        shard: &Shard,
        leases: &[&Lease],
        length: Duration,
    ) -> Result<Vec<Renewal>, StoreError> {
        let mut invocation = self.scripts.renew.key(shard.leases());
        invocation.arg(&shard.prefix).arg(millis(length));
        for lease in leases {
            invocation
                .arg(lease.id.as_str())
                .arg(lease.attempt)
                .arg(&lease.worker);
        }
        let answers: Vec<i64> = invocation
            .invoke_async(&mut self.connections.commands())
            .await?;
        Ok(answers.into_iter().map(renewal).collect())
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn submit(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        let Submission {
            id,
            owner,
            spec,
            fingerprint,
        } = submission;
        let shard = self.keyspace.shard(id);
        let answer: Value = self
            .scripts
            .submit
            .key(shard.record(id))
            .key(shard.log(id))
            .key(shard.index())
            .key(shard.queues())
            .key(shard.ready(&spec.queue))
            .key(shard.delayed(&spec.queue))
            .key(shard.clock())
            .key(shard.bell(&spec.queue))
            .key(shard.bell_of_all())
            .arg(id.as_str())
            .arg(owner.as_str())
            .arg(to_json(spec))
            .arg(fingerprint)
            .arg(&spec.queue)
            .arg(urgency(spec.priority))
            .arg(spec.delay_ms)
            .arg(to_json(&State::new()))
            .arg(Head::now(EventId::QUEUED).queued(id).json.as_ref())
            .arg(RANK_EPOCH_MS)
            .invoke_async(&mut self.connections.commands())
            .await?;
        let (created, fields) = split(answer, 1);
        let record = decode(id.clone(), fields)?.ok_or(StoreError::UnexpectedAnswer)?;
        Ok(match integer(created.first()) {
            0 => Submitted::Existing(record),
            _ => Submitted::Created(record),
        })
    }

    async fn claim(&self, claimant: &Claimant) -> Result<Claim, StoreError> {
        let mut first_due: Option<Duration> = None;
        let start = usize::try_from(claimant.ticket).unwrap_or(0);
        for offset in 0..self.keyspace.shards.len() {
            // Each ticket begins at another shard, so that none of them starves, and asked again it
            // begins where it did before.
            let shard = &self.keyspace.shards[(start + offset) % self.keyspace.shards.len()];
            match self.claim_in(shard, claimant).await? {
                Claim::Claimed(record) => return Ok(Claim::Claimed(record)),
                Claim::Nothing { next_due } => {
                    first_due = first_due.into_iter().chain(next_due).min();
                }
            }
        }
        Ok(Claim::Nothing {
            next_due: first_due,
        })
    }

    async fn wait_for_work(&self, claimant: &Claimant, at_most: Duration) {
        let shards = &self.keyspace.shards;
        let bells: Vec<String> = if claimant.queues.is_empty() {
            shards.iter().map(Shard::bell_of_all).collect()
        } else {
            let of_shard = |shard: &Shard| {
                claimant
                    .queues
                    .iter()
                    .map(|queue| shard.bell(queue))
                    .collect()
            };
            shards.iter().flat_map::<Vec<String>, _>(of_shard).collect()
        };
        if let Err(error) = self.connections.pop_any(&bells, at_most).await {
            tracing::debug!(%error, "failed to wait for work");
            tokio::time::sleep(at_most.min(Duration::from_millis(200))).await;
        }
    }

    async fn append(&self, lease: &Lease, lines: &[Line]) -> Result<(), AppendError> {
        let shard = self.keyspace.shard(&lease.id);
        log::append(&mut self.connections.commands(), shard, lease, lines).await
    }

    async fn renew(&self, leases: &[Lease], length: Duration) -> Result<Vec<Renewal>, StoreError> {
        let mut by_shard: BTreeMap<&str, (&Shard, Vec<(usize, &Lease)>)> = BTreeMap::new();
        for (position, lease) in leases.iter().enumerate() {
            let shard = self.keyspace.shard(&lease.id);
            let (_, those) = by_shard
                .entry(&shard.prefix)
                .or_insert_with(|| (shard, Vec::new()));
            those.push((position, lease));
        }
        let mut renewals = vec![Renewal::Lost; leases.len()];
        for (shard, those) in by_shard.into_values() {
            let (positions, of_shard): (Vec<_>, Vec<_>) = those.into_iter().unzip();
            let answers = self.renew_in(shard, &of_shard, length).await?;
            for (position, answer) in positions.into_iter().zip(answers) {
                renewals[position] = answer;
            }
        }
        Ok(renewals)
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Record, CommitError> {
        let Commit {
            before,
            after,
            lines,
            only_if_lapsed,
        } = commit;
        let (id, queue) = (&before.id, &before.spec.queue);
        let shard = self.keyspace.shard(id);
        let mut invocation = self.scripts.commit.key(shard.record(id));
        invocation
            .key(shard.log(id))
            .key(shard.leases())
            .key(shard.queues())
            .key(shard.ready(queue))
            .key(shard.delayed(queue))
            .key(shard.ended())
            .key(shard.bell(queue))
            .key(shard.bell_of_all())
            .arg(id.as_str())
            .arg(before.revision)
            .arg(i32::from(only_if_lapsed))
            .arg(format!("{WAKE_CHANNEL}{id}"))
            .arg(to_json(&after))
            .arg(phase(&after))
            .arg(after.attempt())
            .arg(order(&after))
            .arg(queue)
            .arg(millis(self.retention));
        for line in lines {
            invocation.arg(line.id.to_string()).arg(line.json.as_ref());
        }
        let answer: Value = match invocation
            .invoke_async(&mut self.connections.commands())
            .await
        {
            Ok(answer) => answer,
            Err(error) if log::is_refused_id(&error) => return Err(CommitError::Conflict),
            Err(error) => return Err(StoreError::from(error).into()),
        };
        let (done, fields) = split(answer, 1);
        match integer(done.first()) {
            0 => Err(CommitError::Conflict),
            -1 => Err(CommitError::LeaseHeld),
            _ => Ok(decode(id.clone(), fields)?.ok_or(CommitError::Conflict)?),
        }
    }

    async fn lapsed(&self, limit: usize) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        for shard in &self.keyspace.shards {
            let ids: Vec<String> = self
                .scripts
                .lapsed
                .key(shard.leases())
                .arg(limit)
                .invoke_async(&mut self.connections.commands())
                .await?;
            for id in ids.iter().filter_map(|id| id.parse().ok()) {
                records.extend(self.load_from(shard, id).await?);
            }
        }
        records.truncate(limit);
        Ok(records)
    }

    async fn load(&self, id: &ExecutionId) -> Result<Option<Record>, StoreError> {
        self.load_from(self.keyspace.shard(id), id.clone()).await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut connection = self.connections.commands();
        list::page(&mut connection, &self.keyspace.shards, filter, after, limit).await
    }

    async fn read(
        &self,
        id: &ExecutionId,
        after: EventId,
        limit: usize,
    ) -> Result<Batch, StoreError> {
        let shard = self.keyspace.shard(id);
        log::read(&mut self.connections.commands(), shard, id, after, limit).await
    }

    async fn last_event(&self, id: &ExecutionId) -> Result<EventId, StoreError> {
        let shard = self.keyspace.shard(id);
        log::last_id(&mut self.connections.commands(), shard, id).await
    }

    async fn watch(&self, id: &ExecutionId) -> Watch {
        self.listener.watch(id).await
    }

    async fn control(&self, worker: &str, control: &Control) -> Result<(), StoreError> {
        let () = redis::cmd("PUBLISH")
            .arg(format!("{CONTROL_CHANNEL}{worker}"))
            .arg(to_json(control))
            .query_async(&mut self.connections.commands())
            .await?;
        Ok(())
    }

    async fn controls(&self, worker: &str) -> mpsc::Receiver<Control> {
        self.listener.controls(worker).await
    }

    async fn announce(
        &self,
        worker: &WorkerInfo,
        expires_after: Duration,
    ) -> Result<(), StoreError> {
        let announcement = Announcement {
            expires_at: worker.seen_at.plus_ms(millis(expires_after)),
            info: worker.clone(),
        };
        let () = redis::cmd("HSET")
            .arg(WORKERS)
            .arg(&worker.name)
            .arg(to_json(&announcement))
            .query_async(&mut self.connections.commands())
            .await?;
        Ok(())
    }

    async fn withdraw(&self, worker: &str) -> Result<(), StoreError> {
        let () = redis::cmd("HDEL")
            .arg(WORKERS)
            .arg(worker)
            .query_async(&mut self.connections.commands())
            .await?;
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError> {
        let entries: BTreeMap<String, String> = redis::cmd("HGETALL")
            .arg(WORKERS)
            .query_async(&mut self.connections.commands())
            .await?;
        let now = Timestamp::now();
        let mut alive = Vec::with_capacity(entries.len());
        for (name, json) in entries {
            let announcement: Announcement =
                serde_json::from_str(&json).map_err(|source| StoreError::Corrupt {
                    what: "worker",
                    id: name.clone(),
                    source,
                })?;
            if announcement.expires_at >= now {
                alive.push(announcement.info);
            } else {
                self.withdraw(&name).await?;
            }
        }
        Ok(alive)
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, StoreError> {
        let mut by_name: BTreeMap<String, QueueInfo> = BTreeMap::new();
        for shard in &self.keyspace.shards {
            let rows: Vec<(String, u64, u64, i64)> = self
                .scripts
                .queues
                .key(shard.queues())
                .arg(&shard.prefix)
                .arg(RANK_EPOCH_MS)
                .invoke_async(&mut self.connections.commands())
                .await?;
            for (name, ready, delayed, age) in rows {
                let queue = by_name.entry(name.clone()).or_insert(QueueInfo {
                    name,
                    ready: 0,
                    delayed: 0,
                    oldest_age_ms: None,
                });
                queue.ready += ready;
                queue.delayed += delayed;
                queue.oldest_age_ms = queue.oldest_age_ms.max(u64::try_from(age).ok());
            }
        }
        Ok(by_name
            .into_values()
            .filter(|queue| queue.ready + queue.delayed > 0)
            .collect())
    }

    async fn sweep(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        for shard in &self.keyspace.shards {
            loop {
                let step: usize = self
                    .scripts
                    .sweep
                    .key(shard.ended())
                    .key(shard.index())
                    .arg(&shard.prefix)
                    .arg(SWEEP_STEP)
                    .invoke_async(&mut self.connections.commands())
                    .await?;
                removed += step;
                if step < SWEEP_STEP {
                    break;
                }
            }
        }
        Ok(removed)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let () = redis::cmd("PING")
            .query_async(&mut self.connections.commands())
            .await?;
        Ok(())
    }

    fn engine(&self) -> &'static str {
        "redis"
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn renewal(answer: i64) -> Renewal {
    match answer {
        1 => Renewal::Renewed,
        2 => Renewal::CancelRequested,
        3 => Renewal::PauseRequested,
        _ => Renewal::Lost,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn to_json(value: &impl Serialize) -> String {
    // What is stored are structs of strings and numbers, which always serialize.
    serde_json::to_string(value).unwrap_or_default()
}
