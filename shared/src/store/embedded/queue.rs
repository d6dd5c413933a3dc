//! Changes to executions, each made by the writing thread within its transaction.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, RECORD, number, signed, to_json};
use crate::event::{Head, Line};
use crate::id::{EventId, ExecutionId};
use crate::record::Record;
use crate::state::{Event, Running, State, apply};
use crate::store::{
    AppendError, Claim, Claimant, CommitError, Lease, QueueInfo, Renewal, StoreError, Submission,
    Submitted,
};
use crate::time::Timestamp;

/// Free pages given back to the file system after a sweep.
const VACUUM_PAGES: u32 = 4_096;

pub(super) fn submit(
    connection: &Connection,
    submission: &Submission,
) -> Result<Submitted, StoreError> {
    if let Some(existing) = rows::load(connection, &submission.id)? {
        return Ok(Submitted::Existing(existing));
    }
    let now = Timestamp::now();
    let spec = &submission.spec;
    let record = Record {
        id: submission.id.clone(),
        owner: submission.owner.clone(),
        spec: spec.clone(),
        fingerprint: submission.fingerprint.clone(),
        created_at: now,
        rank: number(rows::next_rank(connection, now)?),
        revision: 1,
        state: State::new(),
    };
    connection
        .prepare_cached(
            "INSERT INTO executions (id, rank, owner, queue, urgency, phase, due_at, revision,
                                     fingerprint, created_at, spec, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            record.id.as_str(),
            signed(record.rank),
            record.owner.as_str(),
            spec.queue,
            9 - spec.priority.min(9),
            if spec.delay_ms > 0 {
                "delayed"
            } else {
                "queued"
            },
            now.plus_ms(spec.delay_ms).as_millis(),
            signed(record.revision),
            record.fingerprint,
            record.created_at.as_millis(),
            to_json(spec),
            to_json(&record.state),
        ])?;
    let queued = Head::now(EventId::QUEUED).queued(&record.id);
    rows::insert_lines(connection, &record.id, &[queued])?;
    Ok(Submitted::Created(record))
}

pub(super) fn claim(connection: &Connection, claimant: &Claimant) -> Result<Claim, StoreError> {
    let now = Timestamp::now();
    connection
        .prepare_cached(
            "UPDATE executions SET phase = 'queued' WHERE phase = 'delayed' AND due_at <= ?1",
        )?
        .execute([now.as_millis()])?;
    let Some(waiting) = first_ready(connection, &claimant.queues)? else {
        return Ok(Claim::Nothing {
            next_due: next_due(connection, &claimant.queues, now)?,
        });
    };
    let event = Event::Claim {
        worker: claimant.worker.clone(),
    };
    let Ok(state) = apply(&waiting.state, &event, waiting.spec.max_attempts, now) else {
        return Ok(Claim::Nothing { next_due: None });
    };
    let record = rows::store_state(connection, &waiting, &state, "running", None)?;
    extend_lease(connection, &record.id, claimant.lease)?;
    Ok(Claim::Claimed(Box::new(record)))
}

fn first_ready(connection: &Connection, queues: &[String]) -> Result<Option<Record>, StoreError> {
    let all = format!(
        "SELECT {RECORD} FROM executions WHERE phase = 'queued' ORDER BY urgency, rank LIMIT 1"
    );
    if queues.is_empty() {
        return Ok(connection
            .prepare_cached(&all)?
            .query_row([], rows::record)
            .optional()?);
    }
    let of_one = format!(
        "SELECT {RECORD} FROM executions WHERE phase = 'queued' AND queue = ?1 ORDER BY urgency, rank LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&of_one)?;
    let mut first: Option<Record> = None;
    let place = |record: &Record| (std::cmp::Reverse(record.spec.priority), record.rank);
    for queue in queues {
        let candidate = statement.query_row([queue], rows::record).optional()?;
        first = first.into_iter().chain(candidate).min_by_key(place);
    }
    Ok(first)
}

fn next_due(
    connection: &Connection,
    queues: &[String],
    now: Timestamp,
) -> Result<Option<Duration>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT queue, min(due_at) FROM executions WHERE phase = 'delayed' GROUP BY queue",
    )?;
    let by_queue = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut first: Option<i64> = None;
    for queue in by_queue {
        let (name, due): (String, i64) = queue?;
        if queues.is_empty() || queues.contains(&name) {
            first = first.into_iter().chain([due]).min();
        }
    }
    Ok(first.map(|due| Duration::from_millis(Timestamp::from_millis(due).ms_since(now).max(1))))
}

fn extend_lease(
    connection: &Connection,
    id: &ExecutionId,
    length: Duration,
) -> Result<(), StoreError> {
    let until = Timestamp::now().plus_ms(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    connection
        .prepare_cached("UPDATE executions SET lease_until = ?2 WHERE id = ?1")?
        .execute(params![id.as_str(), until.as_millis()])?;
    Ok(())
}

/// The running execution that a lease is on, if the lease holds.
fn held(connection: &Connection, lease: &Lease) -> Result<Option<Running>, StoreError> {
    let record = rows::load(connection, &lease.id)?;
    let running = record.as_ref().and_then(Record::running);
    let is_of_lease =
        |running: &&Running| running.attempt == lease.attempt && running.worker == lease.worker;
    Ok(running.filter(is_of_lease).cloned())
}

pub(super) fn append(
    connection: &Connection,
    lease: &Lease,
    lines: &[Line],
) -> Result<(), AppendError> {
    if held(connection, lease)?.is_none() {
        return Err(AppendError::Fenced);
    }
    let last = rows::last_event(connection, &lease.id)?;
    let written = lines.iter().take_while(|line| line.id <= last).count();
    Ok(rows::insert_lines(
        connection,
        &lease.id,
        &lines[written..],
    )?)
}

pub(super) fn renew(
    connection: &Connection,
    leases: &[Lease],
    length: Duration,
) -> Result<Vec<Renewal>, StoreError> {
    let mut renewals = Vec::with_capacity(leases.len());
    for lease in leases {
        let Some(running) = held(connection, lease)? else {
            renewals.push(Renewal::Lost);
            continue;
        };
        extend_lease(connection, &lease.id, length)?;
        renewals.push(match running {
            running if running.cancel_requested => Renewal::CancelRequested,
            running if running.paused => Renewal::PauseRequested,
            _ => Renewal::Renewed,
        });
    }
    Ok(renewals)
}

/// A commit that the writing thread can own.
pub(super) struct OwnedCommit {
    pub(super) before: Record,
    pub(super) after: State,
    pub(super) lines: Vec<Line>,
    pub(super) only_if_lapsed: bool,
    pub(super) retention: Duration,
}

pub(super) fn commit(connection: &Connection, commit: &OwnedCommit) -> Result<Record, CommitError> {
    let OwnedCommit {
        before,
        after,
        lines,
        only_if_lapsed,
        retention,
    } = commit;
    let current: Option<(i64, i64)> = connection
        .prepare_cached("SELECT revision, lease_until FROM executions WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([before.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(StoreError::from)?;
    let Some((revision, lease_until)) = current else {
        return Err(CommitError::Conflict);
    };
    if number(revision) != before.revision {
        return Err(CommitError::Conflict);
    }
    let now = Timestamp::now();
    if *only_if_lapsed && lease_until > now.as_millis() {
        return Err(CommitError::LeaseHeld);
    }
    if let Some(first) = lines.first()
        && first.id <= rows::last_event(connection, &before.id)?
    {
        return Err(CommitError::Conflict);
    }
    rows::insert_lines(connection, &before.id, lines)?;
    let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    let (phase, remove_at) = match after {
        State::Queued(_) => ("queued", None),
        State::Running(_) => ("running", None),
        State::Ended(_) => ("ended", Some(now.plus_ms(retention_ms))),
    };
    Ok(rows::store_state(
        connection, before, after, phase, remove_at,
    )?)
}

pub(super) fn lapsed(connection: &Connection, limit: usize) -> Result<Vec<Record>, StoreError> {
    let sql = format!(
        "SELECT {RECORD} FROM executions WHERE phase = 'running' AND lease_until <= ?1 ORDER BY lease_until LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let records = statement.query_map([Timestamp::now().as_millis(), limit], rows::record)?;
    Ok(records.collect::<Result<_, _>>()?)
}

/// Ends the leases of a process that is gone.
pub(super) fn expire_all_leases(connection: &Connection) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE executions SET lease_until = 0 WHERE phase = 'running'",
        [],
    )?;
    Ok(())
}

pub(super) fn queues(connection: &Connection) -> Result<Vec<QueueInfo>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT queue, sum(phase = 'queued'), sum(phase = 'delayed'),
                min(CASE phase WHEN 'queued' THEN created_at END)
         FROM executions WHERE phase IN ('queued', 'delayed') GROUP BY queue ORDER BY queue",
    )?;
    let now = Timestamp::now();
    let infos = statement.query_map([], |row| {
        let oldest: Option<i64> = row.get(3)?;
        Ok(QueueInfo {
            name: row.get(0)?,
            ready: number(row.get(1)?),
            delayed: number(row.get(2)?),
            oldest_age_ms: oldest.map(|oldest| now.ms_since(Timestamp::from_millis(oldest))),
        })
    })?;
    Ok(infos.collect::<Result<_, _>>()?)
}

/// Removes at most `limit` executions whose retention is over.
pub(super) fn sweep(connection: &Connection, limit: usize) -> Result<usize, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number FROM executions WHERE phase = 'ended' AND remove_at <= ?1 LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let over: Vec<i64> = statement
        .query_map([Timestamp::now().as_millis(), limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for number in &over {
        connection
            .prepare_cached("DELETE FROM lines WHERE execution = ?1")?
            .execute([number])?;
        connection
            .prepare_cached("DELETE FROM executions WHERE number = ?1")?
            .execute([number])?;
    }
    Ok(over.len())
}

/// Gives free pages back to the file system, at most `VACUUM_PAGES` at a time.
pub(super) fn give_back_space(connection: &Connection) -> Result<(), StoreError> {
    let sql = format!("PRAGMA incremental_vacuum({VACUUM_PAGES})");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut steps = statement.query([])?;
    // Each step gives back one page.
    while steps.next()?.is_some() {}
    Ok(())
}
