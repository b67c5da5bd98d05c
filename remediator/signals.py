"""Signals and the errors they belong to. Pure: values in, values out, the clock is an argument.

A signal is what comes in. An error is one episode of one problem of one subject of one target; signals
are its members. ``admit`` is the only place where a signal finds its error, and ``placed`` the only one
where a target with too many errors is spared another.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.problems import Problem, Severity

RECHECK_FOR = 900.0
"""Seconds after its end in which an error still takes late signals: Alertmanager re-sends for 15 minutes."""

PROVEN_BY_PROBE = frozenset({Problem.SERVICE_DOWN, Problem.SERVICE_TIMEOUT, Problem.PROCESS_DIED})
"""Problems that a healthy (for a timeout: and fast) probe disproves (``Error.proven_by_probe``). The others
need their alert or their events to end."""

OTHERS = "others"
"""The subject of what a target with too many errors still has to tell."""

SUBJECTS_LIMIT = 100
"""Errors with a subject that one target may have open at once; what comes above is of the subject others."""

OTHERS_FINGERPRINT = "v1.others"
"""The member of an error that stands for all events above MEMBERS_LIMIT."""

MEMBERS_LIMIT = 200
"""Fingerprints of events that one error keeps apart."""

STABLE_FOR = 60.0
"""Seconds after a recovery in which a failure is its relapse, unless configured otherwise."""

_DEATHS = frozenset({Problem.SERVICE_DOWN, Problem.PROCESS_DIED})
"""What an end of the process means."""

STRANGERS_LIMIT = 1000
"""Errors of services that nobody has configured which may be open at once, all of these together."""

OTHER_TARGET = "(other)"
"""The target of what services that nobody has configured have to tell above STRANGERS_LIMIT."""

_EVENT = re.compile(r"v[0-9]+\.")

MESSAGE_LIMIT = 500


class Source(StrEnum):
    """Where a signal came from."""

    ALERTMANAGER = "alertmanager"
    RECONCILE = "reconcile"  # asked of Alertmanager by us, because a notification may never arrive
    PERSON = "person"
    EVENT = "event"  # an error that a library or an SDK saw
    QUIET = "quiet"  # said by us, because nobody says that events are over


class Status(StrEnum):
    """Whether the condition behind a signal holds."""

    FIRING = "firing"
    RESOLVED = "resolved"


class ErrorState(StrEnum):
    """What became of an error."""

    PENDING = "pending"
    RECOVERED = "recovered"
    FAILED = "failed"


class Verdict(StrEnum):
    """What was decided about a signal."""

    RUN = "run"
    DEFERRED = "deferred"  # looked at again by the engine's own timer
    REFUSED = "refused"


class Reason(StrEnum):
    """Why nothing ran, or nothing ran yet."""

    COOLDOWN = "cooldown"
    BUDGET = "budget"
    LOCKED = "locked"
    AT_ONCE = "at_once"
    MIN_HEALTHY = "min_healthy"
    PAUSED = "paused"
    APPROVAL_PENDING = "approval_pending"
    APPROVAL_REJECTED = "approval_rejected"
    SILENCED = "silenced"
    DUPLICATE = "duplicate"
    ALREADY_HEALTHY = "already_healthy"
    STALE = "stale"
    PROBER_BLIND = "prober_blind"
    DEPENDENCY_DOWN = "dependency_down"
    NO_PLAYBOOK = "no_playbook"
    UNKNOWN_TARGET = "unknown_target"
    MODE_OFF = "mode_off"
    SHADOW = "shadow"
    TEMPLATE_ERROR = "template_error"
    WARMING_UP = "warming_up"
    ATTEMPTS = "attempts"  # MAX_RECOVERY_ATTEMPTS are used up, or what is left was refused for good
    RESOLVED = "resolved"  # the signal says that it is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One thing that came in: an alert, an event, or a person's request."""

    source: Source
    fingerprint: str
    status: Status
    target: str
    problem: Problem
    severity: Severity
    message: str
    received_at: float  # epoch seconds, our clock
    subject: str = ""  # what of the target it is about, where that tells two errors apart
    count: int = 1  # how many alike it stands for
    event_id: str = ""  # of an event: the same is taken once
    detail: Mapping[str, Any] = field(default_factory=dict)  # of an event: the sample to keep, JSON
    starts_at: float | None = None  # the sender's clock; moves, so nothing is keyed by it
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """One episode of one problem of one subject of one target, as the store keeps it and the API shows it."""

    id: str  # SE_ and 8 hexadecimal digits
    target: str
    problem: Problem
    severity: Severity
    message: str
    first_seen: float
    last_seen: float
    subject: str = ""
    fingerprint: str = ""  # of the signal that came last
    state: ErrorState = ErrorState.PENDING
    open: bool = True  # false once it is over; a failed error stays open while the failure lasts
    signals: int = 1
    attempts: int = 0
    relapses: int = 0
    recovered_at: float | None = None
    recovered_by: str | None = None  # "run", "person" or "itself"
    closed_at: float | None = None
    escalated_at: float | None = None
    escalation_sent: bool = False
    held_reason: Reason | None = None
    held_since: float | None = None
    not_before: float | None = None  # backoff: no further attempt before this
    refused: str | None = None  # why its last run's last rung was refused, and would be again
    mended_at: float | None = None  # when what it is about was mended, while the service was down for itself
    check_at: float | None = None  # when the engine looks at it; None: only a signal wakes it
    approved_by: str | None = None
    approved_until: float | None = None
    rejected_by: str | None = None
    alerted_at: float | None = None  # when the newest alert began, by its sender's clock; only told
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    version: int = 0  # raised by the store at every write

    @property
    def proven_by_probe(self) -> bool:
        """Whether a healthy (for a timeout: and fast) probe disproves it: all of its members.

        It does so for alerts, and of events only for the end of the process. Others have a subject
        (``probed_apart``), so that no error has members of both sorts.
        """
        return not self.subject and probe_proves(self.problem, self.fingerprint, self.labels)

    @property
    def ended(self) -> str | None:
        """How it ended: ``proven`` by probes, ``silence`` without a proof, ``given_up``; None while open."""
        if self.open:
            return None
        if self.state is ErrorState.RECOVERED:
            return "proven"
        return "silence" if self.escalated_at is None else "given_up"

    @property
    def recovery_seconds(self) -> float | None:
        """From first seen to verified; None until then."""
        return None if self.recovered_at is None else max(0.0, self.recovered_at - self.first_seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was done about a signal or at a later look at its error, and why."""

    at: float
    error_id: str | None
    target: str
    cause: str  # the fingerprint of the signal, "timer", or "person"
    verdict: Verdict
    reason: Reason | None = None
    detail: str = ""
    playbook: str | None = None
    run_id: str | None = None
    until: float | None = None  # deferred: when it is looked at again
    times: int = 1  # the same answer in a row is counted, not repeated
    last_at: float | None = None
    id: int | None = None  # given by the store


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Signals of one fingerprint that belong to an error."""

    fingerprint: str
    status: Status
    first_seen: float
    last_seen: float
    times: int  # how often it came; events are counted one by one
    labels: Mapping[str, str]  # of the newest
    detail: Mapping[str, Any]  # of the newest event: its sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Where a signal belongs: the error to write, if any, and the decision already taken, if any."""

    signal: Signal
    error: Error | None
    new: bool = False
    relapse: bool = False  # it opened an error again that had recovered
    decision: Decision | None = None  # None: the engine decides when it looks at the error


def is_event(fingerprint: str) -> bool:
    """Whether a fingerprint is one of an event: these begin with their version, which no alert's does."""
    return _EVENT.match(fingerprint) is not None


def probe_proves(problem: Problem, fingerprint: str, labels: Mapping[str, str]) -> bool:
    """Whether a healthy probe disproves what a signal tells: an alert, or that the process ended."""
    if not is_event(fingerprint):
        return problem in PROVEN_BY_PROBE
    return problem in _DEATHS and labels.get("kind") == Kind.EXIT


def probed_apart(problem: Problem, subject: str, fingerprint: str, kind: str) -> str:
    """Return the subject of an event; what no probe proves is kept apart from alerts of the same problem."""
    if subject or problem not in PROVEN_BY_PROBE or probe_proves(problem, fingerprint, {"kind": kind}):
        return subject
    return fingerprint


def of_a_stranger(signal: Signal) -> Signal:
    """Return the signal as one of all services that nobody has configured; its labels keep the name."""
    labels = {**signal.labels, "target": OTHER_TARGET, "reported_target": signal.target}
    return replace(signal, target=OTHER_TARGET, labels=labels)


def placed(signal: Signal, latest: Error | None, subjects: int) -> Signal:
    """Return the signal, or the same one of the subject ``others`` where its target has too many errors.

    *latest* is the newest error of the signal's target, problem and subject, *subjects* how many errors
    with a subject the target has open.
    """
    own = signal.source is Source.EVENT and signal.subject not in ("", OTHERS)
    if not own or subjects < SUBJECTS_LIMIT or (latest is not None and latest.open):
        return signal
    return replace(signal, subject=OTHERS)


def admit(
    signal: Signal,
    latest: Error | None,
    member: Status | None,
    new_id: str,
    *,
    stable_for: float = STABLE_FOR,
) -> Admission:
    """Find the error a signal belongs to.

    *latest* is the newest error of the signal's target, problem and subject, *member* the last status
    that the same fingerprint had in it, *new_id* the id a new error would get. Idempotent: the same
    signal again changes counts and nothing else.
    """
    if signal.status is Status.RESOLVED:
        return _admit_resolved(signal, latest)
    if latest is not None and latest.open:
        return _join(signal, latest, member)
    late = latest is not None and signal.received_at - (latest.closed_at or 0.0) <= RECHECK_FOR
    if latest is not None and late and _seen(latest, signal).proven_by_probe:
        # Late, re-sent or a relapse: only a fresh probe can tell, and the engine asks for it.
        return Admission(signal=signal, error=replace(_seen(latest, signal), check_at=signal.received_at))
    if latest is not None and late and signal.source is not Source.EVENT:
        return _admit_late_alert(signal, latest, member)
    relapse = latest is not None and signal.received_at - (latest.closed_at or 0.0) <= stable_for
    if latest is not None and relapse and latest.state is ErrorState.RECOVERED:
        # No event is sent twice: it has happened again.
        back = reopen(_seen(latest, signal), signal.received_at)
        return Admission(signal=signal, error=back, relapse=True)
    return Admission(signal=signal, error=open_error(signal, new_id), new=True)


def ended_by_run(signal: Signal, run_id: str, error_id: str | None) -> Admission:
    """Make what is told of a death that a run of ours caused a part of that run's story, and no error."""
    decision = Decision(
        at=signal.received_at,
        error_id=error_id,
        target=signal.target,
        cause=signal.fingerprint,
        verdict=Verdict.REFUSED,
        reason=Reason.DUPLICATE,
        detail="this process was ended by our own repair",
        run_id=run_id,
    )
    return Admission(signal=signal, error=None, decision=decision)


def _admit_late_alert(signal: Signal, latest: Error, member: Status | None) -> Admission:
    if member is Status.FIRING:
        # Its end has not been told yet, so this is the old alert still. What fires for longer than that
        # was not repaired, or its end was never told: a new error.
        decision = _decision(signal, latest, Reason.DUPLICATE, f"the same alert again; {latest.id} is over")
        return Admission(signal=signal, error=_seen(latest, signal), decision=decision)
    return Admission(signal=signal, error=replace(_seen(latest, signal), check_at=signal.received_at))


def open_error(signal: Signal, new_id: str) -> Error:
    """Begin a new episode with *signal* as its first member."""
    begun = _episode(signal, new_id, at=signal.received_at, alerted_at=signal.starts_at)
    return replace(begun, signals=signal.count)


def reopen(error: Error, now: float) -> Error:
    """Make a recovered error pending again: a relapse. Its attempts are kept."""
    return replace(
        error,
        state=ErrorState.PENDING,
        open=True,
        recovered_at=None,
        recovered_by=None,
        rejected_by=None,
        refused=None,
        mended_at=None,
        closed_at=None,
        relapses=error.relapses + 1,
        check_at=now,
    )


def look_again(stored: Error, seen: Error, at: float) -> Error:
    """Have *stored* looked at then, or sooner where somebody has asked for a look since *seen* was read."""
    asked = stored.check_at if stored.check_at != seen.check_at else None
    return replace(stored, check_at=at if asked is None else min(at, asked))


def open_again(error: Error, new_id: str) -> Error:
    """Begin a new episode with the late signal that a closed error took in."""
    return _episode(error, new_id, at=error.last_seen, alerted_at=error.alerted_at)


def _episode(told: Signal | Error, new_id: str, *, at: float, alerted_at: float | None) -> Error:
    """Begin a new episode of what was *told* then."""
    return Error(
        id=new_id,
        target=told.target,
        problem=told.problem,
        subject=told.subject,
        fingerprint=told.fingerprint,
        severity=told.severity,
        message=told.message,
        first_seen=at,
        last_seen=at,
        check_at=at,
        alerted_at=alerted_at,
        labels=told.labels,
        annotations=told.annotations,
    )


def _join(signal: Signal, error: Error, member: Status | None) -> Admission:
    what = "event" if signal.source is Source.EVENT else "alert"
    known = f"the same {what} again" if member is Status.FIRING else f"another {what} of the same problem"
    decision = _decision(signal, error, Reason.DUPLICATE, f"{known}; {error.id} is already open")
    seen = _seen(error, signal)
    if seen.severity is Severity.CRITICAL and error.severity is not Severity.CRITICAL:
        seen = replace(seen, check_at=min(error.check_at or signal.received_at, signal.received_at))
    return Admission(signal=signal, error=seen, decision=decision)


def _admit_resolved(signal: Signal, latest: Error | None) -> Admission:
    if latest is None:
        decision = _decision(signal, None, Reason.STALE, "resolved, but no such error is known")
        return Admission(signal=signal, error=None, decision=decision)
    # "Resolved" is not "recovered": the engine probes before it believes.
    error = replace(latest, check_at=signal.received_at) if latest.open else latest
    what = "nothing of it came in for long" if signal.source is Source.QUIET else "the alert is over"
    decision = _decision(signal, latest, Reason.RESOLVED, f"{what}; a fresh probe decides")
    return Admission(signal=signal, error=error, decision=decision)


_ORDER = list(Severity)


def _seen(error: Error, signal: Signal) -> Error:
    worse = min(error.severity, signal.severity, key=_ORDER.index)
    return replace(
        error,
        last_seen=max(error.last_seen, signal.received_at),
        signals=error.signals + signal.count,
        fingerprint=signal.fingerprint,
        severity=worse,
        message=signal.message,
        alerted_at=signal.starts_at,
        labels=signal.labels,
        annotations=signal.annotations,
    )


def _decision(signal: Signal, error: Error | None, reason: Reason, detail: str) -> Decision:
    return Decision(
        at=signal.received_at,
        error_id=error.id if error else None,
        target=signal.target,
        cause=signal.fingerprint,
        verdict=Verdict.REFUSED,
        reason=reason,
        detail=detail,
    )


def resolved_unheard(error: Error, fingerprint: str, now: float, source: Source = Source.RECONCILE) -> Signal:
    """Stand in for the end of an alert or of events of *error* that nobody told."""
    return Signal(
        source=source,
        fingerprint=fingerprint,
        status=Status.RESOLVED,
        target=error.target,
        problem=error.problem,
        subject=error.subject,
        severity=error.severity,
        message=error.message,
        received_at=now,
        labels=error.labels,
        annotations=error.annotations,
    )
