"""Tells people. Bounded in time, redacted, and silent about addresses, because those are secrets."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remediator.alertmanager import ESCALATION, AlertmanagerUnreachable, post_alerts, rfc3339
from remediator.calls import CallError, call
from remediator.config import Channel
from soulfra_monitor.problems import Problem, Severity
from soulfra_monitor.redaction import redact, redact_value

log = logging.getLogger(__name__)

SLACK = "slack"
SLACK_VARIABLE = "ERROR_WEBHOOK_URL"
TIME_LIMIT = 5.0
TEXT_LIMIT = 3000
RUNBOOK = f"docs/runbooks/{ESCALATION}.md"
_ALERT_LASTS = 3600.0
_PAUSES = (0.3, 0.9)  # before the second and the third try

# Alertmanager's routes speak Prometheus's scale.
_ALERT_SEVERITY = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "warning",
    Severity.MEDIUM: "warning",
    Severity.LOW: "info",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What people are told."""

    subject: str
    text: str
    severity: Severity
    target: str
    problem: Problem
    error_id: str | None = None
    run_id: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    url: str | None = None  # where to read more
    kind: str = "escalation"  # or "approval": what Alertmanager must not take for the same


class _DeliveryError(Exception):
    """The channel did not take it."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class Notifier:
    """The configured channels, and ``slack`` when ERROR_WEBHOOK_URL is set."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        alertmanagers: Iterable[str],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._channels = dict(channels)
        self._alertmanagers = tuple(alertmanagers)
        self._environment = environment
        if environment.get(SLACK_VARIABLE):
            self._channels.setdefault(SLACK, Channel(webhook_env=SLACK_VARIABLE))

    @property
    def direct(self) -> tuple[str, ...]:
        """The channels that do not need Alertmanager."""
        return tuple(name for name, channel in self._channels.items() if not channel.alertmanager)

    def reached_people(self, results: Mapping[str, str | None]) -> bool:
        """Whether a channel took it that somebody hears; the log counts where nothing else is configured."""
        heard = {name: why for name, why in results.items() if not self._is_log(name)} or results
        return any(why is None for why in heard.values())

    def _is_log(self, name: str) -> bool:
        channel = self._channels.get(name)
        return channel is not None and bool(channel.log)

    def escalate(self, names: Iterable[str], notification: Notification) -> dict[str, str | None]:
        """Tell the named channels, and the one of ERROR_WEBHOOK_URL too when there is one."""
        extra = (SLACK,) if self._environment.get(SLACK_VARIABLE) else ()
        return self.send((*names, *extra), notification)

    def send(self, names: Iterable[str], notification: Notification) -> dict[str, str | None]:
        """Tell the named channels at the same time, within 5 seconds.

        Returns per channel None, or why it did not take it, without addresses. Never raises.
        """
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - notifications are rare

        clean = _redacted(notification)
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return {}
        deadline = time.monotonic() + TIME_LIMIT
        with ThreadPoolExecutor(max_workers=len(wanted), thread_name_prefix="notify") as pool:
            results = pool.map(lambda name: self._deliver(name, clean, deadline), wanted)
            return dict(zip(wanted, results, strict=True))

    def _deliver(self, name: str, notification: Notification, deadline: float) -> str | None:
        channel = self._channels.get(name)
        if channel is None:
            return "there is no such channel"
        try:
            _insist(lambda left: self._tell(channel, notification, left), deadline)
        except _DeliveryError as error:
            log.warning("channel %s did not take a notification: %s", name, error)
            return redact(str(error))
        return None

    def _tell(self, channel: Channel, notification: Notification, timeout: float) -> None:
        if channel.log:
            _tell_log(notification)
        elif channel.alertmanager:
            _tell_alertmanagers(self._alertmanagers, notification, timeout)
        else:
            _tell_webhook(self._address(channel), notification, timeout)

    def _address(self, channel: Channel) -> str:
        address = channel.webhook or self._environment.get(channel.webhook_env or "", "")
        if not address:
            raise _DeliveryError(f"the variable {channel.webhook_env} is not set", permanent=True)
        return address


def _insist(tell: Callable[[float], None], deadline: float) -> None:
    """Try until it is taken, refused for good, or out of tries or time."""
    for pause in _PAUSES:
        try:
            return tell(max(0.1, deadline - time.monotonic()))
        except _DeliveryError as error:
            if error.permanent or time.monotonic() + pause >= deadline:
                raise
            time.sleep(pause)
    return tell(max(0.1, deadline - time.monotonic()))


def _redacted(notification: Notification) -> Notification:
    return Notification(
        subject=redact(notification.subject),
        text=redact(notification.text)[:TEXT_LIMIT],
        severity=notification.severity,
        target=notification.target,
        problem=notification.problem,
        error_id=notification.error_id,
        kind=notification.kind,
        run_id=notification.run_id,
        evidence=redact_value(notification.evidence),
        url=redact(notification.url) if notification.url else None,
    )


def _tell_log(notification: Notification) -> None:
    level = logging.WARNING if notification.severity in (Severity.CRITICAL, Severity.HIGH) else logging.INFO
    log.log(level, "%s: %s", notification.subject, " ".join(notification.text.split()))


def _tell_webhook(address: str, notification: Notification, timeout: float) -> None:
    try:
        answer = call("POST", address, timeout=timeout, json_body=_as_json(notification))
    except CallError as error:
        raise _DeliveryError(str(error), permanent=error.permanent) from error
    if not answer.ok:
        # The body of the answer may echo the address, so that only the status is told.
        raise _DeliveryError(f"status {answer.status}", permanent=answer.refused)


def _as_json(notification: Notification) -> dict[str, Any]:
    more = f"\n{notification.url}" if notification.url else ""
    return {
        "text": f"{notification.subject}\n{notification.text}{more}",  # what Slack and its like show
        "subject": notification.subject,
        "severity": notification.severity,
        "target": notification.target,
        "problem": notification.problem,
        "error_id": notification.error_id,
        "run_id": notification.run_id,
        "evidence": notification.evidence,
        "url": notification.url,
    }


def _tell_alertmanagers(urls: tuple[str, ...], notification: Notification, timeout: float) -> None:
    now = time.time()
    alert = {
        "labels": {
            "alertname": ESCALATION,
            "target": notification.target,
            "problem": notification.problem,
            "severity": _ALERT_SEVERITY[notification.severity],
            # Alertmanager tells of an alert again only when its labels are new: each error is one of its own.
            "kind": notification.kind,
            **({"error_id": notification.error_id} if notification.error_id else {}),
        },
        "annotations": {
            "summary": notification.subject,
            "description": notification.text,
            "run_id": notification.run_id or "",
            "runbook_url": RUNBOOK,
        },
        "startsAt": rfc3339(now),
        "endsAt": rfc3339(now + _ALERT_LASTS),
        **({"generatorURL": notification.url} if notification.url else {}),
    }
    try:
        post_alerts(urls, [alert], timeout)
    except AlertmanagerUnreachable as error:
        raise _DeliveryError(str(error)) from error
