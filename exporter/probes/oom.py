"""Counts how often processes of a container were killed for want of memory.

The kernel counts each process that it kills, but its count ends with the run of the container. The
engine tells of kills by events, but remembers them only until some hundred others have come. So
the kernel's word is taken for a run that lasts, the engine's for one that has ended between two
looks, and both together may be fewer than there were, never more.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from exporter.probes.context import Progress
from exporter.probes.engine import Engine, EngineError, filters

_OOM = "oom"  # key of what is recalled
_MOMENT = re.compile(r"[0-9T:-]{19}(?:\.([0-9]{1,9}))?Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The last run of a container, which may be over."""

    container: str
    began: str  # as the engine writes it
    kernel: int | None  # kills by the kernel's count; None when that cannot be read
    killed: bool  # whether the engine says that it ended so


@dataclass(slots=True, kw_only=True)
class OomCount:
    """Kills for want of memory, as far as they were seen."""

    container: str
    began: str  # of the run that was seen last
    counted: int = 0  # in that run
    total: int = 0


def run_of(container: str, state: Mapping[str, Any], kernel: int | None) -> Run:
    """Read the engine's state of a container."""
    return Run(
        container=container,
        began=str(state.get("StartedAt")),
        kernel=kernel,
        # While a run lasts, some engines still say this of the one before.
        killed=not state.get("Pid") and state.get("OOMKilled") is True,
    )


async def count_kills(engine: Engine, run: Run, recall: dict[str, Any], progress: Progress) -> OomCount:
    """Return which kills were seen, from the run of the first look on. Raises OSError."""
    known: OomCount | None = recall.get(_OOM)
    if known is None or known.container != run.container:
        known = OomCount(container=run.container, began=run.began)
        recall[_OOM] = known
    began = known.began
    seen = await _seen(engine, run, began, progress)
    if known.began != began:  # another look at the same time was faster
        return known
    known.total += max(0, seen - known.counted)
    known.counted = max(seen, known.counted)
    if run.began != began:
        known.began, known.counted = run.began, run.kernel or 0
        known.total += known.counted
    return known


async def _seen(engine: Engine, run: Run, began: str, progress: Progress) -> int:
    """Return the kills in the run that began at *began*, which may be over."""
    if run.began != began:
        return await _events(engine, run.container, began, run.began, progress)
    if run.kernel is not None:
        return run.kernel
    # The engine may tell of the kill after the end, and only then.
    return max(await _events(engine, run.container, began, "", progress), int(run.killed))


async def _events(engine: Engine, identity: str, began: str, ended: str, progress: Progress) -> int:
    """Count the kills that the engine tells of from *began* to *ended*, or up to the present second."""
    # An end that is still to come would be waited for.
    since, until = _stamp(began), _stamp(ended) or f"{engine.clock}.000000000"
    if since is None or not engine.clock:
        return 0
    wanted = filters(type=["container"], event=["oom"], container=[identity])
    try:
        found = await engine.ask("/events", since=since, until=until, filters=wanted)
    except EngineError as error:
        progress.note("events cannot be asked for: %s", error)
        return 0
    return len(found) if isinstance(found, list) else 1


def _stamp(moment: str) -> str | None:
    """Write the engine's time as the seconds and nanoseconds that it takes itself."""
    found = _MOMENT.fullmatch(moment)
    seconds = seconds_of(moment)
    if found is None or seconds is None:
        return None
    return f"{int(seconds)}.{(found[1] or '').ljust(9, '0')}"


def seconds_of(moment: object) -> float | None:
    """Return epoch seconds of a time of the engine; None for its year 1, which is never."""
    try:
        seconds = datetime.fromisoformat(str(moment)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None
