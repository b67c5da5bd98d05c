"""All of ``/metrics`` at one moment, made in small steps so that a scrape never holds the loop.

The lines of each service and probe are kept until it runs again. A snapshot is made anew for every
scrape from the services there are, so that removed targets vanish; what it holds never changes, so
that two scrapes can read at their own pace.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic

from exporter.counters import Counters
from exporter.exposition import END_OF_OPENMETRICS, Labels, Title, label
from exporter.metrics import (
    EDGE_FAILURE_TITLE,
    EDGE_RHYTHM_TITLES,
    EDGE_TITLES,
    PROBE_FAILURE_TITLE,
    PROBE_RHYTHM_TITLES,
    PROBE_TITLES,
    PROCESS_TITLES,
    SERVICE_TITLES,
    Texts,
    edge_rhythm_texts,
    edge_texts,
    exporter_families,
    failure_text,
    probe_rhythm_texts,
    probe_texts,
    process_texts,
    reading_line,
    service_texts,
)
from exporter.observation import Measure, Observation, Reading
from exporter.state import ProbeState, ServiceState, Settings, Verdict, WorldState
from exporter.streaming import Pace

PIECE = 128  # services or probes whose lines are joined in one go

_METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*\Z")
_TAKEN_LABELS = {"target", "probe", "le"}

Key = tuple[str, str]
Written = tuple[tuple[Title, str], ...]


@dataclass(slots=True)
class ServiceBlock:
    """The lines of one service; never changed once it is made."""

    service: ServiceState
    verdict: Verdict
    texts: Texts
    process: Texts
    is_process_watched: bool


@dataclass(slots=True)
class RunBlock:
    """The lines of one probe or integration check; never changed once it is made."""

    state: ProbeState
    labels: Labels
    last: Observation | None
    last_failure: Observation | None
    fresh: bool
    texts: Texts
    failures: str
    rhythm: Texts
    readings: Written = ()
    refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """How the lines of probes, or those of integration checks, are written."""

    label_names: tuple[str, str]
    titles: tuple[Title, ...]
    failure_title: Title
    rhythm_titles: tuple[Title, ...]
    texts: Callable[[Labels, ProbeState], Texts]
    rhythm_texts: Callable[[Labels, Settings], Texts]
    has_readings: bool


PROBES = Runs(
    label_names=("target", "probe"),
    titles=PROBE_TITLES,
    failure_title=PROBE_FAILURE_TITLE,
    rhythm_titles=PROBE_RHYTHM_TITLES,
    texts=probe_texts,
    rhythm_texts=probe_rhythm_texts,
    has_readings=True,
)
EDGES = Runs(
    label_names=("source", "destination"),
    titles=EDGE_TITLES,
    failure_title=EDGE_FAILURE_TITLE,
    rhythm_titles=EDGE_RHYTHM_TITLES,
    texts=edge_texts,
    rhythm_texts=edge_rhythm_texts,
    has_readings=False,
)


@dataclass(slots=True)
class Snapshot:
    """Everything that is exposed of the services, at one moment."""

    services: list[ServiceBlock] = field(default_factory=list)
    probes: list[RunBlock] = field(default_factory=list)
    edges: list[RunBlock] = field(default_factory=list)
    readings: dict[str, tuple[Title, list[str]]] = field(default_factory=dict)  # by the name of the samples
    refused: int = 0
    blind: bool = False


@dataclass(slots=True)
class Kept:
    """The newest lines of everything, for the next snapshot."""

    services: dict[str, ServiceBlock] = field(default_factory=dict)
    probes: dict[Key, RunBlock] = field(default_factory=dict)
    edges: dict[Key, RunBlock] = field(default_factory=dict)


class Snapshots:
    """Takes snapshots of one world; what did not change since the one before is taken from there."""

    def __init__(self, world: WorldState, counters: Counters) -> None:
        self._world = world
        self._counters = counters
        self._kept = Kept()
        self._taking = asyncio.Lock()

    async def take(self) -> Snapshot:
        """Return everything as it is now. Of two who ask at once the second finds most of it ready."""
        async with self._taking:
            return await self._make()

    async def _make(self) -> Snapshot:
        world, pace = self._world, Pace()
        services, edges = list(world.services.items()), list(world.edges.items())
        # What is replaced is let go one by one: to free thousands at once would hold the loop.
        old, self._kept = self._kept, Kept()
        kept, taken = self._kept, Snapshot(blind=world.blind)
        for target, service in services:
            kept.services[target] = written = _service_block(old.services.pop(target, None), service)
            taken.services.append(written)
            for name, state in service.probes.items():
                key = target, name
                kept.probes[key] = block = _run_block(PROBES, old.probes.pop(key, None), key, state)
                taken.probes.append(block)
                _gather(taken, block)
            await pace.keep()
        for key, state in edges:
            kept.edges[key] = block = _run_block(EDGES, old.edges.pop(key, None), key, state)
            taken.edges.append(block)
            await pace.keep()
        return taken

    def pieces(self, taken: Snapshot, *, openmetrics: bool) -> Iterator[str]:
        """Write *taken* and the exporter's own metrics, each piece whole lines and quickly made."""
        service_rows = [block.texts for block in taken.services]
        yield from _columns(SERVICE_TITLES, service_rows, openmetrics=openmetrics)
        yield from _of_runs(PROBES, taken.probes, openmetrics=openmetrics)
        process_rows = [block.process for block in taken.services if block.process]
        yield from _columns(PROCESS_TITLES, process_rows, openmetrics=openmetrics)
        for _, (title, lines) in sorted(taken.readings.items()):
            yield from _column(title, lines, openmetrics=openmetrics)
        yield from _of_runs(EDGES, taken.edges, openmetrics=openmetrics)
        own = exporter_families(
            blind=taken.blind, targets=len(taken.services), refused=taken.refused, counters=self._counters
        )
        for family in own:
            yield from family.lines(openmetrics=openmetrics)
        if openmetrics:
            yield END_OF_OPENMETRICS


def _of_runs(runs: Runs, rows: Sequence[RunBlock], *, openmetrics: bool) -> Iterator[str]:
    yield from _columns(runs.titles, [block.texts for block in rows], openmetrics=openmetrics)
    yield from _column(runs.failure_title, [block.failures for block in rows], openmetrics=openmetrics)
    yield from _columns(runs.rhythm_titles, [block.rhythm for block in rows], openmetrics=openmetrics)


def _columns(titles: Sequence[Title], rows: Sequence[Texts], *, openmetrics: bool) -> Iterator[str]:
    for index, title in enumerate(titles):
        yield title.lines(openmetrics=openmetrics)
        for start in range(0, len(rows), PIECE):
            yield "".join([row[index] for row in rows[start : start + PIECE]])


def _column(title: Title, texts: Sequence[str], *, openmetrics: bool) -> Iterator[str]:
    yield title.lines(openmetrics=openmetrics)
    for start in range(0, len(texts), PIECE):
        yield "".join(texts[start : start + PIECE])


def _service_block(old: ServiceBlock | None, service: ServiceState) -> ServiceBlock:
    if old is not None and old.service is service:
        if old.verdict is service.verdict and not old.is_process_watched:
            return old
        is_process_watched = old.is_process_watched
    else:
        is_process_watched = any(probe.kind == "process" for probe in service.probes.values())
    return ServiceBlock(
        service,
        service.verdict,
        service_texts(service),
        process_texts(service) if is_process_watched else (),
        is_process_watched,
    )


def _run_block(runs: Runs, old: RunBlock | None, key: Key, state: ProbeState) -> RunBlock:
    last, fresh = state.last, _is_fresh(state)
    known = old if old is not None and old.state is state else None
    if known is not None and known.last is last and known.fresh is fresh:
        return known
    labels = known.labels if known else label(**dict(zip(runs.label_names, key, strict=True)))
    given = last.outcome.readings if last and fresh and runs.has_readings else ()
    readings, refused = _written(labels, given) if given else ((), 0)
    if known is not None and known.last_failure is state.last_failure:
        failures = known.failures
    else:
        failures = failure_text(runs.failure_title, labels, state)
    return RunBlock(
        state,
        labels,
        last,
        state.last_failure,
        fresh,
        runs.texts(labels, state),
        failures,
        known.rhythm if known else runs.rhythm_texts(labels, state.settings),
        readings,
        refused,
    )


def _is_fresh(state: ProbeState) -> bool:
    """Whether the last run was not so long ago that its readings may no longer be true."""
    if state.last is None:
        return False
    return monotonic() - state.last.started <= state.settings.fresh_for


def _written(labels: Labels, readings: Iterable[Reading]) -> tuple[Written, int]:
    """Write readings of one probe; of two with the same labels the later. Tell how many were refused."""
    lines: dict[tuple[str, tuple[str, ...]], tuple[Title, str]] = {}
    given = 0
    for reading in readings:
        given += 1
        title = title_of(reading.measure)
        if title is not None and _is_valid(reading):
            lines[reading.measure.name, reading.labels] = title, reading_line(title, labels, reading)
    return tuple(lines.values()), given - len(lines)


def _is_valid(reading: Reading) -> bool:
    falls = reading.measure.type == "counter" and not reading.value >= 0
    return len(reading.labels) == len(reading.measure.labels) and not falls


def _gather(taken: Snapshot, block: RunBlock) -> None:
    """Put readings of one probe to those of others with the same name, if they are of the same type.

    A counter's name is that of its samples without ``_total``: a gauge of either name cannot stand beside it.
    """
    taken.refused += block.refused
    for title, text in block.readings:
        known, lines = taken.readings.setdefault(title.name.removesuffix("_total"), (title, []))
        if (known.kind, known.name) == (title.kind, title.name):
            lines.append(text)
        else:
            taken.refused += 1


@lru_cache(maxsize=4096)
def title_of(measure: Measure) -> Title | None:
    """Return how a kind's own metric is exposed; None when it may not be under that name."""
    title = Title(name=f"soulfra_{measure.name}", kind=measure.type, help=measure.help)
    labels = set(measure.labels)
    valid = (
        _METRIC_NAME.match(title.name)
        and all(_LABEL_NAME.match(name) for name in labels)
        and len(labels) == len(measure.labels)
        and not labels & _TAKEN_LABELS
        and not measure.name.startswith("exporter_")
        and not {title.name, title.sampled} & _FIXED_NAMES
    )
    return title if valid else None


def _names_of(title: Title) -> set[str]:
    parts = {f"{title.name}_{part}" for part in ("bucket", "count", "sum")}
    return {title.name, title.sampled} | (parts if title.kind == "histogram" else set())


_FIXED = [
    *(*SERVICE_TITLES, *PROCESS_TITLES),
    *(*PROBE_TITLES, PROBE_FAILURE_TITLE, *PROBE_RHYTHM_TITLES),
    *(*EDGE_TITLES, EDGE_FAILURE_TITLE, *EDGE_RHYTHM_TITLES),
]
_FIXED_NAMES = {"soulfra_prober_blind"}.union(*map(_names_of, _FIXED))
