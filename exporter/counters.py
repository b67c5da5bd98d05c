"""What the exporter counts about itself, and the histogram that all durations go into."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SKIPS = ("in_flight", "concurrency", "failing", "stalled", "overtaken")
PLACES = ("probe", "scheduler", "fast_path", "request", "reload")


@dataclass(slots=True)
class Histogram:
    """Counts per bucket, not cumulated; the last is everything above the largest bound."""

    bounds: tuple[float, ...] = BUCKETS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class DnsCounts:
    """What names cost; a hit is answered from what is kept."""

    lookups: int = 0
    hits: int = 0
    failures: int = 0


@dataclass(slots=True)
class SourceCounts:
    """What is told of one source of services."""

    targets: int = 0  # that it names
    skipped: Counter[str] = field(default_factory=Counter)  # of those, by reason
    failures: Counter[str] = field(default_factory=Counter)
    last_success: float = 0.0
    refresh: float = 0.0  # seconds between looks


@dataclass(slots=True)
class Counters:
    """The exporter's own numbers; raised where things happen, rendered by metrics."""

    in_progress: int = 0
    concurrency: int = 0  # how many probes may run at once
    schedule_lag: Histogram = field(default_factory=Histogram)
    event_loop_lag: float = 0.0  # the largest of the last seconds
    skipped: Counter[str] = field(default_factory=Counter)
    delayed: int = 0  # time-outs that the exporter caused itself
    dns: DnsCounts = field(default_factory=DnsCounts)
    internal_errors: Counter[str] = field(default_factory=Counter)
    reload_successful: bool = True
    reload_success_at: float = 0.0
    posts: Counter[str] = field(default_factory=Counter)  # by Alertmanager
    post_failures: Counter[str] = field(default_factory=Counter)
    discovery: Mapping[str, SourceCounts] = field(default_factory=dict)  # by source
