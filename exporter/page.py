"""The landing page: every target as it is, what failed lately, and what was asked by ``/probe``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from html import escape
from itertools import groupby
from operator import itemgetter
from time import time
from urllib.parse import urlencode

from exporter.history import History, Past
from exporter.observation import Observation
from exporter.state import ServiceState, Verdict, WorldState
from soulfra_monitor import __version__

MOST_ROWS = 300  # more would hold up the probes while the page is written
MOST_FAILURES = 50
_LINKS = (
    ("/metrics", "metrics"),
    ("/state", "state as JSON"),
    ("/http_sd", "services for http_sd"),
    ("/-/healthy", "healthy"),
    ("/-/ready", "ready"),
)
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--up:#1a7f37;--down:#cf222e;--wait:#9a6700}
@media(prefers-color-scheme:dark){:root{--up:#3fb950;--down:#ff7b72;--wait:#d29922}}
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:72rem;padding:0 1rem}
td:first-child,td:nth-child(2){white-space:nowrap}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .4rem}
nav a{margin-right:1.2rem}p{margin:.4rem 0}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.up,.down,.unknown{font-weight:600;white-space:nowrap}
.up{color:var(--up)}.down{color:var(--down)}.unknown{color:var(--wait)}
.d{opacity:.75;overflow-wrap:anywhere}.warn{background:var(--soft);padding:.6rem .8rem;border-left:4px solid}
form{margin:.6rem 0}input{font:inherit;padding:.1rem .3rem}
"""
_WORST_FIRST = {Verdict.DOWN: 0, Verdict.UNKNOWN: 1, Verdict.UP: 2}


def landing_page(world: WorldState, history: History) -> str:
    """Render the page. Whatever comes from the configuration or from a service is escaped."""
    now = time()
    parts = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><title>Soulfra exporter</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Soulfra exporter {escape(__version__)}</h1>",
        _nav(),
        _summary(world, now),
        _targets(world, now),
        _failures(world, now),
        _on_demand(history, now),
        "</body></html>\n",
    )
    return "".join(parts)


def _nav() -> str:
    links = (f'<a href="{link}">{text}</a>' for link, text in _LINKS)
    return f"<nav>{''.join(links)}</nav>"


def _summary(world: WorldState, now: float) -> str:
    verdicts = [service.verdict for service in world.services.values()]
    counts = ", ".join(
        f'<span class="{verdict}">{verdicts.count(verdict)} {verdict}</span>' for verdict in _WORST_FIRST
    )
    blind = '<p class="warn">Most targets fail at once: is it the exporter that is blind?</p>'
    since = f"{_utc(now)}, watching for {_span(now - world.started_at)}"
    return f"<p>{len(verdicts)} targets: {counts}. {since}.</p>{blind if world.blind else ''}"


def _targets(world: WorldState, now: float) -> str:
    services = sorted(world.services.values(), key=lambda service: _WORST_FIRST[service.verdict])
    rows = [_target_row(service, now) for service in services[:MOST_ROWS]]
    head = ("Target", "Status", "Since", "#Response", "Last results", "")
    return f"<h2>Targets</h2>{_table(head, rows)}{_more(len(services) - MOST_ROWS, 'targets, in /state')}"


def _target_row(service: ServiceState, now: float) -> tuple[str, ...]:
    seconds = service.response_time
    debug = urlencode({"target": service.target, "debug": "true"})
    state = urlencode({"target": service.target})
    slow = " (slow)" if service.slow else ""
    trouble = f'<br><span class="unknown">{service.trouble.problem}</span>' if service.trouble else ""
    return (
        f'<a href="/state?{state}">{escape(service.target)}</a>',
        f'<span class="{service.verdict}">{service.verdict}</span>{slow}{trouble}',
        _span(now - service.since),
        "" if seconds is None else f"{seconds * 1000:.1f} ms",
        "<br>".join(_results(service)),
        f'<a href="/probe?{debug}">look now</a>',
    )


def _results(service: ServiceState) -> Iterator[str]:
    for name, probe in service.probes.items():
        last = probe.last
        if last is None:
            yield f"{escape(name)}: not run yet"
        elif last.healthy:
            yield f'{escape(name)}: <span class="up">ok</span>'
        else:
            yield f"{escape(name)}: {_why(last)}"


def _why(observation: Observation) -> str:
    reason, detail = escape(observation.reason or ""), escape(observation.outcome.detail)
    return f'<span class="down">{reason}</span> <span class="d">{detail}</span>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Failures of one probe in a row that had the same reason."""

    target: str
    probe: str
    last: Observation
    times: int
    lasted: float


def _failures(world: WorldState, now: float) -> str:
    """Show the newest failures; each probe keeps its own, however many successes came since."""
    failed = [
        (probe.last_failure.at, service.target, name, probe.failed)
        for service in world.services.values()
        for name, probe in service.probes.items()
        if probe.last_failure
    ]
    # The newest failures of all are among those of the probes that failed last.
    newest = nlargest(MOST_FAILURES, failed, key=itemgetter(0))
    runs = [run for _, target, name, kept in newest for run in _runs(target, name, kept)]
    rows = [_run_row(run, now) for run in nlargest(MOST_FAILURES, runs, key=lambda run: run.last.at)]
    title = "<h2>Last failures</h2>"
    if not rows:
        return f"{title}<p>None is known.</p>"
    more = _more(len(runs) + len(failed) - len(newest) - len(rows), "kinds of failures at least, in /state")
    return f"{title}{_table(('When', '', 'Target', 'Probe', '#Took', 'Why'), rows)}{more}"


def _runs(target: str, name: str, failed: Iterable[Observation]) -> Iterator[Run]:
    for _, alike in groupby(failed, key=lambda seen: seen.reason):
        first, *others = alike
        last = others[-1] if others else first
        yield Run(target=target, probe=name, last=last, times=len(others) + 1, lasted=last.at - first.at)


def _run_row(run: Run, now: float) -> tuple[str, ...]:
    times = f", {run.times} times within {_span(run.lasted)}" if run.times > 1 else ""
    return (
        _utc(run.last.at),
        f"{_span(now - run.last.at)} ago",
        escape(run.target),
        escape(run.probe),
        f"{run.last.seconds * 1000:.1f} ms",
        f'{_why(run.last)}<span class="d">{times}</span>',
    )


def _on_demand(history: History, now: float) -> str:
    title = "<h2>Asked by /probe</h2>"
    form = (
        '<form action="/probe"><input name="module" placeholder="module" size="14"> '
        '<input name="target" placeholder="target" size="40" required> '
        '<input type="hidden" name="debug" value="true"><button>Look</button></form>'
    )
    kept = history.newest_first()
    if not kept:
        return f"{title}{form}<p>Nothing yet; failures are kept longer than successes.</p>"
    rows = [_past_row(past, now) for past in kept]
    return f"{title}{form}{_table(('When', 'Module', 'Target', '#Took', 'Result'), rows)}"


def _past_row(past: Past, now: float) -> tuple[str, ...]:
    word = f'<span class="down">{escape(past.reason)}</span>' if past.reason else '<span class="up">ok</span>'
    return (
        f"{_span(now - past.at)} ago",
        escape(past.module or "its own probes"),
        escape(past.target),
        f"{past.seconds * 1000:.1f} ms",
        f'{word} <a href="/logs?id={past.number}">logs</a>',
    )


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Write a table; a title that begins with # is of numbers."""
    classes = [' class="n"' if title.startswith("#") else "" for title in head]
    titles = "".join(f"<th{mark}>{title.lstrip('#')}</th>" for mark, title in zip(classes, head, strict=True))
    lines = (
        "<tr>"
        + "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(classes, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return f"<table><tr>{titles}</tr>\n{''.join(lines)}</table>"


def _more(count: int, what: str) -> str:
    return f"<p>and {count} more {what}</p>" if count > 0 else ""


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: float) -> str:
    """Write how long something has lasted, in its two largest units."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])
