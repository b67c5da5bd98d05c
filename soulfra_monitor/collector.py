"""What the library counts, for a prometheus_client registry of the service's own.

REGISTRY.register(monitor.collector())
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from soulfra_monitor.events import BOUNDS, Calls, Declared

if TYPE_CHECKING:
    from soulfra_monitor.monitor import Stats


@dataclass(slots=True)
class Sum:
    """Calls of one method by one caller since the process began."""

    failures: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


class Collector(Registered):
    """Calls, declared values and the library's own counts, as they are when they are scraped."""

    def __init__(
        self,
        drain: Callable[[], tuple[Calls, ...]],
        declared: Callable[[], tuple[Declared, ...]],
        stats: "Callable[[], Stats]",
    ) -> None:
        self._drain = drain
        self._declared = declared
        self._stats = stats
        self._sums: dict[tuple[str, str, str], Sum] = {}
        self._lock = Lock()

    def collect(self) -> Iterator[Metric]:
        """Give all families. May be asked by several scrapers at once."""
        with self._lock:
            for calls in self._drain():
                self._add(calls)
            families = [*self._of_calls(), *self._of_declared(), *self._of_library()]
        yield from families

    def describe(self) -> list[Metric]:
        """Give no names beforehand: that would take the counts."""
        return []

    def _add(self, calls: Calls) -> None:
        total = self._sums.setdefault((calls.service, calls.method, calls.caller), Sum())
        total.failures += calls.failures
        total.seconds += calls.seconds
        if calls.buckets:
            total.buckets = [old + new for old, new in zip(total.buckets, calls.buckets, strict=True)]

    def _of_calls(self) -> Iterator[Metric]:
        labels = ("target", "method", "caller")
        seconds = HistogramMetricFamily(
            "soulfra_call_duration_seconds", "Time that watched calls took.", labels=labels
        )
        failures = CounterMetricFamily("soulfra_call_failures", "Watched calls that failed.", labels=labels)
        for key, total in self._sums.items():
            seconds.add_metric(key, _cumulated(total.buckets), total.seconds)
            failures.add_metric(key, total.failures)
        yield seconds
        yield failures

    def _of_declared(self) -> Iterator[Metric]:
        labels = ("target", "name")
        gauges = GaugeMetricFamily("soulfra_declared", "What applications know of themselves.", labels=labels)
        counters = CounterMetricFamily("soulfra_declared", "What applications count.", labels=labels)
        for one in self._declared():
            (counters if one.counter else gauges).add_metric((one.service, one.name), one.value)
        yield gauges
        yield counters

    def _of_library(self) -> Iterator[Metric]:
        stats = self._stats()
        yield CounterMetricFamily("soulfra_library_seen", "Errors seen in this process.", value=stats.seen)
        yield CounterMetricFamily("soulfra_library_sent", "Errors told to the remediator.", value=stats.sent)
        yield GaugeMetricFamily("soulfra_library_pending", "Errors not yet told.", value=stats.pending)
        yield _by("soulfra_library_dropped", "Errors that are not told.", "reason", stats.dropped)
        yield _by("soulfra_library_failures", "Failures of the library itself.", "place", stats.broken)
        yield GaugeMetricFamily(
            "soulfra_library_shedding", "Steps of work left out to cost less.", value=int(stats.level)
        )


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for key, value in counts.items():
        family.add_metric((key,), value)
    return family


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    pairs: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], buckets, strict=True):
        below += count
        pairs.append((bound, below))
    return pairs
