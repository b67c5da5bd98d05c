"""What the APIs say, computed from what is stored and what the exporter sees. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from remediator.run import Outcome, PastRun, Pause, Run, Step
from remediator.signals import Decision, Error, ErrorState, Member, Status
from remediator.watchdog import Watchdog
from soulfra_monitor.problems import Severity

_LATEST = 253402300799.0  # the end of the year 9999, the last that ISO 8601 writes with four digits


def iso(at: float | None) -> str | None:
    """Write epoch seconds as ISO 8601 in UTC, to the millisecond."""
    if at is None:
        return None
    moment = datetime.fromtimestamp(min(at, _LATEST), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(seconds: float | None) -> int | None:
    """Write seconds as the API's whole milliseconds."""
    return None if seconds is None else round(seconds * 1000)


def health(
    *,
    names: Iterable[str],
    state: Mapping[str, Any] | None,
    open_errors: Sequence[Error],
    uptime: Mapping[str, float],
    recent_errors: int,
    auto_recoveries: int,
    now: float,
    pauses: Sequence[Pause] = (),
    watchdog: Watchdog | None = None,
) -> dict[str, Any]:
    """Return the health of everything. *state* is the exporter's, None when it cannot be asked."""
    seen = (state or {}).get("services", {})
    services = {name: _service(name, seen.get(name), state, open_errors, uptime) for name in names}
    statuses = {service["status"] for service in services.values()}
    silent = watchdog is not None and watchdog.silent(now)
    overall = "healthy"
    if "critical" in statuses:
        overall = "critical"
    elif statuses - {"healthy"} or state is None or silent:
        overall = "degraded"
    known = [uptime[name] for name in services if name in uptime]
    return {
        "status": overall,
        "services": services,
        "recentErrors": recent_errors,
        "autoRecoveries": auto_recoveries,
        "uptime": f"{100 * sum(known) / len(known):.1f}%" if known else None,
        "generatedAt": iso(now),
        "exporter": {"reachable": state is not None, "blind": bool(state and state.get("prober_blind"))},
        "integrations": [_integration(edge) for edge in (state or {}).get("integrations", [])],
        "watchdog": {"heardAt": iso(watchdog.heard_at) if watchdog else None, "silent": silent},
        "paused": [pause_view(pause) for pause in pauses],
    }


def _service(
    name: str,
    seen: Mapping[str, Any] | None,
    state: Mapping[str, Any] | None,
    open_errors: Sequence[Error],
    uptime: Mapping[str, float],
) -> dict[str, Any]:
    mine = [error for error in open_errors if error.target == name]
    failing = (seen or {}).get("failing") or {}
    return {
        "status": _status(name, seen, state, mine),
        "responseTime": milliseconds((seen or {}).get("response_time")),
        "since": iso((seen or {}).get("since")),
        "reason": failing.get("reason"),
        "openErrors": [error.id for error in mine],
        "uptime": f"{100 * uptime[name]:.1f}%" if name in uptime else None,
    }


def _status(
    name: str, seen: Mapping[str, Any] | None, state: Mapping[str, Any] | None, errors: Sequence[Error]
) -> str:
    if seen is None or seen.get("status") not in ("up", "down"):
        return "unknown"
    if seen["status"] == "down" or any(error.severity is Severity.CRITICAL for error in errors):
        return "critical"
    edges = (state or {}).get("integrations", [])
    edge_fails = any(edge["source"] == name and edge.get("healthy") is False for edge in edges)
    return "degraded" if seen.get("slow") or edge_fails or errors else "healthy"


def _integration(edge: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "from": edge["source"],
        "to": edge["destination"],
        "healthy": edge.get("healthy"),
        "reason": edge.get("reason"),
        "responseTime": milliseconds(edge.get("response_time")),
    }


def error_view(error: Error) -> dict[str, Any]:
    """Return one error as the API lists it."""
    held = None
    if error.held_reason is not None:
        held = {"reason": error.held_reason, "since": iso(error.held_since)}
    return {
        "id": error.id,
        "type": error.problem,
        "severity": error.severity,
        "service": error.target,
        "subject": error.subject or None,
        "message": error.message,
        "fingerprint": error.fingerprint or None,
        "recovered": error.state is ErrorState.RECOVERED,
        "recoveryTime": milliseconds(error.recovery_seconds),
        "state": error.state,
        "open": error.open,
        "firstSeen": iso(error.first_seen),
        "lastSeen": iso(error.last_seen),
        "recoveredAt": iso(error.recovered_at),
        "recoveredBy": error.recovered_by if error.state is ErrorState.RECOVERED else None,
        "closedAt": iso(error.closed_at),
        "ended": error.ended,
        "attempts": error.attempts,
        "relapses": error.relapses,
        "signals": error.signals,
        "escalatedAt": iso(error.escalated_at),
        "held": held,
        "nextLook": iso(error.check_at) if error.open else None,
    }


def error_detail(
    error: Error,
    members: Sequence[Member],
    *,
    observations: Mapping[str, Any] | None,
    fix: Mapping[str, Any] | None,
    past: Sequence[PastRun] = (),
) -> dict[str, Any]:
    """Return one error with all that is known of it but its decisions and runs.

    *observations* are what the exporter had seen when it was opened, *fix* is what the table of known faults
    says, *past* what runs for errors like it came to.
    """
    events = [member for member in members if member.detail]
    newest = events[0].detail if events else {}
    return {
        **error_view(error),
        "labels": error.labels,
        "annotations": error.annotations,
        "reasons": list(newest.get("reasons") or ()),
        "context": newest.get("context") or {},
        "system": newest.get("system") or {},
        "observations": observations,
        "events": [event_view(member) for member in events],
        "suggestedFix": _suggested(fix, past),
    }


def _suggested(fix: Mapping[str, Any] | None, past: Sequence[PastRun]) -> dict[str, Any] | None:
    before = seen_before(past, fix.get("action") if fix else None) or seen_before(past, None)
    if fix is None and (before is None or not before["recovered"]):
        return None
    told = fix or {"action": before["action"] if before else None, "reason": "it helped before"}
    return {
        **dict.fromkeys(("cause", "fix", "knob", "link", "action", "reason")),
        **told,
        "seenBefore": before,
    }


def event_view(member: Member) -> dict[str, Any]:
    """Return the events of one fingerprint: how many, and the newest as it came."""
    return {
        **member.detail,
        "fingerprint": member.fingerprint,
        "status": member.status,
        "count": member.times,
        "firstSeen": iso(member.first_seen),
        "lastSeen": iso(member.last_seen),
    }


def seen_before(past: Sequence[PastRun], action: str | None) -> dict[str, Any] | None:
    """Say what came of *action* where the same fault was there before; without one, of what helped most."""
    by_action: dict[str, list[PastRun]] = {}
    for run in past:
        for name in run.actions:
            by_action.setdefault(name, []).append(run)
    if not by_action or (action is not None and action not in by_action):
        return None
    name = action or max(by_action, key=lambda name: sum(map(_helped, by_action[name])))
    seconds = sorted(run.ended_at - run.started_at for run in by_action[name] if _helped(run))
    times, helped = len(by_action[name]), len(seconds)
    middle = (seconds[(helped - 1) // 2] + seconds[helped // 2]) / 2 if seconds else None
    told = f"{name} recovered it {helped} of {times} times"
    return {
        "action": name,
        "recovered": helped,
        "of": times,
        "medianTime": milliseconds(middle),
        "text": told if middle is None else f"{told}, median {middle:.1f} s",
    }


def _helped(run: PastRun) -> bool:
    return run.outcome is Outcome.RECOVERED


def errors_view(errors: Sequence[Error], counts: Mapping[str, int], following: str | None) -> dict[str, Any]:
    """Return a page of errors with the summary over all that match."""
    summary = {state.value: counts.get(state, 0) for state in ErrorState}
    return {
        "errors": [error_view(error) for error in errors],
        "summary": {"total": sum(summary.values()), **summary},
        "next": following,
    }


def decision_view(decision: Decision) -> dict[str, Any]:
    """Return one decision with its reason."""
    return {
        "at": iso(decision.at),
        "lastAt": iso(decision.last_at),
        "times": decision.times,
        "error": decision.error_id,
        "service": decision.target,
        "cause": decision.cause,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "detail": decision.detail,
        "playbook": decision.playbook,
        "run": decision.run_id,
        "until": iso(decision.until),
    }


def run_view(run: Run, steps: Sequence[Step] | None = None) -> dict[str, Any]:
    """Return one run; with its steps and evidence when they are given."""
    view: dict[str, Any] = {
        "id": run.id,
        "error": run.error_id,
        "service": run.target,
        "playbook": run.playbook,
        "trigger": run.trigger,
        "requestedBy": run.requested_by,
        "state": "running" if run.outcome is None else "ended",
        "outcome": run.outcome,
        "startedAt": iso(run.started_at),
        "endedAt": iso(run.ended_at),
        "duration": milliseconds(None if run.ended_at is None else run.ended_at - run.started_at),
        "rungsTried": run.rungs_tried,
        "detail": run.detail,
        "timings": {milestone: iso(at) for milestone, at in run.timings.items()},
    }
    if steps is not None:
        view["plan"] = list(run.plan)
        view["evidence"] = run.evidence
        view["steps"] = [_step_view(step) for step in steps]
    return view


def _step_view(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "rung": step.rung,
        "action": step.action,
        "args": step.args,
        "state": step.state,
        "attempt": step.attempt,
        "result": step.result,
        "startedAt": iso(step.started_at),
        "endedAt": iso(step.ended_at),
    }


def signals_view(members: Mapping[str, Status]) -> list[dict[str, Any]]:
    """Return the members of an error with their last status."""
    return [{"fingerprint": fingerprint, "status": status} for fingerprint, status in members.items()]


def pause_view(pause: Pause) -> dict[str, Any]:
    """Return one pause."""
    return {
        "scope": pause.scope,
        "reason": pause.reason,
        "owner": pause.owner,
        "since": iso(pause.since),
        "until": iso(pause.until),
    }
