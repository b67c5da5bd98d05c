"""What is wrong, and how bad it is: the same answer each time for the same event, with the reasons.

In this order: what the kind alone says for certain, the exceptions from their root, the system's error code,
the sender's opinion, the message, and last what the kind usually means. ``meanings`` has the tables.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

from soulfra_monitor.events import Event, Kind, Raised, Relation
from soulfra_monitor.meanings import (
    ANY_PACKAGE,
    BUILTIN,
    CERTAIN,
    CODE,
    CODES,
    DATABASE,
    DENIED,
    EXPIRED,
    FULL,
    LEFT,
    MEMORY,
    MESSAGE_LENGTH,
    PLAIN_FAULTS,
    QUOTA,
    SWALLOWED,
    TEXTS,
    TLS,
    TYPES,
    UNHANDLED,
    UNREACHED,
    USUAL,
    Meaning,
    Weight,
)
from soulfra_monitor.problems import Problem, Severity

RATE_LEAST, RATE_FACTOR = 10, 5.0
"""Events in 5 minutes from which on, and times the usual number above which, there are many of them."""

SPREAD_LEAST = 3
AT_ONCE_LEAST = 100
RAISED_MOST = 2
"""Steps that history can raise a severity by, all together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The judgement of one event; ``reasons`` are short sentences for people."""

    problem: Problem
    severity: Severity
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the receiver knows about events of the same fingerprint."""

    recent: int = 0  # in the last 5 minutes
    usual: float = 0.0  # in 5 minutes
    callers: int = 0  # different ones that were hurt
    new_after_release: bool = False  # not seen before the version that runs now
    recovery_failed: bool = False


_STATEMENT = re.compile(
    r"no such (?:table|column|function)|syntax error|unknown column|does not exist|doesn't exist",
    re.IGNORECASE,
)
_READ_ONLY = re.compile(r"readonly database|unable to open database file", re.IGNORECASE)
_EXPIRED_TEXT = re.compile(r"certificate (?:has |is )?expired", re.IGNORECASE)
_LOSS = re.compile(r"\bdata (?:loss|was lost|corruption)\b|\bcorrupt(?:ed|ion)?\b", re.IGNORECASE)

_SERVED = frozenset({Kind.REDIS, Kind.DATABASE})
"""Kinds that name who does not serve, whatever the connection failed of."""

_SERIOUS = frozenset({"ERROR", "CRITICAL", "FATAL"})
"""Levels of a log at which an error is one."""

_STEPS = (Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)
_LOW, _MEDIUM, _HIGH, _CRITICAL = range(len(_STEPS))

_BY_KIND = {
    Kind.EXIT: _CRITICAL,
    Kind.UNCAUGHT: _HIGH,
    Kind.THREAD: _HIGH,
    Kind.FUTURE: _HIGH,
    Kind.TASK: _HIGH,
    Kind.CALLBACK: _HIGH,
    Kind.NEVER_AWAITED: _HIGH,
    Kind.REJECTION: _HIGH,
    Kind.HUNG: _HIGH,
    Kind.UNRAISABLE: _MEDIUM,
    Kind.ATEXIT: _MEDIUM,
    Kind.LOGGED: _MEDIUM,
    Kind.METHOD: _MEDIUM,
    Kind.RETURNED: _MEDIUM,
    Kind.CHILD: _MEDIUM,
    Kind.REPORTED: _MEDIUM,
}
"""Others are low by kind."""

_BY_PROBLEM = {
    Problem.DISK_FULL: _CRITICAL,
    Problem.MEMORY_PRESSURE: _CRITICAL,
    Problem.HANDLE_EXHAUSTION: _CRITICAL,
    Problem.REDIS_UNAVAILABLE: _HIGH,
    Problem.DATABASE_UNAVAILABLE: _HIGH,
    Problem.STATE_INCONSISTENT: _HIGH,
    Problem.QUEUE_STUCK: _HIGH,
    Problem.TLS_EXPIRY: _HIGH,
    Problem.SERVICE_DOWN: _CRITICAL,
    Problem.PERMISSION_DENIED: _MEDIUM,
    Problem.MISSING_FILE: _MEDIUM,
    Problem.CONNECTION_REFUSED: _MEDIUM,
    Problem.NETWORK_TIMEOUT: _MEDIUM,
    Problem.SERVICE_TIMEOUT: _MEDIUM,
    Problem.SERVICE_DEGRADED: _MEDIUM,
    Problem.DEPENDENCY_FAILURE: _MEDIUM,
    Problem.PROVIDER_QUOTA: _MEDIUM,
    Problem.LOOP_BLOCKED: _MEDIUM,
    Problem.MEMORY_LEAK: _MEDIUM,
    Problem.PROCESS_DIED: _MEDIUM,
    Problem.STALE_LOCK: _MEDIUM,
    Problem.HEARTBEAT_MISSED: _MEDIUM,
}
"""Others are low by problem."""

_APPROACHING = frozenset({Kind.HANDLES, Kind.THREADS, Kind.MEMORY})
"""These tell before the limit is reached: a step lower."""

_SOFTENED = frozenset(
    {
        Kind.SWALLOWED,
        Kind.METHOD,
        Kind.HTTP,
        Kind.HTTP_STATUS,
        Kind.REDIS,
        Kind.DATABASE,
        Kind.FILE,
        Kind.REPORTED,
    }
)
"""Where ``handled`` says that somebody had an answer. Elsewhere it only says that the process lived on."""

_KILLED = range(129, 160)
"""What a shell, or process 1 of a container, ends with for a program that a signal killed."""

_OPINIONS = {
    "fatal": _CRITICAL,
    "critical": _CRITICAL,
    "error": _HIGH,
    "high": _HIGH,
    "warning": _MEDIUM,
    "warn": _MEDIUM,
    "medium": _MEDIUM,
    "log": _LOW,
    "info": _LOW,
    "debug": _LOW,
    "low": _LOW,
}


def classify(event: Event, history: History | None = None) -> Classification:
    """Judge *event*. Never raises; what nothing is known about is ``other``."""
    problem, why = _problem(event)
    severity, reasons = _severity(event, problem, history or History())
    return Classification(problem=problem, severity=_STEPS[severity], reasons=(*why, *reasons))


def _problem(event: Event) -> tuple[Problem, tuple[str, ...]]:
    """Return the first answer of the order above."""
    opinion = Problem(event.problem) if event.problem in Problem._value2member_map_ else None
    for answer in _answers(event, opinion):
        if answer is not None:
            problem, reason = answer
            break
    else:
        problem, reason = Problem.OTHER, f"Nothing known is like it (kind {event.kind})."
    if opinion is None or opinion is problem or reason.startswith("The sender"):
        return problem, (reason,)
    return problem, (reason, f"The sender calls it {opinion}.")


def _answers(event: Event, opinion: Problem | None) -> Iterator[tuple[Problem, str] | None]:
    yield _by_certainty(event)
    yield _by_types(event)
    yield _by_code(event)
    if opinion is not None:
        yield opinion, f"The sender calls it {opinion}."
    yield _by_kind_if_telling(event)
    yield _by_message(event)
    yield _told(_usual(event), f"Kind {event.kind}")


def _by_certainty(event: Event) -> tuple[Problem, str] | None:
    if event.kind is Kind.HTTP_STATUS and str(event.facts.get("status")) == "429":
        return _told(QUOTA, "Status 429")
    if event.kind is Kind.MEMORY and _is_near_limit(event):
        return _told(MEMORY, "Nine tenths of the limit are in use")
    return _told(CERTAIN.get(event.kind), f"Kind {event.kind}")


def _is_near_limit(event: Event) -> bool:
    value, limit = event.facts.get("value"), event.facts.get("limit")
    return isinstance(value, int | float) and isinstance(limit, int | float) and 0 < 0.9 * limit <= value


def _by_types(event: Event) -> tuple[Problem, str] | None:
    """Ask the exception and its causes, root first; what it was raised while handling only then."""
    near, far = _near_and_far(event.raised)
    best = _weightiest(near)
    if best is None or best[1].weight is Weight.VAGUE:
        better = _weightiest(far)
        best = better if better is not None and better[1].weight > Weight.VAGUE else best
    if best is None:
        return None
    raised, meaning = best
    if event.kind in _SERVED and meaning is not CODE:
        return _told(USUAL[event.kind], raised.type)
    return _told(meaning if meaning.problem else _unhandled_or_swallowed(event), raised.type, meaning)


def _near_and_far(chain: tuple[Raised, ...]) -> tuple[list[Raised], list[Raised]]:
    """Part the chain after the causes of what was seen; the near part from its root."""
    own = 0
    while own < len(chain) and chain[own].relation in (Relation.RAISED, Relation.CAUSE):
        own += 1
    return list(reversed(chain[:own])), list(chain[own:])


def _weightiest(chain: list[Raised]) -> tuple[Raised, Meaning] | None:
    known = [(raised, meaning) for raised in chain if (meaning := _meaning(raised)) is not None]
    return max(known, key=lambda item: item[1].weight, default=None)  # the first of equals


def _meaning(raised: Raised) -> Meaning | None:
    package, name = library(raised.type), raised.type.rpartition(".")[2]
    meaning = TYPES.get((package, name)) or TYPES.get((ANY_PACKAGE, name))
    if meaning is DATABASE:
        return _meaning_of_statement(raised.message)
    if meaning is TLS and _EXPIRED_TEXT.search(raised.message[:MESSAGE_LENGTH]):
        return EXPIRED
    if meaning is UNREACHED:
        return _by_text(raised.message) or meaning
    if name == "OSError" and not package:
        return _by_text(raised.message)
    return meaning


def _meaning_of_statement(message: str) -> Meaning:
    """Tell what drivers call operational and is none of the server's fault."""
    text = message[:MESSAGE_LENGTH]
    if "is full" in text:
        return FULL
    if _READ_ONLY.search(text):
        return DENIED
    return CODE if _STATEMENT.search(text) and "database" not in text else DATABASE


def _by_code(event: Event) -> tuple[Problem, str] | None:
    for key in ("errno", "code"):
        name = _code_name(event.facts.get(key))
        if name in CODES:
            served = event.kind in _SERVED
            return _told(USUAL[event.kind] if served else CODES[name], name)
    return None


def _code_name(value: str | float | None) -> str:
    if isinstance(value, str) and not value.lstrip("-").isdecimal():
        return value
    try:
        return errno.errorcode.get(abs(int(value or 0)), "")
    except (ValueError, OverflowError):
        return ""


def _by_kind_if_telling(event: Event) -> tuple[Problem, str] | None:
    """Take the kind at its word where the message is a fault's of code: ``timeout must not be negative``."""
    telling = event.raised and event.raised[0].type in PLAIN_FAULTS
    return _told(_usual(event), f"Kind {event.kind}") if telling else None


def _by_message(event: Event) -> tuple[Problem, str] | None:
    return _told(_by_text(event.message), "By its message")


def _by_text(message: str) -> Meaning | None:
    text = message[:MESSAGE_LENGTH]
    return next((meaning for pattern, meaning in TEXTS if pattern.search(text)), None)


def _usual(event: Event) -> Meaning | None:
    if event.kind is Kind.METHOD:
        return _unhandled_or_swallowed(event)
    return LEFT if _is_left(event) else USUAL.get(event.kind)


def _is_left(event: Event) -> bool:
    """Tell whether only a framework has caught, and logged, what the program's own code raised.

    A traceback begins where the exception was caught: there in a library, and further in in the program.
    """
    if event.kind is not Kind.LOGGED or not event.raised or event.context.get("level") not in _SERIOUS:
        return False
    frames = event.raised[0].frames
    return bool(frames) and not frames[0].in_app and any(frame.in_app for frame in frames)


def _unhandled_or_swallowed(event: Event) -> Meaning:
    usual = LEFT if _is_left(event) else USUAL.get(event.kind)
    if usual is not None and usual.problem in (Problem.UNCAUGHT_EXCEPTION, Problem.UNHANDLED_REJECTION):
        return usual
    return SWALLOWED if event.handled else UNHANDLED


def _told(meaning: Meaning | None, what: str, said: Meaning | None = None) -> tuple[Problem, str] | None:
    if meaning is None or meaning.problem is None:
        return None
    return meaning.problem, f"{what}: {(said or meaning).says}."


def library(type_name: str) -> str:
    """Return the package that a type is from; ``""`` for what is built in."""
    package, dot, _ = type_name.partition(".")
    return package if dot and package != "builtins" else BUILTIN


def _severity(event: Event, problem: Problem, history: History) -> tuple[int, list[str]]:
    step, reasons = _base(event, problem)
    if event.handled and event.kind in _SOFTENED and step > _LOW:
        step -= 1
        reasons.append("The program went on: a step lower.")
    if _LOSS.search(event.message[:MESSAGE_LENGTH]) and step < _HIGH:
        step = _HIGH
        reasons.append("Data may be lost: at least high.")
    step = _heed(event, step, reasons)
    raising = [*_raising(event, history)][:RAISED_MOST]
    most = _HIGH if problem is Problem.SWALLOWED_ERROR or _is_plain_exit(event) else _CRITICAL
    for reason in raising:
        if step < most:
            step += 1
            reasons.append(f"{reason}: a step higher.")
    return step, reasons


def _base(event: Event, problem: Problem) -> tuple[int, list[str]]:
    by_kind, by_problem = _BY_KIND.get(event.kind, _LOW), _BY_PROBLEM.get(problem, _LOW)
    if event.kind in _APPROACHING:
        by_problem = max(by_problem - 1, _MEDIUM)
    if _is_uncertain(event):
        by_kind = min(by_kind, _MEDIUM)
    if _is_plain_exit(event):
        return _HIGH, ["The program ended by itself, with a status that says failure: counts as high."]
    if _is_left(event) and by_problem <= _HIGH:
        return _HIGH, ["A request or a job failed that the program had no answer for: high."]
    if by_kind > by_problem:
        return by_kind, [f"Kind {event.kind} counts as {_STEPS[by_kind]}."]
    return by_problem, [f"{problem} counts as {_STEPS[by_problem]}."]


def _is_plain_exit(event: Event) -> bool:
    """Whether a program ran to its end and said that it failed, as tools do: nobody killed it."""
    code = event.facts.get("exit_code")
    if event.kind is not Kind.EXIT or not isinstance(code, int) or event.facts.get("signal"):
        return False
    return code not in _KILLED and not event.context.get("at_once")


def _is_uncertain(event: Event) -> bool:
    """Tell whether it may come right by itself: an error that may yet be asked for, a lock yet released."""
    if event.kind in (Kind.FUTURE, Kind.TASK):
        return bool(event.facts.get("held"))
    return event.kind is Kind.HUNG and event.facts.get("lock") == "alone"


def _heed(event: Event, step: int, reasons: list[str]) -> int:
    """Move towards the sender's opinion: all the way for what only the sender knows, else one step."""
    opinion = _OPINIONS.get(event.severity.lower())
    if opinion is None or opinion == step:
        return step
    known = event.kind is not Kind.REPORTED or event.raised
    moved = step + (1 if opinion > step else -1) if known else opinion
    reasons.append(f"The sender calls it {event.severity[:16].lower()}: {_STEPS[moved]}.")
    return moved


def _raising(event: Event, history: History) -> Iterator[str]:
    if history.recovery_failed:
        yield "A recovery of it has failed"
    if history.recent >= max(RATE_LEAST, RATE_FACTOR * history.usual):
        yield f"{history.recent} in 5 minutes, usually {history.usual:g}"
    elif event.count >= AT_ONCE_LEAST:
        yield f"{event.count} at once"
    if history.callers >= SPREAD_LEAST:
        yield f"{history.callers} callers are hurt"
    if history.new_after_release:
        yield "New since the last release"
