"""What is to be run, and in which rhythm. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

from exporter.config import ExporterSection, Integration, WatchConfig
from exporter.gate import OPEN, Gate
from exporter.kinds import ProbeBase
from exporter.state import Settings

BATCH = 4
LONGEST_TICK = 0.02  # seconds

Key = tuple[str, str, str]  # "service", target, probe or "edge", source, destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run: a probe with its rhythm. Equal plans keep their state over a reload."""

    config: ProbeBase
    settings: Settings
    stopped_fails: bool
    gate: Gate = OPEN


def settings_of(probe: ProbeBase, section: ExporterSection) -> Settings:
    """Return the rhythm of *probe*, what it leaves out taken from the exporter's section."""
    return Settings(
        interval=probe.interval or section.interval,
        interval_on_failure=probe.interval_on_failure or section.interval_on_failure,
        timeout=probe.timeout or section.timeout,
        confirm=probe.confirm or section.confirm,
    )


def plans_of(config: WatchConfig) -> Iterator[tuple[Key, Plan]]:
    """Return everything that is to be run under *config*."""
    section = config.exporter
    for target, service in config.services.items():
        for name, probe in service.all_probes():
            # Beside network probes a stopped process is told by their timeouts.
            plan = Plan(
                config=probe,
                settings=settings_of(probe, section),
                stopped_fails=not service.probes,
                gate=service.gate,
            )
            yield ("service", target, name), plan
    for edge in config.integrations:
        yield (
            edge_key(edge),
            Plan(config=edge.probe, settings=settings_of(edge.probe, section), stopped_fails=False),
        )


def tick_of(intervals: Iterable[float]) -> float:
    """Return the seconds in which about BATCH probes start: started together they cost a third less.

    The last of a batch waits for the others' part of the work, some 0.1 ms each; so it is kept small.
    """
    rate = sum(1 / interval for interval in intervals)
    return min(LONGEST_TICK, BATCH / rate) if rate else LONGEST_TICK


def phase_of(key: Key, interval: float, tick: float) -> float:
    """Return when in its interval a probe starts: by the hash of its name, on a tick."""
    wanted = crc32(" ".join(key).encode()) / 2**32 * interval
    return wanted - wanted % tick


def edge_key(edge: Integration) -> Key:
    return "edge", edge.from_, edge.to
