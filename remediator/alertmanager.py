"""Asks Alertmanager what is firing and what is silenced. Several are one: their answers are merged."""

import logging
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from remediator.calls import CallError, call

log = logging.getLogger(__name__)

ESCALATION = "SoulfraEscalation"
"""The name of our own call for a person; it is never a signal."""

_QUERY = [
    ("active", "true"),
    ("silenced", "false"),
    ("inhibited", "false"),
    ("filter", 'problem=~".+"'),
    ("filter", f'alertname!="{ESCALATION}"'),
]


class AlertmanagerUnreachable(Exception):  # noqa: N818 - named for what it says
    """None of the Alertmanagers gave a usable answer."""


def active_alerts(urls: Iterable[str], timeout: float) -> list[dict[str, Any]]:
    """Return the alerts with a problem that fire now, in the shape of a webhook's alerts.

    An alert that several Alertmanagers know comes once. Raises AlertmanagerUnreachable when none answers.
    """
    merged: dict[str, dict[str, Any]] = {}
    for answer in _ask_all(urls, "/api/v2/alerts", _QUERY, timeout):
        for alert in answer:
            if isinstance(alert, dict) and isinstance(alert.get("labels"), dict):
                merged.setdefault(str(alert.get("fingerprint")), _as_webhook(alert))
    return list(merged.values())


def held_fingerprints(urls: Iterable[str], timeout: float) -> frozenset[str]:
    """Return the fingerprints of all alerts that any Alertmanager holds, silenced and inhibited ones too.

    Raises AlertmanagerUnreachable when one of them does not answer: it may hold what the others do not.
    """
    addresses = list(urls)
    answers = _ask_all(addresses, "/api/v2/alerts", [], timeout)
    if len(answers) < len(addresses):
        raise AlertmanagerUnreachable(f"{len(addresses) - len(answers)} of {len(addresses)} do not answer")
    return frozenset(
        str(alert.get("fingerprint")) for answer in answers for alert in answer if isinstance(alert, dict)
    )


def silence_for(urls: Iterable[str], labels: Mapping[str, str], timeout: float) -> str | None:
    """Return who silenced these labels and why, or None. Raises AlertmanagerUnreachable when none answers."""
    for answer in _ask_all(urls, "/api/v2/silences", [], timeout):
        for silence in answer:
            if isinstance(silence, dict) and _is_active(silence) and _covers(silence, labels):
                return (
                    f"{silence.get('comment') or 'no comment'} (by {silence.get('createdBy') or 'unknown'})"
                )
    return None


def _as_webhook(alert: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint")
    return {"status": "firing", **{key: alert[key] for key in kept if key in alert}}


def _is_active(silence: Mapping[str, Any]) -> bool:
    status = silence.get("status")
    return isinstance(status, Mapping) and status.get("state") == "active"


def _covers(silence: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    matchers = silence.get("matchers")
    return isinstance(matchers, list) and bool(matchers) and all(_matches(one, labels) for one in matchers)


def _matches(matcher: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(str(matcher.get("name")), "")  # to Alertmanager a missing label is an empty one
    wanted = str(matcher.get("value", ""))
    if not matcher.get("isRegex"):
        return (value == wanted) is (matcher.get("isEqual") is not False)
    try:
        found = re.fullmatch(wanted, value) is not None
    except re.error:
        log.warning("a silence has the pattern %r, which cannot be read here; it is taken to match", wanted)
        return True  # a person wanted quiet: in doubt nothing is done
    return found is (matcher.get("isEqual") is not False)


def _ask_all(
    urls: Iterable[str], path: str, fields: list[tuple[str, str]], timeout: float
) -> list[list[Any]]:
    """Ask all at once; return the answers of those that answered."""
    addresses = list(urls)
    answers: list[list[Any]] = []
    reasons: list[str] = []
    with ThreadPoolExecutor(max_workers=max(1, len(addresses)), thread_name_prefix="alertmanager") as pool:
        for index, answer in enumerate(pool.map(lambda url: _ask(url + path, fields, timeout), addresses)):
            if isinstance(answer, list):
                answers.append(answer)
            else:
                reasons.append(f"alertmanagers[{index}]: {answer}")
    if not answers:
        raise AlertmanagerUnreachable("; ".join(reasons) or "no Alertmanager is configured")
    for reason in reasons:
        log.warning("%s", reason)
    return answers


def _ask(url: str, fields: list[tuple[str, str]], timeout: float) -> list[Any] | str:
    try:
        answer = call("GET", url, timeout=timeout, fields=fields)
        found = answer.json() if answer.ok else None
    except CallError as error:
        return str(error)
    return found if isinstance(found, list) else f"status {answer.status} without a list"


def post_alerts(urls: Iterable[str], alerts: list[dict[str, Any]], timeout: float) -> None:
    """Tell every Alertmanager; one that takes the alerts is enough. Raises AlertmanagerUnreachable."""
    addresses = list(urls)
    with ThreadPoolExecutor(max_workers=max(1, len(addresses)), thread_name_prefix="alertmanager") as pool:
        results = list(pool.map(lambda url: _post(f"{url}/api/v2/alerts", alerts, timeout), addresses))
    reasons = [f"alertmanagers[{index}]: {reason}" for index, reason in enumerate(results) if reason]
    if len(reasons) == len(addresses):
        raise AlertmanagerUnreachable("; ".join(reasons) or "no Alertmanager is configured")
    for reason in reasons:
        log.warning("%s", reason)


def _post(url: str, alerts: list[dict[str, Any]], timeout: float) -> str | None:
    try:
        answer = call("POST", url, timeout=timeout, json_body=alerts)
    except CallError as error:
        return str(error)
    return None if answer.ok else f"status {answer.status}: {answer.text(200)}"


def rfc3339(seconds: float) -> str:
    """Write a time as Alertmanager reads it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
