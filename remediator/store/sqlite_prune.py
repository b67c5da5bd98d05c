"""Forgetting: old detail becomes daily summaries, old summaries go."""

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime

from remediator.store import SENDERS_KEPT, SINGLES_KEPT, SINGLES_LIMIT
from remediator.store.sqlite_database import Database

BATCH = 500
"""Rows per transaction, so that a webhook never waits long behind a night's cleaning."""

_OLD_ERRORS = """
    SELECT id FROM errors
    WHERE open = 0 AND last_seen < ?
        AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.error_id = errors.id AND runs.outcome IS NULL)
    ORDER BY last_seen LIMIT ?
"""
_FOLD = """
    INSERT INTO daily_summaries (day, target, problem, severity, count, recovered, failed, recovery_seconds)
    SELECT date(first_seen, 'unixepoch'), target, problem, severity, 1, state = 'recovered', state = 'failed',
        iif(state = 'recovered', max(0.0, coalesce(recovered_at, first_seen) - first_seen), 0.0)
    FROM errors WHERE id = ?
    ON CONFLICT (day, target, problem, severity) DO UPDATE SET
        count = count + excluded.count,
        recovered = recovered + excluded.recovered,
        failed = failed + excluded.failed,
        recovery_seconds = recovery_seconds + excluded.recovery_seconds
"""

_OLD_ROWS: Mapping[str, str] = {
    "decisions": "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions WHERE last_at < ? LIMIT ?)",
    "runs": "DELETE FROM runs WHERE seq IN (SELECT seq FROM runs WHERE ended_at < ? LIMIT ?)",
    "pauses": "DELETE FROM pauses WHERE id IN (SELECT id FROM pauses WHERE until < ? LIMIT ?)",
    "health_minutes": (
        "DELETE FROM health_minutes WHERE (minute, target) IN "
        "(SELECT minute, target FROM health_minutes WHERE minute < ? / 60 LIMIT ?)"
    ),
}
"""By the name that counts it: how the oldest rows of a table go."""


_OLD_SENDERS = "DELETE FROM senders WHERE boot IN (SELECT boot FROM senders WHERE last_seen < ? LIMIT ?)"
_OLD_SINGLES = "DELETE FROM single_events WHERE id IN (SELECT id FROM single_events WHERE at < ? LIMIT ?)"
_OLDEST_KEPT = "SELECT at FROM single_events ORDER BY at DESC LIMIT 1 OFFSET ?"


def forget_senders(database: Database, now: float) -> Mapping[str, int]:
    """Do what Store.forget_senders promises."""
    above = database.read(_OLDEST_KEPT, (SINGLES_LIMIT - 1,))
    oldest: float = max(now - SINGLES_KEPT, above[0][0] if above else 0.0)
    return {
        "senders": _delete(database, _OLD_SENDERS, now - SENDERS_KEPT),
        "single_events": _delete(database, _OLD_SINGLES, oldest),
    }


def prune(database: Database, detail_before: float, summary_before: float) -> Mapping[str, int]:
    """Do what Store.prune promises; each transaction leaves the store whole."""
    gone = {"errors": _prune_errors(database, detail_before)}
    for table, sql in _OLD_ROWS.items():
        gone[table] = _delete(database, sql, detail_before)
    day = datetime.fromtimestamp(summary_before, UTC).date().isoformat()
    with database.write() as connection:
        dropped = connection.execute("DELETE FROM daily_summaries WHERE day < ?", (day,))
        gone["summaries"] = dropped.rowcount
    return gone


def _prune_errors(database: Database, before: float) -> int:
    gone = 0
    while True:
        with database.write() as connection:
            ids = connection.execute(_OLD_ERRORS, (before, BATCH)).fetchall()
            _fold(connection, ids)
        gone += len(ids)
        if len(ids) < BATCH:
            return gone


def _fold(connection: sqlite3.Connection, ids: list[tuple[str]]) -> None:
    """Count these errors in their day, and delete them with all that refers to them."""
    connection.executemany(_FOLD, ids)
    connection.executemany("DELETE FROM errors WHERE id = ?", ids)


def _delete(database: Database, sql: str, before: float) -> int:
    gone = 0
    while True:
        with database.write() as connection:
            deleted = connection.execute(sql, (before, BATCH)).rowcount
        gone += deleted
        if deleted < BATCH:
            return gone
