"""The tables of the SQLite store, as the steps that lead to them.

A database knows its version (``PRAGMA user_version``): how many of these steps it has seen. A step that
was ever released is never changed; a new one is added at the end.
"""

_FIRST = """
CREATE TABLE errors (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    target TEXT NOT NULL,
    problem TEXT NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    state TEXT NOT NULL,
    open INTEGER NOT NULL,
    signals INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    relapses INTEGER NOT NULL,
    recovered_at REAL,
    recovered_by TEXT,
    closed_at REAL,
    escalated_at REAL,
    escalation_sent INTEGER NOT NULL,
    held_reason TEXT,
    held_since REAL,
    not_before REAL,
    check_at REAL,
    approved_by TEXT,
    approved_until REAL,
    rejected_by TEXT,
    alerted_at REAL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    version INTEGER NOT NULL
);
CREATE UNIQUE INDEX errors_one_open ON errors (target, problem) WHERE open = 1;
CREATE INDEX errors_latest ON errors (target, problem, open, seq);
CREATE INDEX errors_seen ON errors (last_seen, id);
CREATE INDEX errors_open ON errors (last_seen, id) WHERE open = 1;
CREATE INDEX errors_due ON errors (check_at) WHERE check_at IS NOT NULL;

CREATE TABLE members (
    error_id TEXT NOT NULL REFERENCES errors (id) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    status TEXT NOT NULL,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    times INTEGER NOT NULL,
    labels TEXT NOT NULL,
    PRIMARY KEY (error_id, fingerprint)
) WITHOUT ROWID;

CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    last_at REAL NOT NULL,
    error_id TEXT REFERENCES errors (id) ON DELETE CASCADE,
    target TEXT NOT NULL,
    cause TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT,
    detail TEXT NOT NULL,
    playbook TEXT,
    run_id TEXT,
    until REAL,
    times INTEGER NOT NULL
);
CREATE INDEX decisions_cause ON decisions (error_id, cause, target, id);
CREATE INDEX decisions_given ON decisions (last_at, id);

CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    error_id TEXT REFERENCES errors (id) ON DELETE CASCADE,
    target TEXT NOT NULL,
    playbook TEXT NOT NULL,
    "trigger" TEXT NOT NULL,
    requested_by TEXT,
    started_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT,
    rung INTEGER NOT NULL,
    rungs_tried INTEGER NOT NULL,
    owner TEXT NOT NULL,
    boot TEXT NOT NULL,
    token TEXT NOT NULL,
    lease_until REAL NOT NULL,
    detail TEXT NOT NULL,
    evidence TEXT NOT NULL,
    timings TEXT NOT NULL,
    plan TEXT NOT NULL
);
CREATE INDEX runs_error ON runs (error_id, started_at);
CREATE INDEX runs_started ON runs (started_at);
CREATE INDEX runs_ended ON runs (ended_at);
CREATE INDEX runs_running ON runs (started_at, seq) WHERE outcome IS NULL;
CREATE INDEX runs_target ON runs (target, started_at);

CREATE TABLE steps (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    rung INTEGER NOT NULL,
    action TEXT NOT NULL,
    args TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    on_crash TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
) WITHOUT ROWID;

CREATE TABLE leases (
    target TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    lease_until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX leases_run ON leases (run_id);

CREATE TABLE pauses (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    reason TEXT NOT NULL,
    owner TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL
);

CREATE TABLE health_minutes (
    minute INTEGER NOT NULL,
    target TEXT NOT NULL,
    looks INTEGER NOT NULL,
    up INTEGER NOT NULL,
    PRIMARY KEY (minute, target)
) WITHOUT ROWID;

CREATE TABLE daily_summaries (
    day TEXT NOT NULL,
    target TEXT NOT NULL,
    problem TEXT NOT NULL,
    severity TEXT NOT NULL,
    count INTEGER NOT NULL,
    recovered INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    recovery_seconds REAL NOT NULL,
    PRIMARY KEY (day, target, problem, severity)
) WITHOUT ROWID;

-- One row that is written to find out whether writing works.
CREATE TABLE pulse (beats INTEGER NOT NULL);
INSERT INTO pulse VALUES (0);
"""

_EVENTS = """
ALTER TABLE errors ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE errors ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';
UPDATE errors SET fingerprint = coalesce(
    (SELECT fingerprint FROM members WHERE error_id = errors.id ORDER BY last_seen DESC, fingerprint LIMIT 1),
    ''
);
DROP INDEX errors_one_open;
DROP INDEX errors_latest;
CREATE UNIQUE INDEX errors_one_open ON errors (target, problem, subject) WHERE open = 1;
CREATE INDEX errors_latest ON errors (target, problem, subject, open, seq);
CREATE INDEX errors_subjects ON errors (target) WHERE open = 1 AND subject <> '';

ALTER TABLE members ADD COLUMN detail TEXT NOT NULL DEFAULT '{}';
CREATE INDEX members_events ON members (fingerprint) WHERE fingerprint GLOB 'v[0-9]*.*';
CREATE INDEX members_quiet ON members (last_seen) WHERE status = 'firing' AND fingerprint GLOB 'v[0-9]*.*';

-- What the exporter had seen when an error was opened.
CREATE TABLE sights (
    error_id TEXT PRIMARY KEY REFERENCES errors (id) ON DELETE CASCADE,
    seen TEXT NOT NULL
) WITHOUT ROWID;

-- The last batch that was taken of each life of a sending process.
CREATE TABLE senders (
    boot TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    last_seen REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX senders_seen ON senders (last_seen);

-- Events that came without a batch.
CREATE TABLE single_events (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX single_events_at ON single_events (at);

CREATE TABLE heartbeats (
    name TEXT PRIMARY KEY,
    since REAL NOT NULL,
    period REAL,
    grace REAL,
    last_start REAL,
    last_success REAL,
    last_failure REAL,
    last_exit_code INTEGER
) WITHOUT ROWID;
"""

_REFUSALS = """
ALTER TABLE errors ADD COLUMN refused TEXT;
ALTER TABLE heartbeats ADD COLUMN expected INTEGER NOT NULL DEFAULT 1;
"""

_ENDS = """
ALTER TABLE errors ADD COLUMN mended_at REAL;
-- What ended without a proof is failed; it was pending for ever.
UPDATE errors SET state = 'failed' WHERE open = 0 AND state = 'pending';
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _EVENTS, _REFUSALS, _ENDS)
