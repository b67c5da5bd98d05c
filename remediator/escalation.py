"""Calls people: once per error, with the evidence."""

from dataclasses import replace
from typing import Any

from remediator.call_limit import WINDOW
from remediator.notify import Notification
from remediator.playbook import Playbook
from remediator.runner import Tools, change_error, take_evidence
from remediator.signals import Error, ErrorState, look_again
from remediator.store import ErrorQuery, RunQuery
from soulfra_monitor.problems import Problem, Severity

WATCH = 15.0
"""Seconds between looks at an error that only waits for its end."""

STRANGER_WATCH = 600.0
"""The same of a service that nobody has configured: only what comes in can change anything about it."""

_SEEN_FOR = 86400.0  # seconds since an error was seen last; people may have been called for it lately
_RECALLED = 10_000  # errors at most


def watch_seconds(tools: Tools, target: str) -> float:
    """Return the time between looks at an error that only waits for its end."""
    return WATCH if target in tools.services else STRANGER_WATCH


def escalate(tools: Tools, error: Error, playbook: Playbook | None, why: str, *, give_up: bool) -> None:
    """Call people once per error, and give the error up if *give_up*.

    Above the limit on calls the error is left to the next summary (``tell_withheld``). The mark is
    written first, so that a crash in between tells twice rather than never.
    """
    now = tools.clock()

    def mark(old: Error) -> Error:
        marked = replace(old, escalated_at=old.escalated_at or now)
        again = now + watch_seconds(tools, error.target)
        return look_again(replace(marked, state=ErrorState.FAILED), error, again) if give_up else marked

    current = change_error(tools.store, error.id, mark)
    if current is None or current.escalation_sent:
        return
    critical = current.severity is Severity.CRITICAL
    if not tools.call_limit.take(now, configured=error.target in tools.services, critical=critical):
        tools.metrics.escalations.labels("summarised").inc()
        change_error(tools.store, error.id, lambda old: replace(old, escalation_sent=True))
        return
    tools.feed("escalate", f"{error.target} {error.problem}: {why} [{error.id}]")
    told = notify(tools, error, playbook, f"{error.target} {error.problem} needs a person: {why}")
    tools.metrics.escalations.labels("told" if told else "untold").inc()
    if told:
        change_error(tools.store, error.id, lambda old: replace(old, escalation_sent=True))


def recall_calls(tools: Tools, now: float) -> None:
    """Take the calls of the last life into account, as if they were made now in their order.

    Those that were withheld are told in a summary, maybe once more: who could have told them is gone.
    """
    recent = tools.store.find_errors(ErrorQuery(since=now - _SEEN_FOR, limit=_RECALLED))
    calls = [(error.escalated_at or 0.0, error) for error in recent if error.escalation_sent]
    for at, error in sorted(calls, key=lambda call: call[0]):
        if at > now - WINDOW:
            critical = error.severity is Severity.CRITICAL
            tools.call_limit.take(at, configured=error.target in tools.services, critical=critical)


def tell_withheld(tools: Tools) -> None:
    """Tell people in one message of the calls that were too many, when that is due."""
    now = tools.clock()
    count = tools.call_limit.withheld(now)
    if not count:
        return
    text = (
        f"{count} more errors need a person. So many are not told one by one: "
        "soulfra errors --state failed, or GET /api/monitoring/errors?state=failed, lists them."
    )
    tools.feed("escalate", text)
    summary = Notification(
        subject=f"[critical] {count} more errors need a person",
        text=text,
        severity=Severity.CRITICAL,
        target="soulfra-remediator",
        problem=Problem.OTHER,
    )
    results = tools.notifier.escalate(("people",), summary)
    for channel, failure in results.items():
        if failure is not None:
            tools.metrics.notification_failures.labels(channel).inc()
    told = tools.notifier.reached_people(results)
    tools.metrics.escalations.labels("told" if told else "untold").inc()
    if told:
        tools.call_limit.told(count, now)


def _evidence(tools: Tools, error: Error) -> dict[str, Any]:
    """Take what a person needs, where no run has taken it."""
    samples = [member.detail for member in tools.store.membership(error.id) if member.detail]
    found: dict[str, Any] = {"event": samples[0]} if samples else {}
    sight = tools.store.sight(error.id)
    if sight is not None:
        found["when it began"] = sight
    return {**found, "now": take_evidence(tools, error.target)}


def notify(
    tools: Tools, error: Error, playbook: Playbook | None, text: str, kind: str = "escalation"
) -> bool:
    """Tell the playbook's channels; return whether one that reaches people took it."""
    runs = tools.store.find_runs(RunQuery(error_id=error.id, limit=1))
    last = runs[0] if runs else None
    tried = f"\nLast run: {last.playbook} ended {last.outcome}: {last.detail}" if last else ""
    notification = Notification(
        subject=f"[{error.severity}] {error.target}: {error.problem}",
        text=f"{text}\n{error.message}{tried}",
        severity=error.severity,
        target=error.target,
        problem=error.problem,
        error_id=error.id,
        run_id=last.id if last else None,
        evidence=last.evidence if last else _evidence(tools, error),
        kind=kind,
    )
    results = tools.notifier.escalate(playbook.escalate.notify if playbook else ("people",), notification)
    failed = [channel for channel, problem in results.items() if problem is not None]
    for channel in failed:
        tools.metrics.notification_failures.labels(channel).inc()
    return tools.notifier.reached_people(results)
