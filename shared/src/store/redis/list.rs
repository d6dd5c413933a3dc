//! Lists of executions: the index of each shard is walked from the newest on, and the walks merged.

use redis::Value;
use redis::aio::ConnectionManager;

use super::keys::Shard;
use super::record::{FIELDS, decode};
use crate::id::ExecutionId;
use crate::record::Record;
use crate::store::{Filter, ListCursor, Page, StoreError};

const WALK_STEP: usize = 200;
/// One page looks at no more executions than this in each shard; the next page goes on from there.
const WALK_LIMIT: usize = 10_000;

/// What one walk has found.
struct Walk {
    records: Vec<Record>,
    /// Where it was broken off, unless it came to the end or found enough.
    stopped_at: Option<ListCursor>,
}

/// One page.
pub(super) async fn page(
    connection: &mut ConnectionManager,
    shards: &[Shard],
    filter: &Filter,
    after: Option<&ListCursor>,
    limit: usize,
) -> Result<Page, StoreError> {
    let mut records = Vec::new();
    let mut floor: Option<ListCursor> = None;
    for shard in shards {
        let walk = walk(connection, shard, filter, after, limit).await?;
        records.extend(walk.records);
        floor = floor.max(walk.stopped_at);
    }
    records.sort_by_key(|record| std::cmp::Reverse(ListCursor::of(record)));
    if let Some(floor) = &floor {
        // Below it one walk has seen more than another.
        records.retain(|record| ListCursor::of(record) >= *floor);
    }
    let has_more = records.len() > limit;
    records.truncate(limit);
    let next = if has_more {
        records.last().map(ListCursor::of)
    } else {
        floor
    };
    Ok(Page { records, next })
}

async fn walk(
    connection: &mut ConnectionManager,
    shard: &Shard,
    filter: &Filter,
    after: Option<&ListCursor>,
    limit: usize,
) -> Result<Walk, StoreError> {
    let mut found = Walk {
        records: Vec::new(),
        stopped_at: None,
    };
    let mut highest = after.map_or("+inf".to_owned(), |cursor| cursor.rank.to_string());
    for _ in 0..WALK_LIMIT / WALK_STEP {
        let step: Vec<(ExecutionId, u64)> = step(connection, shard, &highest).await?;
        let Some((last_id, last_rank)) = step.last().cloned() else {
            return Ok(Walk {
                stopped_at: None,
                ..found
            });
        };
        for record in load_all(connection, shard, &step).await? {
            let is_after = after.is_none_or(|cursor| ListCursor::of(&record) < *cursor);
            if is_after && filter.matches(&record) {
                found.records.push(record);
            }
        }
        // One more than asked for shows that there is a next page.
        if found.records.len() > limit {
            return Ok(Walk {
                stopped_at: None,
                ..found
            });
        }
        highest = format!("({last_rank}");
        found.stopped_at = Some(ListCursor {
            rank: last_rank,
            id: last_id,
        });
    }
    Ok(found)
}

async fn step(
    connection: &mut ConnectionManager,
    shard: &Shard,
    highest: &str,
) -> Result<Vec<(ExecutionId, u64)>, StoreError> {
    let entries: Vec<(String, f64)> = redis::cmd("ZREVRANGEBYSCORE")
        .arg(shard.index())
        .arg(highest)
        .arg(&["-inf", "WITHSCORES", "LIMIT", "0"])
        .arg(WALK_STEP)
        .query_async(connection)
        .await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks have 49 bits, which a double holds exactly"
    )]
    let rank = |score: f64| score as u64;
    let parsed = entries
        .into_iter()
        .filter_map(|(id, score)| Some((id.parse().ok()?, rank(score))));
    Ok(parsed.collect())
}

async fn load_all(
    connection: &mut ConnectionManager,
    shard: &Shard,
    ids: &[(ExecutionId, u64)],
) -> Result<Vec<Record>, StoreError> {
    let mut pipeline = redis::Pipeline::with_capacity(ids.len());
    for (id, _) in ids {
        pipeline.cmd("HMGET").arg(shard.record(id)).arg(&FIELDS);
    }
    let answers: Vec<Value> = pipeline.query_async(connection).await?;
    let mut records = Vec::with_capacity(ids.len());
    for ((id, _), fields) in ids.iter().zip(answers) {
        records.extend(decode(id.clone(), fields)?);
    }
    Ok(records)
}
