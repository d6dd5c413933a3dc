//! Records, lines and places in SQLite's terms.

use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::event::Line;
use crate::id::{EventId, ExecutionId, Owner};
use crate::record::Record;
use crate::state::State;
use crate::store::StoreError;
use crate::time::Timestamp;

/// The start of ranks, 2025-01-01, in µs since 1970.
const RANK_EPOCH_US: i64 = 1_735_689_600_000_000;

/// The columns of a record, in the order in which [`record`] reads them.
pub(super) const RECORD: &str = "id, owner, spec, fingerprint, created_at, rank, revision, state";

/// A record from a row of [`RECORD`].
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let id: String = row.get(0)?;
    let spec: String = row.get(2)?;
    let state: String = row.get(7)?;
    let unreadable = |column| {
        move |error| {
            rusqlite::Error::FromSqlConversionFailure(
                column,
                Type::Text,
                Box::<dyn std::error::Error + Send + Sync>::from(error),
            )
        }
    };
    Ok(Record {
        id: id
            .parse()
            .map_err(|error: crate::id::InvalidExecutionId| unreadable(0)(error.to_string()))?,
        owner: Owner::named(row.get::<_, String>(1)?),
        spec: serde_json::from_str(&spec)
            .map(Arc::new)
            .map_err(|error| unreadable(2)(error.to_string()))?,
        fingerprint: row.get(3)?,
        created_at: Timestamp::from_millis(row.get(4)?),
        rank: number(row.get(5)?),
        revision: number(row.get(6)?),
        state: serde_json::from_str(&state).map_err(|error| unreadable(7)(error.to_string()))?,
    })
}

/// One record by its id.
pub(super) fn load(
    connection: &Connection,
    id: &ExecutionId,
) -> Result<Option<Record>, StoreError> {
    let sql = format!("SELECT {RECORD} FROM executions WHERE id = ?1");
    let found = connection
        .prepare_cached(&sql)?
        .query_row([id.as_str()], record)
        .optional()?;
    Ok(found)
}

/// The rank of the next execution: the time in µs, made unique.
pub(super) fn next_rank(connection: &Connection, now: Timestamp) -> Result<i64, StoreError> {
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(rank) FROM executions")?
        .query_row([], |row| row.get(0))?;
    let by_time = now.as_millis() * 1_000 - RANK_EPOCH_US;
    Ok(by_time.max(last.unwrap_or(0) + 1))
}

/// Writes a record's new state.
pub(super) fn store_state(
    connection: &Connection,
    before: &Record,
    after: &State,
    phase: &str,
    remove_at: Option<Timestamp>,
) -> Result<Record, StoreError> {
    connection
        .prepare_cached(
            "UPDATE executions SET state = ?2, phase = ?3, remove_at = ?4, revision = revision + 1 WHERE id = ?1",
        )?
        .execute(params![
            before.id.as_str(),
            to_json(after),
            phase,
            remove_at.map(Timestamp::as_millis),
        ])?;
    Ok(Record {
        state: after.clone(),
        revision: before.revision + 1,
        ..before.clone()
    })
}

/// Adds lines to a log; refused by SQLite if an id is taken.
pub(super) fn insert_lines(
    connection: &Connection,
    id: &ExecutionId,
    lines: &[Line],
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO lines (execution, attempt, sequence, json)
         VALUES ((SELECT number FROM executions WHERE id = ?1), ?2, ?3, ?4)",
    )?;
    for line in lines {
        statement.execute(params![
            id.as_str(),
            line.id.attempt,
            signed(line.id.sequence),
            line.json.as_ref()
        ])?;
    }
    Ok(())
}

/// The id of the last line of a log.
pub(super) fn last_event(connection: &Connection, id: &ExecutionId) -> Result<EventId, StoreError> {
    let last = connection
        .prepare_cached(
            "SELECT attempt, sequence FROM lines
             WHERE execution = (SELECT number FROM executions WHERE id = ?1)
             ORDER BY attempt DESC, sequence DESC LIMIT 1",
        )?
        .query_row([id.as_str()], event_id)
        .optional()?;
    Ok(last.unwrap_or(EventId::START))
}

/// The id of the first line of a log.
pub(super) fn first_event(
    connection: &Connection,
    id: &ExecutionId,
) -> Result<Option<EventId>, StoreError> {
    let first = connection
        .prepare_cached(
            "SELECT attempt, sequence FROM lines
             WHERE execution = (SELECT number FROM executions WHERE id = ?1)
             ORDER BY attempt, sequence LIMIT 1",
        )?
        .query_row([id.as_str()], event_id)
        .optional()?;
    Ok(first)
}

/// Lines of a log after a cursor.
pub(super) fn lines_after(
    connection: &Connection,
    id: &ExecutionId,
    cursor: EventId,
    limit: usize,
) -> Result<Vec<Line>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT attempt, sequence, json FROM lines
         WHERE execution = (SELECT number FROM executions WHERE id = ?1)
           AND (attempt, sequence) > (?2, ?3)
         ORDER BY attempt, sequence LIMIT ?4",
    )?;
    let lines = statement.query_map(
        params![
            id.as_str(),
            cursor.attempt,
            signed(cursor.sequence),
            i64::try_from(limit).unwrap_or(i64::MAX)
        ],
        |row| {
            Ok(Line {
                id: event_id(row)?,
                json: row.get::<_, Vec<u8>>(2)?.into(),
            })
        },
    )?;
    Ok(lines.collect::<Result<_, _>>()?)
}

fn event_id(row: &Row<'_>) -> rusqlite::Result<EventId> {
    Ok(EventId {
        attempt: row.get(0)?,
        sequence: number(row.get(1)?),
    })
}

/// SQLite's integers are signed; ours never reach its limit but for cursors that clients make up.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or(0)
}

pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    // What is stored are structs of strings and numbers, which always serialize.
    serde_json::to_string(value).unwrap_or_default()
}
