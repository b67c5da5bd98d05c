"""From an error that a library or an SDK saw to a signal. Pure: the clock is an argument.

The event is redacted once more here, whatever its sender promised, and nothing of it is used before.
"""

import json
from collections.abc import Mapping
from typing import Any

from remediator.rhythm import Rhythm
from remediator.signals import MESSAGE_LIMIT, Signal, Source, Status, probed_apart
from soulfra_monitor.classify import classify
from soulfra_monitor.events import Event
from soulfra_monitor.fingerprint import fingerprint, subject
from soulfra_monitor.redaction import redact_event
from soulfra_monitor.wire import write_event

SAMPLE_LIMIT = 32 * 1024
"""Bytes of JSON that are kept of the newest event of a fingerprint."""

LABEL_LENGTH = 512
TARGET_LENGTH = 200

_FACTS = (
    "errno",
    "path",
    "peer",
    "url",
    "status",
    "exit_code",
    "signal",
    "seconds",
    "limit",
    "value",
    "method",
)
"""The facts that playbooks can match and use; all others stay in the sample."""

_NOT_SAMPLED = ("service", "count", "severity", "problem", "fingerprint")
_LEFT_OUT = "left out: more than is kept"


def signal_of_event(event: Event, now: float, rhythm: Rhythm | None = None) -> Signal:
    """Return the signal of an event that came in at *now*: redacted, classified, with its sample.

    *rhythm* knows what came in before; it is asked and not told.
    """
    clean = redact_event(event)
    target, print_ = clean.service[:TARGET_LENGTH] or "unknown", fingerprint(clean)
    found = classify(clean, rhythm.history(target, print_, clean.count, now) if rhythm else None)
    message = _message(clean)
    return Signal(
        source=Source.EVENT,
        fingerprint=print_,
        status=Status.FIRING,
        target=target,
        problem=found.problem,
        subject=probed_apart(found.problem, subject(clean, found.problem), print_, clean.kind.value),
        severity=found.severity,
        message=message[:MESSAGE_LIMIT],
        received_at=now,
        count=max(1, clean.count),
        event_id=clean.id,
        detail=_sample(clean, found.reasons),
        starts_at=clean.at,
        labels={
            **{key: _text(clean.facts[key]) for key in _FACTS if key in clean.facts},
            **({"exception": _text(clean.raised[0].type)} if clean.raised else {}),
            **({"release": _text(clean.release)} if clean.release else {}),
            "target": target,
            "problem": found.problem.value,
            "severity": found.severity.value,
            "kind": clean.kind.value,
            "handled": "true" if clean.handled else "false",
            "origin": "event",
        },
    )


def _message(event: Event) -> str:
    told = event.raised[0].type if event.raised else ""
    return event.message if not told or told in event.message else f"{told}: {event.message}"


def _text(value: object) -> str:
    return str(value)[:LABEL_LENGTH]


def _sample(event: Event, reasons: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what is kept of the event; what helps least is left out first until it fits."""
    written = {key: value for key, value in write_event(event).items() if key not in _NOT_SAMPLED}
    sample = {**written, "reasons": list(reasons)}
    for key in ("context", "system", "raised", "facts"):
        if len(json.dumps(sample)) <= SAMPLE_LIMIT:
            break
        if key in sample:
            sample[key] = {"missing": _LEFT_OUT} if key != "raised" else sample["raised"][:1]
    return sample if len(json.dumps(sample)) <= SAMPLE_LIMIT else {"id": event.id, "missing": _LEFT_OUT}
