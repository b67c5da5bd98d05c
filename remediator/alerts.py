"""Reads alerts as Alertmanager tells them, by its webhook and by its API. Pure: values in, values out.

Labels and annotations are strangers' text: bounded in number and length, and redacted.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from remediator.signals import MESSAGE_LIMIT, Signal, Source, Status
from soulfra_monitor.problems import Problem, Severity
from soulfra_monitor.redaction import redact_value

LABEL_LIMIT = 64
TEXT_LIMIT = 4096

_DECIDING = frozenset(
    {"alertname", "target", "instance", "problem", "severity", "impact", "origin", "summary", "description"}
)
"""The labels and annotations that a signal is made from."""


class SignalError(ValueError):
    """A notification that is not Alertmanager's webhook format; nothing of it was taken."""


def parse_webhook(payload: Any, now: float) -> list[Signal]:
    """Read an Alertmanager webhook (version 4). Unknown fields are ignored.

    Raises SignalError when the payload as a whole is not that format. A single alert that cannot be
    read becomes a signal of problem ``other`` rather than a reason to refuse its neighbours.
    """
    if not isinstance(payload, dict):
        raise SignalError("the body must be a JSON object as Alertmanager's webhook sends it")
    alerts = payload.get("alerts")
    if not isinstance(alerts, list):
        raise SignalError("the body has no list 'alerts'; a custom webhook payload is not supported")
    for index, alert in enumerate(alerts):
        if not isinstance(alert, dict) or not isinstance(alert.get("labels"), dict):
            raise SignalError(f"alerts[{index}] has no 'labels'")
    return [signal_of_alert(alert, now, Source.ALERTMANAGER) for alert in alerts]


def signal_of_alert(alert: Mapping[str, Any], now: float, source: Source) -> Signal:
    """Read one alert of a webhook or of Alertmanager's API; each alert has its own status."""
    given = _texts(alert.get("labels"))
    labels = redact_value(given)
    annotations = redact_value(_texts(alert.get("annotations")))
    message = annotations.get("description") or annotations.get("summary") or labels.get("alertname", "alert")
    return Signal(
        source=source,
        fingerprint=_text(alert.get("fingerprint") or fingerprint_of(given)),
        status=Status.RESOLVED if alert.get("status") == Status.RESOLVED else Status.FIRING,
        target=labels.get("target") or labels.get("instance") or "unknown",
        problem=Problem.of(labels.get("problem")),
        severity=Severity.of_alert(labels.get("severity"), labels.get("impact")),
        message=message[:MESSAGE_LIMIT],
        received_at=now,
        starts_at=_timestamp(alert.get("startsAt")),
        labels=labels,
        annotations=annotations,
    )


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Name a label set; stands in where the sender gives no fingerprint of its own."""
    import hashlib  # noqa: PLC0415 - rarely needed

    text = "\x00".join(f"{key}\x01{labels[key]}" for key in sorted(labels))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    # What decides comes first: the limit on their number must not cut it off.
    items = sorted(value.items(), key=lambda item: item[0] not in _DECIDING)
    return {_text(key): _text(item) for key, item in items[:LABEL_LIMIT]}


def _text(value: object) -> str:
    # JSON may carry half a surrogate pair, which no store can write: it would come back for ever.
    return str(value)[:TEXT_LIMIT].encode("utf-8", "replace").decode("utf-8")


def _timestamp(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError):
        return None
