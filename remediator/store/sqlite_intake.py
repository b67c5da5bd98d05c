"""Taking many signals in one transaction: what was read or decided is remembered, and written once."""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace

from remediator.signals import Admission, Decision, Error, Signal, Status
from remediator.store import Admit, StoreError
from remediator.store.rows import DECISIONS, ERRORS, to_json

ID_TRIES = 20
"""Ids have 32 bits: two collisions in a row are rarer than a broken random source."""

_ERROR_COLUMNS = ", ".join(ERRORS.columns)
_ERROR_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in ERRORS.columns if name != "id")
_DECISION_COLUMNS = ", ".join(DECISIONS.columns)

# S608: the texts put together here are column names of ours, never data.
LATEST_ERROR = (
    f"SELECT {_ERROR_COLUMNS} FROM errors WHERE target = ? AND problem = ? "  # noqa: S608
    "ORDER BY open DESC, seq DESC LIMIT 1"
)
_WRITE_ERROR = (
    f"INSERT INTO errors ({_ERROR_COLUMNS}) VALUES ({', '.join('?' * len(ERRORS.columns))}) "  # noqa: S608
    f"ON CONFLICT (id) DO UPDATE SET {_ERROR_CHANGES}"
)
_WRITE_MEMBER = """
    INSERT INTO members (error_id, fingerprint, status, first_seen, last_seen, times, labels)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (error_id, fingerprint) DO UPDATE SET
        status = excluded.status,
        last_seen = max(last_seen, excluded.last_seen),
        times = times + excluded.times,
        labels = excluded.labels
"""
_LAST_DECISION = (
    f"SELECT {_DECISION_COLUMNS} FROM decisions WHERE error_id IS ? AND cause = ? AND target = ? "  # noqa: S608
    "ORDER BY id DESC LIMIT 1"
)
_ADD_DECISION = (
    f"INSERT INTO decisions ({_DECISION_COLUMNS}) VALUES ({', '.join('?' * len(DECISIONS.columns))})"  # noqa: S608
)
_REPEAT_DECISION = """
    UPDATE decisions SET times = ?, last_at = ?, until = ?, detail = ?, playbook = ? WHERE id = ?
"""


def keep_decision(connection: sqlite3.Connection, decision: Decision) -> Decision:
    """Write a decision, or count it where it repeats the last one; return what is stored."""
    last_at = decision.at if decision.last_at is None else decision.last_at
    key = (decision.error_id, decision.cause, decision.target)
    row = connection.execute(_LAST_DECISION, key).fetchone()
    last = DECISIONS.read(row) if row else None
    if last is None or _answer(last) != _answer(decision):
        fresh = replace(decision, last_at=last_at, id=None)
        return replace(fresh, id=connection.execute(_ADD_DECISION, DECISIONS.write(fresh)).lastrowid)
    repeated = replace(
        last,
        times=last.times + decision.times,
        last_at=max(last_at, last.last_at or last.at),
        until=decision.until,
        detail=decision.detail,
        playbook=decision.playbook,
    )
    connection.execute(
        _REPEAT_DECISION,
        (
            repeated.times,
            repeated.last_at,
            repeated.until,
            repeated.detail,
            repeated.playbook,
            repeated.id,
        ),
    )
    return repeated


def _answer(decision: Decision) -> tuple[object, ...]:
    return decision.verdict, decision.reason, decision.run_id


@dataclass(slots=True)
class _Member:
    """What this transaction adds to a member."""

    status: Status
    first_seen: float
    last_seen: float
    times: int
    labels: Mapping[str, str]


class Intake:
    """Takes signals one by one inside a transaction; ``flush`` writes what they came to."""

    def __init__(self, connection: sqlite3.Connection, admit: Admit) -> None:
        self._connection = connection
        self._admit = admit
        self._latest: dict[tuple[str, str], Error | None] = {}
        self._changed: dict[str, Error] = {}
        self._members: dict[tuple[str, str], _Member] = {}
        # Decisions are written at once, for their ids; the errors they name follow with flush().
        connection.execute("PRAGMA defer_foreign_keys = ON")

    def take(self, signal: Signal) -> Admission:
        """Admit one signal, seeing all that were taken before it."""
        latest = self._latest_error(signal)
        admission = self._admitted(signal, latest)
        error = admission.error
        if error is not None:
            if error is not latest:
                error = replace(error, version=error.version + 1)
                self._latest[signal.target, signal.problem] = error
                self._changed[error.id] = error
            self._join(error.id, signal)
        decision = admission.decision
        if decision is not None:
            decision = keep_decision(self._connection, decision)
        return replace(admission, error=error, decision=decision)

    def flush(self) -> None:
        """Write the errors, members and decisions; the transaction is the caller's to commit."""
        self._connection.executemany(_WRITE_ERROR, map(ERRORS.write, self._changed.values()))
        self._connection.executemany(
            _WRITE_MEMBER,
            (
                (error_id, fingerprint, m.status, m.first_seen, m.last_seen, m.times, to_json(m.labels))
                for (error_id, fingerprint), m in self._members.items()
            ),
        )

    def _latest_error(self, signal: Signal) -> Error | None:
        key = (signal.target, signal.problem)
        if key not in self._latest:
            row = self._connection.execute(LATEST_ERROR, key).fetchone()
            self._latest[key] = ERRORS.read(row) if row else None
        return self._latest[key]

    def _admitted(self, signal: Signal, latest: Error | None) -> Admission:
        member = self._member_status(latest.id, signal.fingerprint) if latest else None
        for _ in range(ID_TRIES):
            admission = self._admit(signal, latest, member, f"SE_{os.urandom(4).hex()}")
            if not admission.new or admission.error is None or not self._taken(admission.error.id):
                return admission
        raise StoreError(f"found no free error id in {ID_TRIES} tries")

    def _member_status(self, error_id: str, fingerprint: str) -> Status | None:
        member = self._members.get((error_id, fingerprint))
        if member is not None:
            return member.status
        row = self._connection.execute(
            "SELECT status FROM members WHERE error_id = ? AND fingerprint = ?", (error_id, fingerprint)
        ).fetchone()
        return Status(row[0]) if row else None

    def _taken(self, error_id: str) -> bool:
        if error_id in self._changed:
            return True
        row = self._connection.execute("SELECT 1 FROM errors WHERE id = ?", (error_id,)).fetchone()
        return row is not None

    def _join(self, error_id: str, signal: Signal) -> None:
        at = signal.received_at
        member = self._members.get((error_id, signal.fingerprint))
        if member is None:
            self._members[error_id, signal.fingerprint] = _Member(signal.status, at, at, 1, signal.labels)
            return
        member.status = signal.status
        member.last_seen = max(member.last_seen, at)
        member.times += 1
        member.labels = signal.labels
