"""Where signals, errors, decisions, runs and switches are kept: one protocol, one table of stores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from remediator.run import Pause, Run, Start, Step
from remediator.signals import Admission, Decision, Error, Signal, Status
from soulfra_monitor.problems import Problem

Admit = Callable[[Signal, Error | None, Status | None, str], Admission]


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
    running: bool | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthMinute:
    """How often a service was looked at, and found up, in one minute."""

    target: str
    minute: int  # epoch minutes
    looks: int
    up: int


class Store(Protocol):
    """Durable memory. Every write is committed when the call returns; failure raises StoreError."""

    def accept(self, signals: Sequence[Signal], admit: Admit) -> list[Admission]:
        """Take all signals in one transaction: each finds its error, is a member of it, and is counted."""

    def get_error(self, error_id: str) -> Error | None: ...
    def latest_error(self, target: str, problem: Problem) -> Error | None: ...
    def find_errors(self, query: ErrorQuery) -> list[Error]:
        """Last seen first."""

    def count_errors(self, query: ErrorQuery) -> Mapping[str, int]:
        """Count by state, whatever the query's limit and page."""

    def due_errors(self, now: float, limit: int) -> list[Error]:
        """Return the errors whose check_at has come, earliest first."""

    def next_check(self) -> float | None:
        """Return the earliest check_at of all, so that the engine knows how long it may sleep."""

    def add_error(self, error: Error) -> None: ...
    def update_error(self, error: Error) -> bool:
        """Write *error* if its version is still the stored one; return whether it was."""

    def members(self, error_id: str) -> Mapping[str, Status]:
        """Return the last status of each fingerprint that belongs to the error."""

    def record(self, decision: Decision) -> Decision:
        """Keep a decision. The same answer to the same cause as the error's last one raises its count."""

    def decisions(
        self, *, error_id: str | None = None, since: float | None = None, limit: int = 100
    ) -> list[Decision]:
        """Newest first."""

    def begin_run(self, run: Run, error: Error | None) -> bool:
        """Claim the target's lease and write the run, and the error with it; False if somebody holds it."""

    def renew(self, run: Run, lease_until: float) -> bool:
        """Extend the lease; False when the token no longer holds it."""

    def save_run(self, run: Run) -> bool:
        """Write a run that goes on; False when its token no longer holds the lease."""

    def end_run(self, run: Run, error: Error | None) -> bool:
        """Write the ended run and its error, and free the lease; False when the token no longer holds it."""

    def add_shadow(self, run: Run) -> None:
        """Keep a run that was only planned; it claims no lease and counts in no limit."""

    def journal(self, step: Step) -> None:
        """Write a step, or its new state, before the engine goes on."""

    def get_run(self, run_id: str) -> Run | None: ...
    def find_runs(self, query: RunQuery) -> list[Run]: ...
    def steps(self, run_id: str) -> list[Step]: ...
    def orphans(self, owner: str, boot: str, now: float) -> list[Run]:
        """Return running runs that nobody runs: of an earlier life of *owner*, or with their lease over."""

    def adopt(self, run: Run, token: str, boot: str, lease_until: float, owner: str) -> Run | None:
        """Take an orphan over under a new token; None when somebody else was faster."""

    def starts(self, since: float) -> list[Start]:
        """Return the runs that count in limits: begun or ended since then, or still running."""

    def add_pause(self, pause: Pause) -> Pause: ...
    def end_pauses(self, scope: str, now: float) -> int: ...
    def pauses(self, now: float) -> list[Pause]:
        """Return the pauses that hold now."""

    def add_health(self, minutes: Sequence[HealthMinute]) -> None:
        """Add these looks to what the minutes already have."""

    def uptime(self, since_minute: int) -> Mapping[str, float]:
        """Return, per target, the share of looks since then that found it up."""

    def prune(self, detail_before: float, summary_before: float) -> Mapping[str, int]:
        """Fold closed errors that are too old into daily summaries, drop old summaries; return what went."""

    def ping(self) -> None:
        """Prove that a write would succeed now, or raise StoreError."""

    def close(self) -> None: ...
