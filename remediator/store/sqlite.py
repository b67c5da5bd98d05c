"""The default store: one SQLite file, no server."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from remediator.run import Outcome, PastRun, Pause, Run, Start, Step
from remediator.signals import PROVEN_BY_PROBE, Admission, Decision, Error, ErrorState, Member, Signal, Status
from remediator.store import (
    Admit,
    BeatKind,
    DailySummary,
    ErrorQuery,
    HealthMinute,
    Heartbeat,
    RunQuery,
)
from remediator.store.rows import (
    DECISIONS,
    ERRORS,
    HEARTBEATS,
    MEMBERS,
    PAST_RUNS,
    PAUSES,
    RUNS,
    STARTS,
    STEPS,
    SUMMARIES,
    Rows,
    Value,
    to_json,
)
from remediator.store.sqlite_database import Database, OnQuarantine
from remediator.store.sqlite_intake import LATEST_ERROR, advance, keep_decision, take_all, take_once
from remediator.store.sqlite_leases import holds, lease_of, supersede, write_lease
from remediator.store.sqlite_prune import forget_senders, prune
from soulfra_monitor.problems import Problem

# S608 is silenced where a text is put together from names and conditions of ours; data is always bound.

_PROGRESS = ("rung", "rungs_tried", "detail", "evidence", "timings", "plan")
"""What of a run changes while it goes on."""

Condition = tuple[str, Any]
"""An SQL condition with one place, and its value; None means no such condition."""


def open_address(address: str) -> "SqliteStore":
    """Open ``sqlite:PATH``, ``sqlite:///PATH`` or a plain path."""
    return SqliteStore(address.removeprefix("sqlite:").removeprefix("//"))


class SqliteStore:
    """A Store in one file.

    A file that is damaged is moved aside as ``NAME.corrupt-<time>`` (never deleted), logged, told to
    *on_quarantine* with its new path and the damage, and a new one is begun. StoreError when the file
    cannot be used, or was written by a newer program.
    """

    def __init__(self, path: str | Path, on_quarantine: OnQuarantine | None = None) -> None:
        self._db = Database(Path(path), on_quarantine)

    # Signals and errors

    def accept(self, signals: Sequence[Signal], admit: Admit) -> list[Admission]:
        with self._db.write() as connection:
            return take_all(connection, signals, admit)

    def accept_batch(
        self, boot: str, seq: int, signals: Sequence[Signal], admit: Admit, *, at: float
    ) -> list[Admission] | None:
        with self._db.write() as connection:
            return take_all(connection, signals, admit) if advance(connection, boot, seq, at) else None

    def accept_once(self, signals: Sequence[Signal], admit: Admit, *, at: float) -> list[Admission | None]:
        with self._db.write() as connection:
            return take_once(connection, signals, admit, at)

    def get_error(self, error_id: str) -> Error | None:
        return _first(self._find(ERRORS, "errors", "WHERE id = ?", [error_id]))

    def latest_error(self, target: str, problem: Problem, subject: str = "") -> Error | None:
        return _first([ERRORS.read(row) for row in self._db.read(LATEST_ERROR, (target, problem, subject))])

    def find_errors(self, query: ErrorQuery) -> list[Error]:
        where, values = _error_filter(query)
        if query.before is not None:
            where += f" {'AND' if where else 'WHERE'} (last_seen, id) < (?, ?)"
            values += query.before
        end = f"{where} ORDER BY last_seen DESC, id DESC LIMIT ?"
        return self._find(ERRORS, "errors", end, [*values, max(0, query.limit)])

    def count_errors(self, query: ErrorQuery) -> Mapping[str, int]:
        where, values = _error_filter(query)
        rows = self._db.read(f"SELECT state, count(*) FROM errors {where} GROUP BY state", values)  # noqa: S608
        return {**{state.value: 0 for state in ErrorState}, **dict(rows)}

    def due_errors(self, now: float, limit: int, *, first: Collection[str] = ()) -> list[Error]:
        if not first:
            end = "WHERE check_at <= ? ORDER BY check_at LIMIT ?"
            return self._find(ERRORS, "errors", end, [now, max(0, limit)])
        end = (
            f"WHERE check_at <= ? ORDER BY target IN ({_places(first)}) DESC, "
            f"problem IN ({_places(PROVEN_BY_PROBE)}) AND subject = '' DESC, check_at LIMIT ?"
        )
        return self._find(ERRORS, "errors", end, [now, *first, *sorted(PROVEN_BY_PROBE), max(0, limit)])

    def count_strangers(self, known: Collection[str]) -> int:
        sql = f"SELECT count(*) FROM errors WHERE open = 1 AND target NOT IN ({_places(known)})"  # noqa: S608
        count: int = self._db.read(sql, [*known])[0][0]
        return count

    def next_check(self) -> float | None:
        earliest: float | None = self._db.read("SELECT min(check_at) FROM errors WHERE check_at IS NOT NULL")[
            0
        ][0]
        return earliest

    def add_error(self, error: Error, *, heir_of: str | None = None) -> None:
        with self._db.write() as connection:
            _insert(connection, ERRORS, "errors", error)
            connection.execute(_INHERIT, (error.id, heir_of))

    def update_error(self, error: Error) -> bool:
        with self._db.write() as connection:
            return _update_error(connection, error)

    def members(self, error_id: str) -> Mapping[str, Status]:
        sql = "SELECT fingerprint, status FROM members WHERE error_id = ?"
        return {fingerprint: Status(status) for fingerprint, status in self._db.read(sql, [error_id])}

    def member_labels(self, error_id: str) -> list[Mapping[str, str]]:
        sql = "SELECT labels FROM members WHERE error_id = ? AND status = ? ORDER BY first_seen, fingerprint"
        return [json.loads(labels) for (labels,) in self._db.read(sql, [error_id, Status.FIRING])]

    def membership(self, error_id: str) -> list[Member]:
        return self._find(
            MEMBERS, "members", "WHERE error_id = ? ORDER BY last_seen DESC, fingerprint", [error_id]
        )

    def quiet_events(self, before: float, limit: int) -> list[tuple[Error, str]]:
        rows = self._db.read(_QUIET, (before, max(0, limit)))
        return [(ERRORS.read(row[1:]), row[0]) for row in rows]

    def past_runs(self, error: Error, limit: int = 100) -> list[PastRun]:
        values = [error.id, error.target, error.problem, error.subject, error.fingerprint, max(0, limit)]
        return self._find(PAST_RUNS, "runs", _PAST_RUNS, values)

    def keep_sight(self, error_id: str, seen: Mapping[str, Any]) -> None:
        sql = "INSERT OR IGNORE INTO sights (error_id, seen) SELECT id, ? FROM errors WHERE id = ?"
        with self._db.write() as connection:
            connection.execute(sql, (to_json(seen), error_id))

    def sight(self, error_id: str) -> Mapping[str, Any] | None:
        rows = self._db.read("SELECT seen FROM sights WHERE error_id = ?", [error_id])
        return json.loads(rows[0][0]) if rows else None

    # Decisions

    def record(self, decision: Decision) -> Decision:
        with self._db.write() as connection:
            return keep_decision(connection, decision)

    def decisions(
        self, *, error_id: str | None = None, since: float | None = None, limit: int = 100
    ) -> list[Decision]:
        where, values = _where([("error_id = ?", error_id), ("last_at >= ?", since)])
        end = f"{where} ORDER BY last_at DESC, id DESC LIMIT ?"
        return self._find(DECISIONS, "decisions", end, [*values, max(0, limit)])

    # Runs and leases

    def begin_run(self, run: Run, error: Error | None) -> bool:
        with self._db.write() as connection:
            lease = lease_of(connection, run.target)
            if lease is not None and lease[1] >= run.started_at:
                return False
            if error is not None and not _update_error(connection, error):
                return False
            if lease is not None:
                supersede(connection, run, error)
            _insert(connection, RUNS, "runs", run)
            write_lease(connection, run)
            return True

    def renew(self, run: Run, lease_until: float) -> bool:
        with self._db.write() as connection:
            if not holds(connection, run):
                return False
            connection.execute(
                "UPDATE leases SET lease_until = ? WHERE target = ?", (lease_until, run.target)
            )
            connection.execute("UPDATE runs SET lease_until = ? WHERE id = ?", (lease_until, run.id))
            return True

    def save_run(self, run: Run) -> bool:
        with self._db.write() as connection:
            if not holds(connection, run):
                return False
            _write_progress(connection, run)
            return True

    def end_run(self, run: Run, error: Error | None) -> bool:
        if run.outcome is None or run.ended_at is None:
            raise ValueError(f"run {run.id} has no outcome or no end")
        with self._db.write() as connection:
            if not holds(connection, run):
                return False
            if error is not None and not _update_error(connection, error):
                return False
            _write_progress(connection, run)
            connection.execute(
                "UPDATE runs SET outcome = ?, ended_at = ? WHERE id = ?", (run.outcome, run.ended_at, run.id)
            )
            connection.execute("DELETE FROM leases WHERE target = ?", (run.target,))
            return True

    def add_shadow(self, run: Run) -> None:
        ended_at = run.started_at if run.ended_at is None else run.ended_at
        with self._db.write() as connection:
            _insert(connection, RUNS, "runs", replace(run, outcome=Outcome.SHADOWED, ended_at=ended_at))

    def journal(self, step: Step) -> None:
        with self._db.write() as connection:
            connection.execute(_JOURNAL, STEPS.write(step))

    def get_run(self, run_id: str) -> Run | None:
        return _first(self._find(RUNS, "runs", "WHERE id = ?", [run_id]))

    def find_runs(self, query: RunQuery) -> list[Run]:
        where, values = _run_filter(query)
        end = f"{where} ORDER BY started_at DESC, seq DESC LIMIT ?"
        return self._find(RUNS, "runs", end, [*values, max(0, query.limit)])

    def count_runs(self, query: RunQuery) -> int:
        where, values = _run_filter(query)
        count: int = self._db.read(f"SELECT count(*) FROM runs {where}", values)[0][0]  # noqa: S608
        return count

    def steps(self, run_id: str) -> list[Step]:
        return self._find(STEPS, "steps", "WHERE run_id = ? ORDER BY number", [run_id])

    def orphans(self, owner: str, boot: str, now: float) -> list[Run]:
        end = """
            WHERE outcome IS NULL AND ((owner = ? AND boot <> ?) OR lease_until < ?)
            ORDER BY started_at, seq
        """
        return self._find(RUNS, "runs", end, [owner, boot, now])

    def adopt(self, run: Run, token: str, boot: str, lease_until: float, owner: str) -> Run | None:
        adopted = replace(run, token=token, boot=boot, lease_until=lease_until, owner=owner)
        with self._db.write() as connection:
            # A renewed lease has another end: its owner is alive after all.
            if not holds(connection, run) or lease_of(connection, run.target) != (run.token, run.lease_until):
                return None
            connection.execute(
                "UPDATE runs SET token = ?, boot = ?, lease_until = ?, owner = ? WHERE id = ?",
                (token, boot, lease_until, owner, run.id),
            )
            write_lease(connection, adopted)
        return adopted

    def starts(self, since: float) -> list[Start]:
        # Three questions rather than one with OR, which SQLite would answer by reading all runs.
        end = """
            WHERE outcome IS NOT 'shadowed' AND seq IN (
                SELECT seq FROM runs WHERE outcome IS NULL
                UNION SELECT seq FROM runs WHERE started_at >= ?
                UNION SELECT seq FROM runs WHERE ended_at >= ?
            )
            ORDER BY started_at, seq
        """
        return self._find(STARTS, "runs", end, [since, since])

    # Switches and health

    def add_pause(self, pause: Pause) -> Pause:
        with self._db.write() as connection:
            return replace(pause, id=_insert(connection, PAUSES, "pauses", replace(pause, id=None)))

    def end_pauses(self, scope: str, now: float) -> int:
        with self._db.write() as connection:
            return connection.execute(
                "UPDATE pauses SET until = ? WHERE scope = ? AND (until IS NULL OR until > ?)",
                (now, scope, now),
            ).rowcount

    def pauses(self, now: float) -> list[Pause]:
        return self._find(PAUSES, "pauses", "WHERE until IS NULL OR until > ? ORDER BY id", [now])

    def expect_heartbeats(self, periods: Mapping[str, tuple[float, float]], at: float) -> None:
        with self._db.write() as connection:
            known = connection.execute("SELECT name FROM heartbeats WHERE expected = 1").fetchall()
            connection.executemany(
                "UPDATE heartbeats SET expected = 0 WHERE name = ?",
                [(name,) for (name,) in known if name not in periods],
            )
            connection.executemany(
                "INSERT INTO heartbeats (name, since, period, grace) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET period = excluded.period, grace = excluded.grace, "
                "since = iif(expected, since, excluded.since), expected = 1",
                [(name, at, period, grace) for name, (period, grace) in periods.items()],
            )

    def beat(self, name: str, what: BeatKind, at: float, exit_code: int | None = None) -> Heartbeat:
        with self._db.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO heartbeats (name, since, expected) VALUES (?, ?, 0)", (name, at)
            )
            told = connection.execute(
                f"UPDATE heartbeats SET last_{what} = ? WHERE name = ? AND coalesce(last_{what}, 0.0) <= ?",  # noqa: S608
                (at, name, at),
            ).rowcount
            if told and exit_code is not None:
                connection.execute(
                    "UPDATE heartbeats SET last_exit_code = ? WHERE name = ?", (exit_code, name)
                )
            row = connection.execute(_HEARTBEAT, (name,)).fetchone()
        return HEARTBEATS.read(row)

    def heartbeats(self) -> list[Heartbeat]:
        return self._find(HEARTBEATS, "heartbeats", "ORDER BY name", [])

    def add_health(self, minutes: Sequence[HealthMinute]) -> None:
        with self._db.write() as connection:
            connection.executemany(
                "INSERT INTO health_minutes (minute, target, looks, up) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET looks = looks + excluded.looks, up = up + excluded.up",
                [(m.minute, m.target, m.looks, m.up) for m in minutes],
            )

    def uptime(self, since_minute: int) -> Mapping[str, float]:
        sql = "SELECT target, sum(up), sum(looks) FROM health_minutes WHERE minute >= ? GROUP BY target"
        return {target: up / looks for target, up, looks in self._db.read(sql, [since_minute]) if looks}

    # Keeping house

    def prune(self, detail_before: float, summary_before: float) -> Mapping[str, int]:
        return prune(self._db, detail_before, summary_before)

    def forget_senders(self, now: float) -> Mapping[str, int]:
        return forget_senders(self._db, now)

    def summaries(self, since: float) -> list[DailySummary]:
        end = "WHERE day >= strftime('%Y-%m-%d', ?, 'unixepoch') ORDER BY day, target, problem, severity"
        return self._find(SUMMARIES, "daily_summaries", end, [since])

    def ping(self) -> None:
        self._db.check_room()
        with self._db.write() as connection:
            connection.execute("UPDATE pulse SET beats = beats + 1")

    def close(self) -> None:
        self._db.close()

    def _find(self, rows: Rows[Value], table: str, end: str, values: Sequence[Any]) -> list[Value]:
        sql = f"SELECT {_names(rows.columns)} FROM {table} {end}"  # noqa: S608
        return [rows.read(row) for row in self._db.read(sql, values)]


def _places(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


def _first(found: Sequence[Value]) -> Value | None:
    return found[0] if found else None


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _where(conditions: Sequence[Condition], choice: str | None = None) -> tuple[str, list[Any]]:
    asked = [(text, value) for text, value in conditions if value is not None]
    texts = [text for text, _ in asked] + ([choice] if choice else [])
    return (f"WHERE {' AND '.join(texts)}" if texts else ""), [value for _, value in asked]


def _choice(asked: bool | None, yes: str, no: str) -> str | None:
    """Return the condition asked for. It is written out, not bound, so that a partial index may serve it."""
    return None if asked is None else yes if asked else no


def _error_filter(query: ErrorQuery) -> tuple[str, list[Any]]:
    conditions: list[Condition] = [
        ("last_seen >= ?", query.since),
        ("target = ?", query.target),
        ("problem = ?", query.problem),
        ("severity = ?", query.severity),
        ("state = ?", query.state),
    ]
    return _where(conditions, _choice(query.open, "open = 1", "open = 0"))


def _run_filter(query: RunQuery) -> tuple[str, list[Any]]:
    conditions: list[Condition] = [
        ("started_at >= ?", query.since),
        ("target = ?", query.target),
        ("error_id = ?", query.error_id),
        ("outcome = ?", query.outcome),
        ("trigger = ?", query.trigger),
    ]
    return _where(conditions, _choice(query.running, "outcome IS NULL", "outcome IS NOT NULL"))


def _insert(connection: sqlite3.Connection, rows: Rows[Value], table: str, value: Value) -> int | None:
    places = ", ".join("?" * len(rows.columns))
    sql = f"INSERT INTO {table} ({_names(rows.columns)}) VALUES ({places})"  # noqa: S608
    return connection.execute(sql, rows.write(value)).lastrowid


_UPDATE_ERROR = f"""
    UPDATE errors SET ({_names(ERRORS.columns)}) = ({", ".join("?" * len(ERRORS.columns))})
    WHERE id = ? AND version = ? AND NOT (? AND EXISTS (
        SELECT 1 FROM errors AS other
        WHERE other.target = errors.target AND other.problem = errors.problem
            AND other.subject = errors.subject AND other.open = 1 AND other.id <> errors.id
    ))
"""  # noqa: S608


_INHERIT = """
    INSERT INTO members (error_id, fingerprint, status, first_seen, last_seen, times, labels, detail)
    SELECT ?, fingerprint, status, last_seen, last_seen, 1, labels, detail FROM members
    WHERE error_id = ? AND status = 'firing' AND fingerprint GLOB 'v[0-9]*.*'
"""
_QUIET = f"""
    SELECT members.fingerprint, {", ".join(f'errors."{name}"' for name in ERRORS.columns)}
    FROM members JOIN errors ON errors.id = members.error_id
    WHERE members.status = 'firing' AND members.fingerprint GLOB 'v[0-9]*.*' AND members.last_seen < ?
        AND errors.open = 1
    ORDER BY members.last_seen LIMIT ?
"""  # noqa: S608
_PAST_RUNS = """
    WHERE outcome IS NOT NULL AND outcome NOT IN ('shadowed', 'cancelled') AND ended_at IS NOT NULL
        AND error_id <> ? AND error_id IN (
            SELECT id FROM errors WHERE target = ? AND problem = ? AND subject = ?
            UNION
            SELECT error_id FROM members WHERE fingerprint = ? AND fingerprint GLOB 'v[0-9]*.*'
        )
    ORDER BY started_at DESC, seq DESC LIMIT ?
"""
_HEARTBEAT = f"SELECT {_names(HEARTBEATS.columns)} FROM heartbeats WHERE name = ?"  # noqa: S608


def _update_error(connection: sqlite3.Connection, error: Error) -> bool:
    row = ERRORS.write(replace(error, version=error.version + 1))
    written = connection.execute(_UPDATE_ERROR, [*row, error.id, error.version, error.open])
    return written.rowcount == 1


def _write_progress(connection: sqlite3.Connection, run: Run) -> None:
    columns = dict(zip(RUNS.columns, RUNS.write(run), strict=True))
    changes = ", ".join(f"{name} = ?" for name in _PROGRESS)
    connection.execute(
        f"UPDATE runs SET {changes} WHERE id = ?",  # noqa: S608
        [*(columns[name] for name in _PROGRESS), run.id],
    )


_JOURNAL = f"""
    INSERT INTO steps ({_names(STEPS.columns)}) VALUES ({", ".join("?" * len(STEPS.columns))})
    ON CONFLICT (run_id, number) DO UPDATE SET
        {", ".join(f"{name} = excluded.{name}" for name in STEPS.columns)}
"""  # noqa: S608
