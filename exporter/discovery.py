"""Asks the sources of services for their targets, again and again, and keeps the last good answer."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time

from exporter.asking import Answer, FileReader, HttpReader
from exporter.config import Discovery, Service, WatchConfig
from exporter.counters import SourceCounts
from exporter.discovered import Failure, Found, Made, Skip, services_of
from exporter.sources import FileSd

log = logging.getLogger(__name__)

OnChange = Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Source:
    """One source at work."""

    name: str
    config: Discovery
    reader: FileReader | HttpReader
    counts: SourceCounts = field(default_factory=SourceCounts)
    found: Found = field(default_factory=Found)
    made: Made = field(default_factory=Made)
    task: "asyncio.Task[None] | None" = None
    failing: bool = False
    unheard: bool = False  # whether its change could not be passed on


class Discoverer:
    """All sources of a configuration, and the services that were found there."""

    def __init__(self, on_change: OnChange, folder: Path) -> None:
        self._on_change = on_change
        self._folder = folder
        self._sources: dict[str, _Source] = {}
        self._configured: frozenset[str] = frozenset()
        self._making = asyncio.Lock()

    @property
    def counts(self) -> Mapping[str, SourceCounts]:
        """The numbers of each source, by its name."""
        return {name: source.counts for name, source in self._sources.items()}

    def origins(self) -> dict[str, str]:
        """Return the name of the source of each service that was found."""
        return {name: source.name for source in self._sources.values() for name in source.made.services}

    def merged(self, config: WatchConfig) -> WatchConfig:
        """Return *config* with what was found; what it names itself comes first and wins."""
        services: dict[str, Service] = dict(config.services)
        for source in self._sources.values():
            for name, service in source.made.services.items():
                services.setdefault(name, service)
        return config.model_copy(update={"services": services}) if self._sources else config

    async def apply(self, config: WatchConfig) -> None:
        """Ask the sources of *config* from now on; a place that was asked before keeps its last answer."""
        before = self._sources
        after: dict[str, _Source] = {}
        for number, entry in enumerate(config.discovery, start=1):
            name = entry.name or f"{'file_sd' if entry.file_sd else 'http_sd'}-{number}"
            after[name] = self._kept(name, entry, before)
        self._sources = after
        await _end([source for source in before.values() if source not in after.values()])
        self._configured = frozenset(config.services)
        await self._make()
        for source in after.values():
            if source.task is None:
                source.task = asyncio.create_task(self._ask_again_and_again(source))

    async def stop(self) -> None:
        """Ask nobody any more."""
        await _end(list(self._sources.values()))

    def _kept(self, name: str, entry: Discovery, before: Mapping[str, _Source]) -> _Source:
        known = before.get(name)
        if known is not None and known.config == entry:
            return known
        if known is not None and known.config.where == entry.where:
            # The template changed or the rhythm, not the place: its targets are not forgotten.
            known.counts.refresh = known.reader.refresh = entry.refresh
            return _Source(
                name=name, config=entry, reader=known.reader, counts=known.counts, found=known.found
            )
        place = entry.where
        reader: FileReader | HttpReader
        if isinstance(place, FileSd):
            reader = FileReader(place, self._folder, entry.refresh)
        else:
            reader = HttpReader(place, self._folder, entry.refresh)
        counts = SourceCounts(refresh=entry.refresh)
        return _Source(name=name, config=entry, reader=reader, counts=counts)

    async def _ask_again_and_again(self, source: _Source) -> None:
        while True:
            try:
                await self._ask(source)
            except Exception:
                # The edge: a fault of ours in one look must not end all those after it.
                source.counts.failures[Failure.INTERNAL] += 1
                log.exception("discovery: %s failed by itself", source.name)
            await asyncio.sleep(source.config.refresh)

    async def _ask(self, source: _Source) -> None:
        answer = await source.reader.read()
        self._note(source, answer)
        if answer.found != source.found or source.unheard:
            source.unheard = True
            if source.found.targets and not answer.found.targets:
                count = len(source.found.targets)
                log.warning("discovery: %s names no targets any more, it had %d", source.name, count)
            source.found = answer.found
            await self._make()
            await self._on_change()
            source.unheard = False

    def _note(self, source: _Source, answer: Answer) -> None:
        for failure in answer.failures:
            source.counts.failures[failure.failure] += 1
        if not answer.failures:
            source.counts.last_success = time()
        if answer.failures and not source.failing:
            texts = "; ".join(str(failure) for failure in answer.failures)
            log.warning("discovery: %s keeps its last good targets: %s", source.name, texts)
        if source.failing and not answer.failures:
            log.info("discovery: %s answers again", source.name)
        source.failing = bool(answer.failures)

    async def _make(self) -> None:
        """Make services of all targets, in the order of the sources, so that the first has a name."""
        async with self._making:
            sources = list(self._sources.values())
            made = await asyncio.to_thread(_made, sources, self._configured)
            for source, services in zip(sources, made, strict=True):
                _take(source, services)


def _take(source: _Source, made: Made) -> None:
    skipped: Counter[str] = Counter(made.skipped)
    if source.found.malformed:
        skipped[Skip.MALFORMED] = source.found.malformed
    if skipped and skipped != source.counts.skipped:
        example = made.example or "a group or a target that is not as the format wants it"
        log.warning(
            "discovery: %s: %d targets are skipped, for example %s", source.name, skipped.total(), example
        )
    source.made = made
    source.counts.skipped = skipped
    source.counts.targets = len(source.found.targets)


def _made(sources: list[_Source], configured: frozenset[str]) -> list[Made]:
    taken = set(configured)
    made = []
    for source in sources:
        gate = source.config.gate(source.name)
        services = services_of(source.found.targets, source.config.service, taken, source.made, gate=gate)
        taken |= services.services.keys()
        made.append(services)
    return made


async def _end(sources: list[_Source]) -> None:
    tasks = [source.task for source in sources if source.task is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
