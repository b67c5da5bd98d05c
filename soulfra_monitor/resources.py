"""What a process uses up: open files, threads, memory. Looked at each second, told before it is exhausted.

A level (80 % of the limit on open files, 90 % of that on memory) is told when it is reached. Growth is told
when it is steady and leads to the limit soon: over one of three windows, growth must be significant
(Mann-Kendall) in both halves, and the line through it (Theil-Sen) must reach the limit within a few times the
window. Looking at minima, a sawtooth of the garbage collector is flat; a step, however high, is flat in one
of the halves.

Sources: Mann (1945), Kendall (1975); Theil (1950), Sen (1968).
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import sqrt

from soulfra_monitor import groups
from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact, Reporter, Undo
from soulfra_monitor.hooks.pulse import pulse
from soulfra_monitor.loading import pythons

EVERY = 1.0
"""Seconds between looks."""

HANDLES_SHARE = 0.8
MEMORY_SHARE = 0.9
AGAIN_BELOW = 0.9  # of the level: what falls below is told again when it comes back
QUIET = 600.0
"""Seconds after which steady growth is told again."""

WARM_UP = 60.0
"""Seconds at the begin in which growth is normal."""

POINTS = 30
WINDOWS = ((1, 120.0), (10, 1200.0), (120, 7200.0))
"""Windows of 30 minima, each of so many looks, and the seconds that one looks ahead from there: half a minute
for two, five minutes for twenty, an hour for two."""

SIGNIFICANT = 2.33  # standard deviations: one time in a hundred by chance, in each half

LEAST_HANDLES = 20
LEAST_MEMORY = 10_000_000
LEAST_THREADS = 30
THREADS_FACTOR = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the process uses now."""

    handles: int
    threads: int
    memory: int  # resident bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What it may use; 0 where there is no limit."""

    handles: int
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Steady growth over a window."""

    slope: float  # a second
    first: float
    last: float
    window: float  # seconds
    horizon: float  # seconds that it can be drawn out for

    def until(self, limit: float) -> float:
        """Return the seconds until *limit* is reached."""
        return (limit - self.last) / self.slope


def growth(values: Sequence[float], step: float, horizon: float) -> Growth | None:
    """Return how *values*, *step* seconds apart, grow steadily; None if they do not."""
    half = len(values) // 2
    if any(mann_kendall(part) < SIGNIFICANT for part in (values[:half], values[half:])):
        return None
    slope = theil_sen(values) / step
    if slope <= 0:
        return None
    return Growth(slope=slope, first=values[0], last=values[-1], window=step * len(values), horizon=horizon)


def mann_kendall(values: Sequence[float]) -> float:
    """Return the test's z: how many standard deviations of upward order there are."""
    n = len(values)
    score = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    ties = [values.count(value) for value in set(values)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    if variance <= 0 or score == 0:
        return 0.0
    return (score - (1 if score > 0 else -1)) / sqrt(variance)


def theil_sen(values: Sequence[float]) -> float:
    """Return the median of the slopes between all pairs, by steps."""
    pairs = combinations(enumerate(values), 2)
    slopes = sorted((later - earlier) / (j - i) for (i, earlier), (j, later) in pairs)
    middle = len(slopes) // 2
    return slopes[middle] if len(slopes) % 2 else (slopes[middle - 1] + slopes[middle]) / 2


class Window:
    """The minima of the last looks."""

    def __init__(self, step: int, horizon: float) -> None:
        self.step = step
        self.horizon = horizon
        self.minima: list[float] = []
        self._looks = 0
        self._minimum = 0.0

    def add(self, value: float) -> bool:
        """Take a look's value; true when there is a new minimum, and as many as a window holds."""
        self._minimum = value if self._looks == 0 else min(self._minimum, value)
        self._looks += 1
        if self._looks < self.step:
            return False
        self._looks = 0
        self.minima = [*self.minima[-POINTS + 1 :], self._minimum]
        return len(self.minima) == POINTS


class Series:
    """One kind of usage over time."""

    def __init__(self) -> None:
        self._windows = [Window(step, horizon) for step, horizon in WINDOWS]

    def add(self, value: float) -> list[Growth]:
        """Take a look's value; return steady growth over windows that have moved on."""
        moved = [window for window in self._windows if window.add(value)]
        grown = [growth(window.minima, window.step * EVERY, window.horizon) for window in moved]
        return [one for one in grown if one is not None]


class Resources:
    """Looks, judges and tells."""

    def __init__(
        self, reporter: Reporter, use: Callable[[], Usage], limits: Callable[[], Limits], now: float
    ) -> None:
        self._reporter = reporter
        self._use = use
        self._limits = limits
        self._began = now
        self._next = now
        self._series = {kind: Series() for kind in (Kind.HANDLES, Kind.THREADS, Kind.MEMORY)}
        self._full: set[Kind] = set()
        self._grown: dict[Kind, float] = {}

    def look(self, now: float) -> None:
        """Look if a second has passed."""
        if now < self._next:
            return
        self._next = now + EVERY
        limits, used = self._limits(), self._use()
        self._level(Kind.HANDLES, used.handles, limits.handles, HANDLES_SHARE)
        self._level(Kind.MEMORY, used.memory, limits.memory, MEMORY_SHARE)
        for kind, value, limit in (
            (Kind.HANDLES, used.handles, limits.handles),
            (Kind.THREADS, used.threads, 0),
            (Kind.MEMORY, used.memory, limits.memory),
        ):
            for one in self._series[kind].add(value):
                if now - self._began > WARM_UP + one.window and leads_to_trouble(kind, one, limit):
                    self._tell_growth(kind, one, limit, now)

    def _level(self, kind: Kind, value: int, limit: int, share: float) -> None:
        if limit and value >= share * limit and kind not in self._full:
            self._full.add(kind)
            self._reporter.noted(
                kind,
                f"{_NAMES[kind]}: {value / limit:.0%} of the limit",
                facts={"value": value, "limit": limit},
            )
        elif value < AGAIN_BELOW * share * limit:
            self._full.discard(kind)

    def _tell_growth(self, kind: Kind, one: Growth, limit: int, now: float) -> None:
        if now - self._grown.get(kind, float("-inf")) < QUIET:
            return
        self._grown[kind] = now
        facts: dict[str, Fact] = {"value": int(one.last)}
        if limit:
            facts |= {"limit": limit, "seconds": round(one.until(limit), 1)}
        self._reporter.noted(
            kind,
            f"{_NAMES[kind]}: they grow steadily",
            facts=facts,
            context={
                "growth_per_second": round(one.slope, 3),
                "window": one.window,
                "before": int(one.first),
            },
        )


_NAMES = {Kind.HANDLES: "open files", Kind.THREADS: "threads", Kind.MEMORY: "bytes of memory"}


def leads_to_trouble(kind: Kind, one: Growth, limit: int) -> bool:
    """Tell whether steady growth is worth telling: much of it, and to an end that is near."""
    grown = one.last - one.first
    if kind is Kind.THREADS:
        return grown >= LEAST_THREADS and one.last >= THREADS_FACTOR * one.first
    least = LEAST_HANDLES if kind is Kind.HANDLES else LEAST_MEMORY
    return bool(limit) and grown >= least and one.until(limit) <= one.horizon


def install(reporter: Reporter) -> Undo:
    """Look at this process each second."""
    resources = Resources(reporter, usage, limits, time.monotonic())
    return pulse.add(resources.look, reporter)


def usage() -> Usage:
    """Return what this process uses. Zeros where the system does not say."""
    try:
        with open("/proc/self/stat", "rb") as file:
            parts = file.read().rpartition(b")")[2].split()
    except OSError as error:
        return Usage(handles=handles(error), threads=0, memory=0)
    return Usage(handles=handles(), threads=int(parts[17]), memory=int(parts[21]) * _PAGE)


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_TOO_MANY = 24  # errno.EMFILE


def handles(error: OSError | None = None) -> int:
    """Return the number of open files: from Linux 6.2 on without listing them."""
    if error is not None and error.errno == _TOO_MANY:
        return limits().handles
    try:
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1
    except OSError as failure:
        return limits().handles if failure.errno == _TOO_MANY else 0


def limits() -> Limits:
    """Return what this process may use."""
    resource = pythons("resource")  # not everywhere
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limits(handles=max(files, 0), memory=_memory_limit())


@cache
def _memory_limit() -> int:
    """Return the bytes that control groups and the machine leave to this process."""
    bounds = [groups.memory_limit()]
    if hasattr(os, "sysconf"):
        bounds.append(os.sysconf("SC_PHYS_PAGES") * _PAGE)
    return min(filter(None, bounds), default=0)
