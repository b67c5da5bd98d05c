"""Taking many signals in one transaction: what was read or decided is remembered, and written once."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from remediator.signals import (
    MEMBERS_LIMIT,
    OTHERS,
    OTHERS_FINGERPRINT,
    Admission,
    Decision,
    Error,
    Signal,
    Source,
    Status,
    placed,
)
from remediator.store import Admit, StoreError
from remediator.store.rows import DECISIONS, ERRORS, to_json

ID_TRIES = 20
"""Ids have 32 bits: two collisions in a row are rarer than a broken random source."""

_ERROR_COLUMNS = ", ".join(ERRORS.columns)
_ERROR_CHANGES = ", ".join(f"{name} = excluded.{name}" for name in ERRORS.columns if name != "id")
_DECISION_COLUMNS = ", ".join(DECISIONS.columns)

# S608: the texts put together here are column names of ours, never data.
LATEST_ERROR = (
    f"SELECT {_ERROR_COLUMNS} FROM errors WHERE target = ? AND problem = ? AND subject = ? "  # noqa: S608
    "ORDER BY open DESC, seq DESC LIMIT 1"
)
_WRITE_ERROR = (
    f"INSERT INTO errors ({_ERROR_COLUMNS}) VALUES ({', '.join('?' * len(ERRORS.columns))}) "  # noqa: S608
    f"ON CONFLICT (id) DO UPDATE SET {_ERROR_CHANGES}"
)
_WRITE_MEMBER = """
    INSERT INTO members (error_id, fingerprint, status, first_seen, last_seen, times, labels, detail)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (error_id, fingerprint) DO UPDATE SET
        status = excluded.status,
        last_seen = max(last_seen, excluded.last_seen),
        times = times + excluded.times,
        labels = excluded.labels,
        detail = iif(excluded.detail = '{}', detail, excluded.detail)
"""
_COUNT_SUBJECTS = "SELECT count(*) FROM errors WHERE target = ? AND open = 1 AND subject <> ''"
_COUNT_MEMBERS = "SELECT count(*) FROM members WHERE error_id = ? AND fingerprint GLOB 'v[0-9]*.*'"
_ADVANCE = """
    INSERT INTO senders (boot, seq, last_seen) VALUES (?, ?, ?)
    ON CONFLICT (boot) DO UPDATE SET seq = excluded.seq, last_seen = excluded.last_seen
    WHERE excluded.seq > seq
"""
_REMEMBER = "INSERT OR IGNORE INTO single_events (id, at) VALUES (?, ?)"
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


def take_all(connection: sqlite3.Connection, signals: Sequence[Signal], admit: Admit) -> list[Admission]:
    """Take signals inside a transaction of the caller's."""
    intake = Intake(connection, admit)
    admissions = [intake.take(signal) for signal in signals]
    intake.flush()
    return admissions


def take_once(
    connection: sqlite3.Connection, signals: Sequence[Signal], admit: Admit, at: float
) -> list[Admission | None]:
    """Take those of the signals whose event was not taken before."""
    intake = Intake(connection, admit)
    admissions = [
        intake.take(signal) if _is_first(connection, signal.event_id, at) else None for signal in signals
    ]
    intake.flush()
    return admissions


def advance(connection: sqlite3.Connection, boot: str, seq: int, at: float) -> bool:
    """Note a batch as taken; False when it was."""
    return connection.execute(_ADVANCE, (boot, seq, at)).rowcount == 1


def _is_first(connection: sqlite3.Connection, event_id: str, at: float) -> bool:
    return not event_id or connection.execute(_REMEMBER, (event_id, at)).rowcount == 1


@dataclass(slots=True)
class _Member:
    """What this transaction adds to a member."""

    status: Status
    first_seen: float
    last_seen: float
    times: int
    labels: Mapping[str, str]
    detail: Mapping[str, Any]


class Intake:
    """Takes signals one by one inside a transaction; ``flush`` writes what they came to."""

    def __init__(self, connection: sqlite3.Connection, admit: Admit) -> None:
        self._connection = connection
        self._admit = admit
        self._latest: dict[tuple[str, str, str], Error | None] = {}
        self._subjects: dict[str, int] = {}  # open errors with a subject, by target
        self._sizes: dict[str, int] = {}  # fingerprints of events, by error
        self._changed: dict[str, Error] = {}
        self._members: dict[tuple[str, str], _Member] = {}
        # Decisions are written at once, for their ids; the errors they name follow with flush().
        connection.execute("PRAGMA defer_foreign_keys = ON")

    def take(self, signal: Signal) -> Admission:
        """Admit one signal, seeing all that were taken before it."""
        if signal.source is Source.EVENT:
            signal = self._within_limits(signal)
        latest = self._latest_error(signal)
        admission = self._admitted(signal, latest)
        error = admission.error
        if error is not None:
            if error is not latest:
                if error.open and error.subject and not (latest is not None and latest.open):
                    self._count_subject(error.target)
                error = replace(error, version=error.version + 1)
                self._latest[signal.target, signal.problem, signal.subject] = error
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
                (
                    error_id,
                    fingerprint,
                    m.status,
                    m.first_seen,
                    m.last_seen,
                    m.times,
                    to_json(m.labels),
                    to_json(m.detail),
                )
                for (error_id, fingerprint), m in self._members.items()
            ),
        )

    def _within_limits(self, signal: Signal) -> Signal:
        """Give the signal the subject and the fingerprint that it may have."""
        latest = self._latest_error(signal)
        if signal.subject not in ("", OTHERS) and not (latest is not None and latest.open):
            signal = placed(signal, latest, self._open_subjects(signal.target))
            latest = self._latest_error(signal)
        if latest is None or not latest.open or self._member_status(latest.id, signal.fingerprint):
            return signal
        if self._sizes.get(latest.id) is None:
            self._sizes[latest.id] = self._connection.execute(_COUNT_MEMBERS, (latest.id,)).fetchone()[0]
        if self._sizes[latest.id] >= MEMBERS_LIMIT:
            return replace(signal, fingerprint=OTHERS_FINGERPRINT)
        self._sizes[latest.id] += 1
        return signal

    def _open_subjects(self, target: str) -> int:
        if target not in self._subjects:
            self._subjects[target] = self._connection.execute(_COUNT_SUBJECTS, (target,)).fetchone()[0]
        return self._subjects[target]

    def _count_subject(self, target: str) -> None:
        self._subjects[target] = self._open_subjects(target) + 1

    def _latest_error(self, signal: Signal) -> Error | None:
        key = (signal.target, signal.problem, signal.subject)
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
        # That nothing of it came in is no sight of it.
        at = signal.received_at if signal.source is not Source.QUIET else 0.0
        member = self._members.get((error_id, signal.fingerprint))
        if member is None:
            self._members[error_id, signal.fingerprint] = _Member(
                signal.status, at, at, signal.count, signal.labels, signal.detail
            )
            return
        member.status = signal.status
        member.last_seen = max(member.last_seen, at)
        member.times += signal.count
        member.labels = signal.labels
        member.detail = signal.detail or member.detail
