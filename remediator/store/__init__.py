"""Where signals, errors, decisions, runs and switches are kept: one protocol, one table of stores.

The one exception is StoreError. The suite tests/remediator/store/test_contract.py holds every store to this.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any, Protocol

from remediator.run import PastRun, Pause, Run, Start, Step
from remediator.signals import Admission, Decision, Error, Member, Signal, Status
from soulfra_monitor.problems import Problem, Severity

Admit = Callable[[Signal, Error | None, Status | None, str], Admission]

SENDERS_KEPT = 8 * 86400.0
"""Seconds for which the last batch of a process is remembered: longer than senders keep what is not taken."""

SINGLES_KEPT = 3600.0
"""Seconds for which the ids of single events are remembered."""

SINGLES_LIMIT = 100_000
"""Ids of single events that are remembered at most."""


class StoreError(Exception):
    """The store could not do it (disk full, locked, unreachable); nothing was half written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorQuery:
    """Which errors; None means any."""

    since: float | None = None  # last seen at or after
    target: str | None = None
    problem: str | None = None
    severity: str | None = None
    state: str | None = None
    open: bool | None = None
    limit: int = 100
    before: tuple[float, str] | None = None  # page on: (last_seen, id) of the last one had


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs; None means any. Newest first."""

    since: float | None = None  # started at or after
    target: str | None = None
    error_id: str | None = None
    outcome: str | None = None
    trigger: str | None = None
    running: bool | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthMinute:
    """How often a service was looked at, and found up, in one minute."""

    target: str
    minute: int  # epoch minutes
    looks: int
    up: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DailySummary:
    """What is kept of a day's errors once their detail is gone."""

    day: str  # UTC, as 2026-01-31; the day the errors were first seen
    target: str
    problem: Problem
    severity: Severity
    count: int
    recovered: int
    failed: int
    recovery_seconds: float  # the sum over the recovered ones


class BeatKind(StrEnum):
    """What a job says of itself."""

    START = "start"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What is known of a job that must report. Times in epoch seconds, our clock; None: never."""

    name: str
    since: float  # since when it is expected, or first heard when nobody expects it
    period: float | None = None  # seconds; None: nobody said how often it must report
    grace: float | None = None
    last_start: float | None = None
    last_success: float | None = None
    last_failure: float | None = None
    last_exit_code: int | None = None  # of the last success or failure that told one
    expected: bool = True  # it is configured


class Store(Protocol):
    """Durable memory, for many threads at once. Every write is committed when the call returns.

    Failure raises StoreError, and then nothing was written. A write that takes an Error is refused when
    the stored one has another version than the value at hand: somebody else wrote it since it was read,
    as ``accept`` does with every signal. Written, the stored version is the value's plus one. There is at
    most one open error per target, problem and subject.
    """

    def accept(self, signals: Sequence[Signal], admit: Admit) -> list[Admission]:
        """Take all signals in one transaction: each finds its error, is a member of it, and is counted.

        The answers are in the order of the signals, with errors and decisions as they were then stored;
        a signal sees what the one before it wrote. All are taken or, when it raises, none. An event may come
        back with another subject or fingerprint: where its target has too many (``signals.placed``).
        """

    def accept_batch(
        self, boot: str, seq: int, signals: Sequence[Signal], admit: Admit, *, at: float
    ) -> list[Admission] | None:
        """Take a process's batch as ``accept`` does, once; None, with nothing written, when it was taken.

        It was when its *seq* is not greater than the last one taken of its *boot*; both are kept in the
        transaction that takes the signals, for SENDERS_KEPT after *at*.
        """

    def accept_once(self, signals: Sequence[Signal], admit: Admit, *, at: float) -> list[Admission | None]:
        """Take events as ``accept`` does, each ``event_id`` once in SINGLES_KEPT seconds.

        None stands for one taken before, also earlier in the same call. A signal without an id is always
        taken.
        """

    def get_error(self, error_id: str) -> Error | None: ...
    def latest_error(self, target: str, problem: Problem, subject: str = "") -> Error | None:
        """Return the open error of the three, else the one that was begun last."""

    def find_errors(self, query: ErrorQuery) -> list[Error]:
        """Return the errors last seen first; equal times by id, the greater first."""

    def count_errors(self, query: ErrorQuery) -> Mapping[str, int]:
        """Count by state, whatever the query's limit and page; every state is a key."""

    def due_errors(self, now: float, limit: int, *, first: Collection[str] = ()) -> list[Error]:
        """Return the errors whose check_at has come, open or closed, earliest first.

        Those of the targets in *first* come before all others, and of those what probes prove.
        """

    def next_check(self) -> float | None:
        """Return the earliest check_at of all, so that the engine knows how long it may sleep."""

    def count_strangers(self, known: Collection[str]) -> int:
        """Count the open errors of all targets but those."""
        ...

    def add_error(self, error: Error, *, heir_of: str | None = None) -> None:
        """Write a new error; the events that belong to the error *heir_of* and are not over become its own.

        StoreError when its id is taken, or when its target, problem and subject have an open one.
        """

    def update_error(self, error: Error) -> bool:
        """Write *error* if its version is still the stored one; return whether it was.

        Also False when it would be the second open error of its target, problem and subject.
        """

    def members(self, error_id: str) -> Mapping[str, Status]:
        """Return the last status of each fingerprint that belongs to the error."""

    def member_labels(self, error_id: str) -> list[Mapping[str, str]]:
        """Return the labels of the members that fire, first seen first."""
        ...

    def membership(self, error_id: str) -> list[Member]:
        """Return the members of the error, last seen first."""

    def quiet_events(self, before: float, limit: int) -> list[tuple[Error, str]]:
        """Return open errors, each with a fingerprint of events that fire and were last seen before then."""

    def past_runs(self, error: Error, limit: int = 100) -> list[PastRun]:
        """Return the ended runs for other errors like this one, newest first, without what was only planned.

        Like it are those of its target, problem and subject, and those of any target that its newest
        event's fingerprint belongs to.
        """

    def keep_sight(self, error_id: str, seen: Mapping[str, Any]) -> None:
        """Keep what was seen when the error was opened; a later sight of the same error is not kept."""

    def sight(self, error_id: str) -> Mapping[str, Any] | None:
        """Return what was kept; None when nothing was."""

    def record(self, decision: Decision) -> Decision:
        """Keep a decision. The same answer to the same cause as the error's last one raises its count.

        Return it as stored, with its id. The same answer means verdict, reason and run; ``last_at``,
        ``until``, ``detail`` and ``playbook`` become those of the new one.
        """

    def decisions(
        self, *, error_id: str | None = None, since: float | None = None, limit: int = 100
    ) -> list[Decision]:
        """Return the decisions last given first."""

    def begin_run(self, run: Run, error: Error | None) -> bool:
        """Claim the target's lease and write the run, and the error with it; False if somebody holds it.

        Also False, with nothing written, when the error has changed since it was read. A lease that was
        over at ``run.started_at`` is taken; the run that had it then ends as interrupted, and its error
        is due for a look.
        """

    def renew(self, run: Run, lease_until: float) -> bool:
        """Extend the lease; False when the token no longer holds it."""

    def save_run(self, run: Run) -> bool:
        """Write a run that goes on; False when its token no longer holds the lease.

        Leaves the lease's end alone: that is for ``renew``.
        """

    def end_run(self, run: Run, error: Error | None) -> bool:
        """Write the ended run and its error, and free the lease; False when the token no longer holds it.

        Also False, with nothing written, when the error has changed since it was read. ``renew`` tells the
        two apart: if it succeeds, read the error again, apply the end to it and try again.
        """

    def add_shadow(self, run: Run) -> None:
        """Keep a run that was only planned; it claims no lease and counts in no limit."""

    def journal(self, step: Step) -> None:
        """Write a step, or its new state, before the engine goes on. Its run must be there."""

    def get_run(self, run_id: str) -> Run | None: ...
    def find_runs(self, query: RunQuery) -> list[Run]: ...
    def count_runs(self, query: RunQuery) -> int:
        """Count them, whatever the query's limit, without reading their plans and evidence."""

    def steps(self, run_id: str) -> list[Step]:
        """Return the steps by number."""

    def orphans(self, owner: str, boot: str, now: float) -> list[Run]:
        """Return running runs that nobody runs: of an earlier life of *owner*, or with their lease over."""

    def adopt(self, run: Run, token: str, boot: str, lease_until: float, owner: str) -> Run | None:
        """Take an orphan over under a new token; None when somebody was faster, or its owner renewed it."""

    def starts(self, since: float) -> list[Start]:
        """Return the runs that count in limits: begun or ended since then, or still running."""

    def add_pause(self, pause: Pause) -> Pause: ...
    def end_pauses(self, scope: str, now: float) -> int:
        """End the pauses of exactly this scope that hold now; return how many there were."""

    def pauses(self, now: float) -> list[Pause]:
        """Return the pauses that hold now."""

    def expect_heartbeats(self, periods: Mapping[str, tuple[float, float]], at: float) -> None:
        """Note which jobs are expected now, with period and grace in seconds.

        One that was not expected until now is expected from *at* on; of those that are no longer, what they
        said is kept.
        """

    def beat(self, name: str, what: BeatKind, at: float, exit_code: int | None = None) -> Heartbeat:
        """Note what a job said; return what is now known of it. An earlier time changes nothing."""

    def heartbeats(self) -> list[Heartbeat]:
        """Return every job that was ever expected or heard, by name."""

    def add_health(self, minutes: Sequence[HealthMinute]) -> None:
        """Add these looks to what the minutes already have."""

    def uptime(self, since_minute: int) -> Mapping[str, float]:
        """Return, per target, the share (0 to 1) of looks since then that found it up."""

    def prune(self, detail_before: float, summary_before: float) -> Mapping[str, int]:
        """Fold closed errors that are too old into daily summaries, drop old summaries; return what went.

        With an error go its decisions, runs and steps; other decisions, ended runs, ended pauses and
        health minutes go by their own age. An open error, or one with a running run, always stays.
        """

    def forget_senders(self, now: float) -> Mapping[str, int]:
        """Forget batches after SENDERS_KEPT, single events after SINGLES_KEPT or SINGLES_LIMIT newer ones."""

    def summaries(self, since: float) -> list[DailySummary]:
        """Return the daily summaries from the UTC day of *since* on, oldest first."""

    def ping(self) -> None:
        """Prove that a write would succeed now, or raise StoreError."""

    def close(self) -> None: ...


STORES: Mapping[str, str] = {
    "sqlite": "remediator.store.sqlite:open_address",
}
"""By the scheme of an address: where the function is that takes the address and returns an open Store."""


def open_store(address: str) -> Store:
    """Open the store at *address*: a path, or ``sqlite:PATH``. StoreError when it cannot be opened."""
    scheme, colon, _ = address.partition(":")
    if not colon or "/" in scheme:
        scheme = "sqlite"
    if scheme not in STORES:
        raise StoreError(f"no store for {scheme!r}; known are {', '.join(sorted(STORES))}")
    module, _, name = STORES[scheme].partition(":")
    factory: Callable[[str], Store] = getattr(import_module(module), name)
    return factory(address)
