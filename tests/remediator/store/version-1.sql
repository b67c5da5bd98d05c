-- A store that the program wrote when its schema had version 1, as SQLite dumps it.
BEGIN TRANSACTION;
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
INSERT INTO "decisions" VALUES(1,1001.0,1001.0,'SE_00000001','trust-engine','f2','refused','duplicate','another alert of the same problem; SE_00000001 is already open',NULL,NULL,NULL,1);
INSERT INTO "decisions" VALUES(2,1002.0,1002.0,'SE_00000001','trust-engine','f1','refused','duplicate','the same alert again; SE_00000001 is already open',NULL,NULL,NULL,1);
INSERT INTO "decisions" VALUES(3,1000.0,1000.0,NULL,'gone','f4','refused','stale','resolved, but no such error is known',NULL,NULL,NULL,1);
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
INSERT INTO "errors" VALUES(1,'SE_00000001','trust-engine','service_down','critical','trust-engine is down',1000.0,1002.0,'recovered',0,3,1,0,1007.0,'run',1007.0,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,999.0,'{"alertname":"SoulfraServiceDown","target":"trust-engine"}','{"summary":"A service is down."}',5);
INSERT INTO "errors" VALUES(3,'SE_00000004','ai-router','error_rate','medium','trust-engine is down',1003.0,1003.0,'pending',1,1,0,0,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,1003.0,NULL,NULL,NULL,999.0,'{"alertname":"SoulfraServiceDown","target":"trust-engine"}','{"summary":"A service is down."}',1);
CREATE TABLE health_minutes (
    minute INTEGER NOT NULL,
    target TEXT NOT NULL,
    looks INTEGER NOT NULL,
    up INTEGER NOT NULL,
    PRIMARY KEY (minute, target)
) WITHOUT ROWID;
INSERT INTO "health_minutes" VALUES(16,'ai-router',12,11);
CREATE TABLE leases (
    target TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    lease_until REAL NOT NULL
) WITHOUT ROWID;
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
INSERT INTO "members" VALUES('SE_00000001','f1','firing',1000.0,1002.0,2,'{"alertname":"SoulfraServiceDown","target":"trust-engine"}');
INSERT INTO "members" VALUES('SE_00000001','f2','firing',1001.0,1001.0,1,'{"alertname":"SoulfraServiceDown","target":"trust-engine"}');
INSERT INTO "members" VALUES('SE_00000004','f3','firing',1003.0,1003.0,1,'{"alertname":"SoulfraServiceDown","target":"trust-engine"}');
CREATE TABLE pauses (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    reason TEXT NOT NULL,
    owner TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL
);
INSERT INTO "pauses" VALUES(1,'everything','a release','somebody',900.0,950.0);
CREATE TABLE pulse (beats INTEGER NOT NULL);
INSERT INTO "pulse" VALUES(0);
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
INSERT INTO "runs" VALUES(1,'R_000000000001','SE_00000001','trust-engine','service-down','alert',NULL,1004.0,1007.0,'recovered',0,0,'here','b1','t1',1020.0,'3 of 3 healthy','{"rung 1":{"host":{"cpus":2}}}','{"verified":1007.0}','[{"steps":[{"action":"restart","args":{"service":"trust-engine"},"timeout":30.0}],"verify":{"healthy":3,"every":0.25,"within":30.0}}]');
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
INSERT INTO "steps" VALUES('R_000000000001',1,0,'restart','{"service":"trust-engine"}','done',1004.5,1005.0,'verify',1,'restarted');
CREATE UNIQUE INDEX errors_one_open ON errors (target, problem) WHERE open = 1;
CREATE INDEX errors_latest ON errors (target, problem, open, seq);
CREATE INDEX errors_seen ON errors (last_seen, id);
CREATE INDEX errors_open ON errors (last_seen, id) WHERE open = 1;
CREATE INDEX errors_due ON errors (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX decisions_cause ON decisions (error_id, cause, target, id);
CREATE INDEX decisions_given ON decisions (last_at, id);
CREATE INDEX runs_error ON runs (error_id, started_at);
CREATE INDEX runs_started ON runs (started_at);
CREATE INDEX runs_ended ON runs (ended_at);
CREATE INDEX runs_running ON runs (started_at, seq) WHERE outcome IS NULL;
CREATE INDEX runs_target ON runs (target, started_at);
CREATE INDEX leases_run ON leases (run_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('errors',3);
INSERT INTO "sqlite_sequence" VALUES('decisions',3);
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('pauses',1);
COMMIT;
PRAGMA user_version = 1;
