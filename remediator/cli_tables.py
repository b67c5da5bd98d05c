"""Answers of the API as text for people: aligned columns, local times, short durations."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from soulfra_monitor.durations import format_duration

_MINUTE = 60.0
_HOUR = 3600.0
_STEP = 1024.0  # from one unit of size to the next
_SUBJECT = 40  # characters of a subject in a table
_MESSAGE = 120
_ROOM = 20  # characters that the last column of a table has at least


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    width: int | None = None,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """Align columns under their heads; None is shown as ``-``.

    Columns with a limit are folded to it, and with a *width* the last one to what the others leave.
    """
    lines = [list(heads), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    widths = [min(found, limits.get(head, found)) for head, found in zip(heads, widths, strict=True)]
    if width is not None:
        widths[-1] = min(widths[-1], max(_ROOM, width - sum(widths[:-1]) - 2 * (len(heads) - 1)))
    return "\n".join(
        "  ".join(text.ljust(room) for text, room in zip(part, widths, strict=True)).rstrip()
        for line in lines
        for part in _folded(line, widths)
    )


def _folded(line: Sequence[str], widths: Sequence[int]) -> Iterable[Sequence[str]]:
    cells = [
        [text] if len(text) <= room else textwrap.wrap(text, room, break_on_hyphens=False)
        for text, room in zip(line, widths, strict=True)
    ]
    return zip_longest(*cells, fillvalue="")


def cell(value: object) -> str:
    """Write one value on one line."""
    return "-" if value is None else " ".join(str(value).split())


def shortened(value: object, length: int, *, keep_end: bool = False) -> str:
    """Write one value on one line of at most *length* characters; of a path its end says most."""
    text = cell(value)
    if len(text) <= length:
        return text
    return f"…{text[1 - length :]}" if keep_end else f"{text[: length - 1]}…"


def size(count: float) -> str:
    """Write bytes as people say them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _STEP:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"  # noqa: PLR2004
        count /= _STEP
    return f"{count:.1f} TiB"


def counted(number: int, what: str) -> str:
    """Write a number with its noun."""
    if number == 1:
        return f"1 {what}"
    return f"{number} {what.removesuffix('y')}ies" if what.endswith("y") else f"{number} {what}s"


def clock(text: str | None) -> str | None:
    """Write a time of the API as local time; the date only when it is not today's."""
    if text is None:
        return None
    at = datetime.fromisoformat(text).astimezone()
    today = datetime.now().astimezone().date()
    return f"{at:%H:%M:%S}" if at.date() == today else f"{at:%Y-%m-%d %H:%M:%S}"


def took(milliseconds: float | None) -> str | None:
    """Write milliseconds as people say them."""
    if milliseconds is None:
        return None
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"


def health_text(answer: dict[str, Any]) -> str:
    """Tell the health of everything."""
    rows = [
        (name, item.get("status"), took(item.get("responseTime")), item.get("uptime"), item.get("reason"))
        for name, item in sorted(answer["services"].items())
    ]
    facts = (
        f"{counted(answer['recentErrors'], 'error')} in the last hour",
        f"{counted(answer['autoRecoveries'], 'recovery')} without a person in the last day",
        f"uptime {cell(answer.get('uptime'))}",
    )
    lines = [f"{answer['status']}: {', '.join(facts)}"]
    seen = answer.get("exporter") or {}
    if seen.get("reachable") is False:
        lines.append("The exporter cannot be asked, so nothing is known about the services.")
    if seen.get("blind"):
        lines.append(
            "Most services fail at once; the exporter may have lost its sight, and nothing is restarted."
        )
    lines += [pause_text(pause) for pause in answer.get("paused") or []]
    if rows:
        lines += ["", table(("SERVICE", "STATUS", "RESPONSE", "UPTIME 24H", "REASON"), rows)]
    failing = [edge for edge in answer.get("integrations") or [] if edge.get("healthy") is False]
    lines += [f"{edge['from']} cannot reach {edge['to']}: {cell(edge.get('reason'))}" for edge in failing]
    return "\n".join(lines)


def errors_text(answer: dict[str, Any]) -> str:
    """Tell a page of errors and the summary."""
    summary = answer["summary"]
    subjects = any(item.get("subject") for item in answer["errors"])
    parts = ", ".join(f"{summary[state]} {state}" for state in ("recovered", "pending", "failed"))
    lines = [f"{counted(summary['total'], 'error')}: {parts}"]
    rows = [
        (
            item["id"],
            clock(item.get("firstSeen")),
            item["service"],
            item["type"],
            *([_subject(item)] if subjects else []),
            item["severity"],
            _state(item),
            took(item.get("recoveryTime")),
            item.get("attempts"),
            shortened(item["message"], _MESSAGE),
        )
        for item in answer["errors"]
    ]
    about = ("SUBJECT",) if subjects else ()
    heads = (
        "ID",
        "FIRST SEEN",
        "SERVICE",
        "TYPE",
        *about,
        "SEVERITY",
        "STATE",
        "RECOVERY",
        "TRIES",
        "MESSAGE",
    )
    if rows:
        lines += ["", table(heads, rows)]
    if answer.get("next"):
        lines.append(f"There are more: --after {answer['next']}")
    return "\n".join(lines)


def _subject(item: dict[str, Any]) -> str | None:
    subject = item.get("subject")
    return shortened(subject, _SUBJECT, keep_end=True) if subject else None


def _state(item: dict[str, Any]) -> str:
    held = item.get("held") or {}
    state = str(item.get("state"))
    if item.get("ended") == "silence":
        return f"{state} (ended by silence)"
    return f"{state} ({held['reason']})" if held.get("reason") else state


def runs_text(answer: dict[str, Any]) -> str:
    """Tell a list of runs."""
    rows = [
        (
            item["id"],
            clock(item.get("startedAt")),
            item.get("service"),
            item.get("playbook"),
            item.get("trigger"),
            item.get("outcome") or item.get("state") or "running",
            took(item.get("duration")),
            item.get("error"),
            item.get("detail"),
        )
        for item in answer["runs"]
    ]
    heads = ("ID", "STARTED", "SERVICE", "PLAYBOOK", "TRIGGER", "OUTCOME", "TOOK", "ERROR", "DETAIL")
    return table(heads, rows) if rows else "no runs"


def pause_text(pause: dict[str, Any]) -> str:
    """Tell one pause."""
    until = f"until {clock(pause['until'])}" if pause.get("until") else "until somebody resumes it"
    return f"paused: {pause['scope']} by {pause.get('owner')}, {until}: {pause.get('reason')}"


def heartbeats_text(answer: dict[str, Any]) -> str:
    """Tell the jobs that must report."""
    rows = [
        (
            item["name"],
            item.get("status"),
            clock(item.get("lastSuccess")) or "never",
            _period(item.get("period")),
            _period(item.get("grace")),
        )
        for item in answer["heartbeats"]
    ]
    heads = ("NAME", "STATUS", "LAST SUCCESS", "PERIOD", "GRACE")
    return table(heads, rows) if rows else "no heartbeats are configured"


def _period(milliseconds: float | None) -> str | None:
    return None if milliseconds is None else format_duration(milliseconds / 1000)
