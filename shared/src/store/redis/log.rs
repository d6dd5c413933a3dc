//! The log of an execution as a Redis stream: one entry a line, with the line's id.

use redis::aio::ConnectionManager;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use super::keys::{Shard, WAKE_CHANNEL};
use crate::event::Line;
use crate::id::{EventId, ExecutionId};
use crate::store::{AppendError, Batch, Lease, StoreError};

/// How often lines are sent again after their ids were refused, before that counts as a failure.
const MAX_ROUNDS: usize = 3;

/// Appends lines; an append whose answer was lost may be repeated.
pub(super) async fn append(
    connection: &mut ConnectionManager,
    shard: &Shard,
    lease: &Lease,
    lines: &[Line],
) -> Result<(), AppendError> {
    let mut left = lines;
    for _ in 0..MAX_ROUNDS {
        match send(connection, shard, &lease.id, left).await? {
            Sent::All => return Ok(()),
            Sent::NoLog => return Err(AppendError::Fenced),
            Sent::Refused => {
                let last = holder_position(connection, shard, lease).await?;
                left = after(left, last);
                if left.is_empty() {
                    return Ok(());
                }
            }
        }
    }
    Err(AppendError::Fenced)
}

enum Sent {
    All,
    Refused,
    NoLog,
}

async fn send(
    connection: &mut ConnectionManager,
    shard: &Shard,
    id: &ExecutionId,
    lines: &[Line],
) -> Result<Sent, StoreError> {
    let log = shard.log(id);
    let mut pipeline = redis::Pipeline::with_capacity(lines.len() + 1);
    // All or none, unless an id is refused: a server that refuses one line because it is short of
    // memory or disk, and takes the next, would leave a hole.
    pipeline.atomic().ignore_errors();
    for line in lines {
        pipeline
            .cmd("XADD")
            .arg(&log)
            .arg("NOMKSTREAM")
            .arg(line.id.to_string())
            .arg("l")
            .arg(line.json.as_ref());
    }
    pipeline
        .cmd("PUBLISH")
        .arg(format!("{WAKE_CHANNEL}{id}"))
        .arg("");
    let answers: Vec<RedisResult<Value>> = pipeline.query_async(connection).await?;
    for answer in answers {
        match answer {
            Ok(Value::Nil) => return Ok(Sent::NoLog),
            Ok(_) => {}
            Err(error) if is_refused_id(&error) => return Ok(Sent::Refused),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Sent::All)
}

/// Whether Redis has refused a line because its id is not above the last one.
pub(super) fn is_refused_id(error: &RedisError) -> bool {
    error.to_string().contains("equal or smaller")
}

/// The last line of the log, provided that the lease holds.
async fn holder_position(
    connection: &mut ConnectionManager,
    shard: &Shard,
    lease: &Lease,
) -> Result<EventId, AppendError> {
    let (status, attempt, worker): (Option<String>, Option<u32>, Option<String>) =
        redis::cmd("HMGET")
            .arg(shard.record(&lease.id))
            .arg(&["status", "attempt", "worker"])
            .query_async(connection)
            .await
            .map_err(StoreError::from)?;
    let is_held = status.as_deref() == Some("running")
        && attempt == Some(lease.attempt)
        && worker.as_ref() == Some(&lease.worker);
    if !is_held {
        return Err(AppendError::Fenced);
    }
    Ok(last_id(connection, shard, &lease.id).await?)
}

fn after(lines: &[Line], last: EventId) -> &[Line] {
    let written = lines.iter().take_while(|line| line.id <= last).count();
    &lines[written..]
}

/// The id of the last line.
pub(super) async fn last_id(
    connection: &mut ConnectionManager,
    shard: &Shard,
    id: &ExecutionId,
) -> Result<EventId, StoreError> {
    let entries: Vec<(String, Value)> = redis::cmd("XREVRANGE")
        .arg(shard.log(id))
        .arg(&["+", "-", "COUNT", "1"])
        .query_async(connection)
        .await?;
    let last = entries.first().and_then(|(id, _)| id.parse().ok());
    Ok(last.unwrap_or(EventId::START))
}

/// Lines after a cursor.
pub(super) async fn read(
    connection: &mut ConnectionManager,
    shard: &Shard,
    id: &ExecutionId,
    cursor: EventId,
    limit: usize,
) -> Result<Batch, StoreError> {
    let answer: Value = redis::cmd("XRANGE")
        .arg(shard.log(id))
        .arg(format!("({cursor}"))
        .arg("+")
        .arg("COUNT")
        .arg(limit)
        .query_async(connection)
        .await?;
    let entries: Vec<(String, (Value, bytes::Bytes))> =
        FromRedisValue::from_redis_value(answer).map_err(RedisError::from)?;
    let lines: Vec<Line> = entries
        .into_iter()
        .filter_map(|(id, (_, json))| {
            Some(Line {
                id: id.parse().ok()?,
                json,
            })
        })
        .collect();
    let gap_before = match lines.first() {
        Some(first) if may_follow_gap(cursor, first.id) => {
            gap_before(connection, shard, id, cursor, first.id).await?
        }
        _ => None,
    };
    Ok(Batch { lines, gap_before })
}

/// Whether lines may be missing between a cursor and the line that was found after it.
fn may_follow_gap(cursor: EventId, first: EventId) -> bool {
    let begins = first == EventId::QUEUED;
    // Nothing but `queued` precedes the first attempt.
    let starts = cursor == EventId::QUEUED && first == EventId::FIRST_OF_ATTEMPT_1;
    first != cursor.next() && !begins && !starts
}

async fn gap_before(
    connection: &mut ConnectionManager,
    shard: &Shard,
    id: &ExecutionId,
    cursor: EventId,
    first: EventId,
) -> Result<Option<EventId>, StoreError> {
    let answer: Value = redis::cmd("XINFO")
        .arg("STREAM")
        .arg(shard.log(id))
        .query_async(connection)
        .await?;
    let info: std::collections::HashMap<String, Value> =
        FromRedisValue::from_redis_value(answer).map_err(RedisError::from)?;
    let last_removed = info
        .get("max-deleted-entry-id")
        .and_then(|value| String::from_redis_value_ref(value).ok())
        .and_then(|id| id.parse::<EventId>().ok());
    Ok(last_removed
        .filter(|removed| cursor < *removed)
        .map(|_| first))
}
