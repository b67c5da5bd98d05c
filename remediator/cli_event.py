"""What applications told of an error, for people: events, state, what was seen around them, what mends it.

The texts come from strangers. Each is put on one line and cut, long ones are wrapped, and of many only the
newest are told; ``--json`` has all of it.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from remediator.cli_tables import cell, clock, counted, shortened, size, took

WIDTH = 100
"""Columns of what is told."""

_TEXT = 400  # characters of one text
_EVENTS = 5  # fingerprints that are told, the newest in full
_CHAIN = 4  # exceptions of one chain
_FRAMES = 3  # frames of one exception, the innermost
_SIGHTS = 8  # services
_REASONS = 12
_LARGEST = 10.0**15  # what is more than that is no size of anything

Write = Callable[[float], str]


def events_story(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell what came in, fingerprint by fingerprint: how often, since when, and what the newest said."""
    lines: list[str] = []
    for number, event in enumerate(events[:_EVENTS]):
        lines += [_often(event), *indented(_event(event) if number == 0 else _in_short(event))]
    if len(events) > _EVENTS:
        lines.append(f"and {counted(len(events) - _EVENTS, 'more fingerprint')}: --json has all")
    return lines


def _often(event: Mapping[str, Any]) -> str:
    first, last = clock(event.get("firstSeen")), clock(event.get("lastSeen"))
    when = f"at {first}" if first == last else f"from {first} to {last}"
    times = counted(int(event.get("count") or 1), "time")
    return f"{shortened(event.get('fingerprint'), 40)}  {times} {when}, {event.get('status')}"


def _event(event: Mapping[str, Any]) -> list[str]:
    """Tell one event in full: how it was noticed, what was raised and where, its facts."""
    lines = [_noticed(event)]
    chain = [raised for raised in event.get("raised") or () if isinstance(raised, Mapping)]
    if not chain:
        lines += wrapped(event.get("message"))
    for raised in chain[:_CHAIN]:
        lines += [*wrapped(_exception(raised)), *indented(_frames(raised))]
    if len(chain) > _CHAIN:
        lines.append(f"and {counted(len(chain) - _CHAIN, 'more exception')}: --json has all")
    for name in ("facts", "context"):
        lines += wrapped(_words(event[name])) if isinstance(event.get(name), Mapping) else []
    return lines


def _noticed(event: Mapping[str, Any]) -> str:
    words = [
        cell(event.get("kind")),
        "handled: the program went on" if event.get("handled") else "",
        f"release {shortened(event['release'], 40)}" if event.get("release") else "",
    ]
    return ", ".join(word for word in words if word)


def _in_short(event: Mapping[str, Any]) -> list[str]:
    message = event.get("message") or event.get("missing")
    return [shortened(f"{cell(event.get('kind'))}: {cell(message)}", WIDTH - 6)]


_RELATIONS = {
    "cause": "caused by ",
    "context": "while handling ",
    "member": "of the group: ",
}


def _exception(raised: Mapping[str, Any]) -> str:
    message = raised.get("message")
    told = f"{cell(raised.get('type'))}: {cell(message)}" if message else cell(raised.get("type"))
    return _RELATIONS.get(str(raised.get("relation")), "") + told


def _frames(raised: Mapping[str, Any]) -> list[str]:
    """Tell the innermost frames of the program's own code, the last call first."""
    frames = [frame for frame in raised.get("frames") or () if isinstance(frame, Mapping)]
    own = [frame for frame in frames if frame.get("in_app", True)]
    return [shortened(_frame(frame), WIDTH - 8) for frame in reversed((own or frames[-1:])[-_FRAMES:])]


def _frame(frame: Mapping[str, Any]) -> str:
    name = ".".join(cell(frame[key]) for key in ("module", "function") if frame.get(key)) or "?"
    place = f"{cell(frame['file'])}:{frame.get('line') or '?'}" if frame.get("file") else ""
    return f"in {shortened(name, 60)}  {shortened(place, 60, keep_end=True)}".rstrip()


def reasons_story(reasons: Sequence[Any]) -> list[str]:
    """Tell why the error has its problem and its severity."""
    return [line for reason in reasons[:_REASONS] for line in wrapped(reason)]


def state_story(system: Mapping[str, Any]) -> list[str]:
    """Tell how the process and its host were when it happened."""
    if "missing" in system:
        return [shortened(system["missing"], WIDTH)]
    state = {key: value for key, value in system.items() if _is_size(value)}
    process = [
        _if(state, "rss", lambda value: f"{size(value)} of memory"),
        _if(state, "heap_used", lambda value: f"heap {size(value)}{_of(state, 'heap_limit', size)}"),
        _if(state, "files", lambda value: f"{value:.0f}{_of(state, 'files_limit', _plain)} handles"),
        _if(state, "threads", lambda value: counted(round(value), "thread")),
        _if(state, "cpu", lambda value: f"{value:.2f} cores used"),
        _if(state, "uptime", lambda value: f"up for {took(value * 1000)}"),
    ]
    host = [
        _if(state, "memory_available", lambda value: f"memory {_free(state, value, 'memory_total')}"),
        _if(state, "disk_free", lambda value: f"disk {_free(state, value, 'disk_total')}"),
        _if(state, "load", lambda value: f"load {value:.1f}{_on(state)}"),
    ]
    name = f"process {state['pid']:.0f}" if "pid" in state else "process"
    return [line for who, told in ((name, process), ("host", host)) for line in _listed(who, told)]


def _if(state: Mapping[str, Any], key: str, tell: Write) -> str:
    return tell(state[key]) if key in state else ""


def _of(state: Mapping[str, Any], key: str, write: Write) -> str:
    return f" of {write(state[key])}" if key in state else ""


def _on(state: Mapping[str, Any]) -> str:
    return f" on {counted(round(state['cores']), 'core')}" if "cores" in state else ""


def _free(state: Mapping[str, Any], free: float, total: str) -> str:
    return f"{size(free)} free{_of(state, total, size)}"


def _plain(value: float) -> str:
    return f"{value:.0f}"


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _listed(who: str, told: Iterable[str]) -> list[str]:
    found = [text for text in told if text]
    return wrapped(f"{who}: {', '.join(found)}") if found else []


def sights_story(observations: Mapping[str, Any], service: str) -> list[str]:
    """Tell what the exporter had seen of the service and of what it depends on when the error began."""
    services = observations.get("services") or {}
    names = sorted(services, key=lambda name: (name != service, name))
    lines = [line for name in names[:_SIGHTS] for line in _sight(name, services[name])]
    if len(services) > _SIGHTS:
        lines.append(f"and {counted(len(services) - _SIGHTS, 'more service')}: --json has all")
    return lines


def _sight(name: str, seen: Mapping[str, Any]) -> list[str]:
    if "status" not in seen:
        return wrapped(f"{name}: {cell(seen.get('missing'))}")
    since = f" since {clock(_iso(seen['since']))}" if _is_size(seen.get("since")) else ""
    failing = seen.get("failing") or seen.get("trouble")
    return _listed(
        name,
        [
            f"{seen['status']}{since}",
            "slow" if seen.get("slow") else "",
            _failing(failing) if isinstance(failing, Mapping) else _answered(seen.get("response_time")),
            _process(seen.get("process")),
        ],
    )


def _answered(seconds: Any) -> str:
    return f"answered in {took(seconds * 1000)}" if _is_size(seconds) else ""


def _failing(failing: Mapping[str, Any]) -> str:
    words = (failing.get("probe"), failing.get("reason"), failing.get("detail"))
    return " ".join(cell(word) for word in words if word)


def _process(process: Any) -> str:
    if not isinstance(process, Mapping) or not _is_size(process.get("pid")):
        return ""
    facts = {key: value for key, value in process.items() if _is_size(value)}
    told = [
        _if(facts, "resident_bytes", lambda value: f"{size(value)} of memory"),
        _if(facts, "open_fds", lambda value: f"{value:.0f}{_of(facts, 'max_fds', _plain)} handles"),
        _if(facts, "threads", lambda value: counted(round(value), "thread")),
    ]
    return ", ".join([f"process {process['pid']}", *(text for text in told if text)])


def _iso(at: float) -> str:
    return datetime.fromtimestamp(min(at, 253402300799.0), UTC).isoformat()


_FIX = {
    "cause": "cause",
    "fix": "mend",
    "knob": "setting",
    "action": "safe action",
    "link": "more",
    "reason": "reason",
}


def fix_story(fix: Mapping[str, Any]) -> list[str]:
    """Tell what mostly lies behind it, what mends it, and what came of that before."""
    told = {heading: fix[key] for key, heading in _FIX.items() if fix.get(key)}
    before = fix.get("seenBefore")
    if isinstance(before, Mapping):
        told["seen before"] = before.get("text")
    return [line for heading, text in told.items() for line in wrapped(text, lead=f"{heading + ':':<13}")]


def wrapped(text: object, *, lead: str = "") -> list[str]:
    """Put a text of a stranger on lines of at most WIDTH, what they are indented by included."""
    return textwrap.wrap(
        shortened(text, _TEXT),
        WIDTH - 6,  # nothing here is indented deeper
        initial_indent=lead,
        subsequent_indent=" " * (len(lead) or 2),
        break_on_hyphens=False,
    )


def _words(value: Mapping[str, Any]) -> str:
    return " ".join(f"{cell(key)}={cell(item)}" for key, item in value.items())


def indented(lines: Iterable[str]) -> list[str]:
    """Put lines two columns further in."""
    return [f"  {line}" for line in lines]
