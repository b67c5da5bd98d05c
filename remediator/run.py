"""Runs and their steps: values, states and outcomes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

PROVES_ITSELF = frozenset({"file"})
"""Actions that succeed only when they have found the mend in place."""

_NO_REPAIRS = frozenset({"wait", "notify"})


class Outcome(StrEnum):
    """How a run ended."""

    RECOVERED = "recovered"  # fresh probes said so
    FAILED = "failed"
    UNVERIFIED = "unverified"  # the exporter could not be asked
    INTERRUPTED = "interrupted"  # the remediator died in the middle and nothing proves the repair
    CANCELLED = "cancelled"
    SHADOWED = "shadowed"  # planned and recorded, never executed


class StepState(StrEnum):
    """How far a step is. The row is written before the effect."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


class Trigger(StrEnum):
    """What made a run begin."""

    ALERT = "alert"
    EVENT = "event"  # an error that an application reported
    PERSON = "person"


AUTOMATIC = (Trigger.ALERT, Trigger.EVENT)
"""The triggers that need no person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a playbook for one error."""

    id: str  # R_ and 12 hexadecimal digits
    target: str
    playbook: str
    trigger: Trigger
    started_at: float
    owner: str  # the remediator that holds the lease
    boot: str  # the life of that remediator; a restart has another
    token: str  # fencing: a write with an old token is refused
    lease_until: float
    error_id: str | None = None
    requested_by: str | None = None
    rung: int = 0  # index of the rung being tried
    rungs_tried: int = 0
    outcome: Outcome | None = None  # None while it runs
    ended_at: float | None = None
    detail: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)  # epoch seconds by milestone
    plan: tuple[Mapping[str, Any], ...] = ()  # the rendered rungs, as decided

    @property
    def only_mends(self) -> bool:
        """Whether the rung that it ends with does nothing but what proves itself."""
        steps = self.plan[self.rung]["steps"] if self.rung < len(self.plan) else ()
        return bool(steps) and all(step["action"] in PROVES_ITSELF for step in steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action of a run, journaled before its effect."""

    run_id: str
    number: int  # counts within the run
    rung: int
    action: str
    args: Mapping[str, Any]
    state: StepState
    started_at: float
    on_crash: str = "verify"
    attempt: int = 1  # retries inside the step
    ended_at: float | None = None
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A past or present run as the limits count it."""

    target: str
    playbook: str
    started_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What a run of an earlier error did, and what it came to."""

    playbook: str
    outcome: Outcome
    started_at: float
    ended_at: float
    rung: int
    plan: tuple[Mapping[str, Any], ...]

    @property
    def actions(self) -> tuple[str, ...]:
        """The names of what the last rung did to the service, in their order."""
        steps = self.plan[self.rung]["steps"] if self.rung < len(self.plan) else ()
        return tuple(dict.fromkeys(step["action"] for step in steps if step["action"] not in _NO_REPAIRS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The switch that holds automatic runs back."""

    scope: str  # "everything" or a target's name
    reason: str
    owner: str
    since: float
    until: float | None = None  # None: until somebody resumes
    id: int | None = None  # given by the store

    def holds(self, target: str, now: float) -> bool:
        """Whether runs for *target* are held back now."""
        return self.scope in ("everything", target) and (self.until is None or now < self.until)
