//! Records as Redis hashes, and states as the texts that scripts compare.

use redis::{FromRedisValue, RedisError, Value};

use crate::id::{ExecutionId, Owner};
use crate::record::Record;
use crate::state::State;
use crate::store::StoreError;
use crate::time::Timestamp;

/// The fields of a record, in the order in which the scripts return them.
pub(super) const FIELDS: [&str; 7] = [
    "owner",
    "spec",
    "fingerprint",
    "created_at",
    "rank",
    "revision",
    "state",
];

/// The values of [`FIELDS`] as Redis returns them.
type Fields = (String, String, String, i64, u64, u64, String);

/// A record from the values of its fields; none if the execution does not exist.
pub(super) fn decode(id: ExecutionId, fields: Value) -> Result<Option<Record>, StoreError> {
    if let Value::Array(values) = &fields
        && values.first().is_none_or(|first| *first == Value::Nil)
    {
        return Ok(None);
    }
    let (owner, spec, fingerprint, created_at, rank, revision, state) =
        Fields::from_redis_value(fields).map_err(RedisError::from)?;
    let corrupt = |what| {
        let id = id.to_string();
        move |source| StoreError::Corrupt { what, id, source }
    };
    Ok(Some(Record {
        owner: Owner::named(owner),
        spec: serde_json::from_str(&spec)
            .map(std::sync::Arc::new)
            .map_err(corrupt("spec"))?,
        fingerprint,
        created_at: Timestamp::from_millis(created_at),
        rank,
        revision,
        state: serde_json::from_str(&state).map_err(corrupt("state"))?,
        id,
    }))
}

/// Splits the first `count` values off an answer.
pub(super) fn split(answer: Value, count: usize) -> (Vec<Value>, Value) {
    match answer {
        Value::Array(mut values) if values.len() >= count => {
            let rest = values.split_off(count);
            (values, Value::Array(rest))
        }
        other => (vec![other], Value::Array(Vec::new())),
    }
}

/// An integer of an answer; 0 for anything else.
pub(super) fn integer(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::Int(number)) => *number,
        _ => 0,
    }
}

/// The word by which scripts tell states apart.
pub(super) fn phase(state: &State) -> &'static str {
    match state {
        State::Queued(_) => "queued",
        State::Running(_) => "running",
        State::Ended(_) => "ended",
    }
}

/// What is asked of a running execution; its end outranks its standing still.
pub(super) fn order(state: &State) -> &'static str {
    match state {
        State::Running(running) if running.cancel_requested => "1",
        State::Running(running) if running.paused => "2",
        State::Queued(_) | State::Running(_) | State::Ended(_) => "0",
    }
}
