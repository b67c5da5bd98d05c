"""The story of an error or a run, told to somebody who was not there."""

from datetime import datetime
from typing import Any

from remediator.cli_event import (
    WIDTH,
    events_story,
    fix_story,
    reasons_story,
    sights_story,
    state_story,
    wrapped,
)
from remediator.cli_tables import cell, clock, counted, table, took

_TOLD_VALUE = 300  # characters of one piece of evidence
_ABOUT_THE_TAKING = {"at", "seconds"}
_WITH = 36  # characters of a step's arguments on one line
_TOLD_LINES = 5  # the last ones of a log


def error_story(answer: dict[str, Any]) -> str:
    """Tell an error from its first signal to what happens next."""
    error = answer["error"]
    parts = [
        _head(error),
        _section("What was seen", events_story(error.get("events") or [])),
        _signals(answer.get("signals") or [], error.get("events") or []),
        _section("Why it is judged so", reasons_story(error.get("reasons") or [])),
        _section("The state when it happened", state_story(error.get("system") or {})),
        _section(
            "What the exporter had seen", sights_story(error.get("observations") or {}, error["service"])
        ),
        _section("What is suggested", fix_story(error.get("suggestedFix") or {})),
        _decisions(answer.get("decisions") or []),
        *(run_story(run) for run in answer.get("runs") or []),
        _section("What happens next", wrapped(what_next(error))),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(error: dict[str, Any]) -> str:
    tries = f"{counted(error['attempts'], 'attempt')}, {counted(error['relapses'], 'relapse')}"
    what = f"{error['type']} of {error['service']}, {error['severity']}: {error['message']}"
    lines = [
        *wrapped(what, lead=f"{error['id']}  "),
        *(f"  {line}" for line in (wrapped(error["subject"], lead="about ") if error.get("subject") else [])),
        f"  first seen {clock(error.get('firstSeen'))}, last seen {clock(error.get('lastSeen'))}",
        f"  {error.get('state')}, {tries}",
    ]
    if error.get("recovered"):
        by = f" by {error['recoveredBy']}" if error.get("recoveredBy") else ""
        lines.append(f"  recovered{by} after {took(error.get('recoveryTime'))}, proved by fresh probes")
    if error.get("escalatedAt"):
        lines.append(f"  people were called at {clock(error['escalatedAt'])}")
    return "\n".join(lines)


def _section(title: str, lines: list[str]) -> str:
    return _indented(title, "\n".join(lines)) if lines else ""


def _signals(signals: list[dict[str, Any]], events: list[dict[str, Any]]) -> str:
    """Tell the signals that came without an event, as alerts do."""
    told = {event.get("fingerprint") for event in events}
    others = [item for item in signals if item["fingerprint"] not in told]
    return _section("Signals", [f"{item['fingerprint']}  {item.get('status')}" for item in others])


def _decisions(decisions: list[dict[str, Any]]) -> str:
    rows = [
        (
            clock(item.get("at")),
            item.get("times"),
            item.get("verdict"),
            item.get("reason"),
            item.get("playbook"),
            " ".join(filter(None, (item.get("run"), item.get("detail")))),
        )
        for item in decisions
    ]
    if not rows:
        return "Decisions\n  none yet"
    heads = ("AT", "TIMES", "DECISION", "REASON", "PLAYBOOK", "DETAIL")
    return _indented("Decisions", table(heads, rows, width=WIDTH - 2))


def run_story(run: dict[str, Any]) -> str:
    """Tell a run: its steps, the proof, where the time went, the evidence."""
    ending = run.get("outcome") or "still running"
    title = (
        f"Run {run['id']}  {run.get('playbook')} for {run.get('service')}, "
        f"asked for by {run.get('requestedBy') or run.get('trigger')}: {ending}"
    )
    lines = [f"started {clock(run.get('startedAt'))}, ended {cell(clock(run.get('endedAt')))}"]
    if run.get("detail"):
        lines += wrapped(run["detail"])
    rows = [
        (
            clock(step.get("startedAt")),
            step.get("action"),
            pairs(step.get("args")),
            step.get("state"),
            step.get("attempt"),
            step.get("result"),
        )
        for step in run.get("steps") or []
    ]
    if rows:
        heads = ("AT", "STEP", "WITH", "STATE", "TRY", "RESULT")
        lines.append(table(heads, rows, width=WIDTH - 2, limits={"WITH": _WITH}))
    lines += _timings(run.get("timings") or {})
    lines += _evidence(run.get("evidence") or {})
    return _indented(title, "\n".join(lines))


def _timings(timings: dict[str, str | None]) -> list[str]:
    known = sorted((at, name) for name, at in timings.items() if at is not None)
    return wrapped("times: " + ", ".join(f"{name} {clock_ms(at)}" for at, name in known)) if known else []


def clock_ms(text: str) -> str:
    """Write a time of the API as local time of day to the millisecond."""
    return f"{datetime.fromisoformat(text).astimezone():%H:%M:%S.%f}"[:-3]


def _evidence(evidence: dict[str, Any]) -> list[str]:
    """Tell what was taken before each rung: the ends of logs line by line, the rest on one line each."""
    lines = []
    for when, taken in evidence.items():
        lines.append(f"evidence of {when}:")
        parts = taken if isinstance(taken, dict) else {"value": taken}
        for name in sorted(parts.keys() - _ABOUT_THE_TAKING):
            lines += [f"  {line}" for line in _piece(name, parts[name])]
    return lines


def _piece(name: str, part: Any) -> list[str]:
    if isinstance(part, dict) and isinstance(part.get("lines"), list):
        return [f"{name}:", *(f"  {cell(line)[:_TOLD_VALUE]}" for line in part["lines"][-_TOLD_LINES:])]
    if isinstance(part, dict) and "missing" in part:
        return [f"{name}: {cell(part['missing'])}"]
    return wrapped(f"{name}: {pairs(part)[:_TOLD_VALUE]}")


def pairs(value: Any) -> str:
    """Write a mapping as ``key=value`` words, anything else as it is."""
    if not isinstance(value, dict):
        return cell(value)
    return " ".join(f"{key}={cell(item)}" for key, item in value.items())


def what_next(error: dict[str, Any]) -> str:
    """Say what happens with an error if nobody does anything."""
    if not error.get("open"):
        silent = error.get("ended") == "silence"
        return f"Nothing: it is over{'; it ended by silence, which proves nothing' if silent else ''}."
    held = error.get("held") or {}
    if held.get("reason") == "approval_pending":
        return f"It waits for a person: soulfra approve {error['id']} or soulfra reject {error['id']}"
    look = f" Looked at again at {clock(error['nextLook'])}." if error.get("nextLook") else ""
    if error.get("state") == "failed":
        return f"It is given up and people are called; it closes when the service is healthy again.{look}"
    if held.get("reason"):
        return f"{_held(held)}{look}"
    if error.get("state") == "recovered":
        return f"It is watched for a relapse.{look}"
    return f"A recovery is under way or about to be decided.{look}"


def _held(held: dict[str, Any]) -> str:
    if held["reason"] == "no_playbook":
        return "No playbook matches, so nothing repairs it; it is over when nothing tells of it any more."
    return f"Held back since {clock(held.get('since'))}: {held['reason']}."


def _indented(title: str, text: str) -> str:
    return "\n".join([title, *(f"  {line}" for line in text.splitlines())])
