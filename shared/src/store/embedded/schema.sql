-- The embedded database. `phase` is delayed, queued, running or ended.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;

CREATE TABLE IF NOT EXISTS executions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    rank INTEGER NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    queue TEXT NOT NULL,
    urgency INTEGER NOT NULL,
    phase TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL DEFAULT 0,
    remove_at INTEGER,
    revision INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS executions_ready ON executions (urgency, rank) WHERE phase = 'queued';
CREATE INDEX IF NOT EXISTS executions_ready_in_queue ON executions (queue, urgency, rank) WHERE phase = 'queued';
CREATE INDEX IF NOT EXISTS executions_delayed ON executions (due_at) WHERE phase = 'delayed';
CREATE INDEX IF NOT EXISTS executions_running ON executions (lease_until) WHERE phase = 'running';
CREATE INDEX IF NOT EXISTS executions_ended ON executions (remove_at) WHERE phase = 'ended';

CREATE TABLE IF NOT EXISTS lines (
    execution INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    json BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX IF NOT EXISTS lines_in_order ON lines (execution, attempt, sequence);
