"""What the library counts, for a prometheus_client registry of the service's own.

REGISTRY.register(monitor.collector())
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from soulfra_monitor.events import BOUNDS, Calls, Declared

if TYPE_CHECKING:
    from soulfra_monitor.life import Stats


@dataclass(slots=True)
class Sum:
    """Calls of one method by one caller since the process began."""

    failures: int = 0
    seconds: float = 0.0
    buckets: Sequence[int] = (0,) * (len(BOUNDS) + 1)

    def add(self, more: "Calls | Sum") -> None:
        self.failures += more.failures
        self.seconds += more.seconds
        self.buckets = [old + new for old, new in zip(self.buckets, more.buckets, strict=True)]


class Collector(Registered):
    """Calls, declared values and the library's own counts, as they are when they are scraped.

    The first two bear the names under which the remediator would expose them.
    """

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
                key = (calls.service, calls.method, calls.caller)
                self._sums.setdefault(key, Sum()).add(calls)
            families = [*self._of_calls(), *self._of_declared(), *self._of_library()]
        yield from families

    def describe(self) -> list[Metric]:
        """Give no names beforehand: that would take the counts."""
        return []

    def _of_calls(self) -> Iterator[Metric]:
        labels = ("target", "method", "caller")
        counts = CounterMetricFamily("soulfra_calls", "Calls of watched methods.", labels=labels)
        failures = CounterMetricFamily(
            "soulfra_call_failures", "Calls of watched methods that failed.", labels=labels
        )
        seconds = HistogramMetricFamily(
            "soulfra_call_duration_seconds", "How long calls of watched methods took.", labels=labels[:2]
        )
        methods: dict[tuple[str, str], Sum] = {}
        for key, total in self._sums.items():
            counts.add_metric(key, sum(total.buckets))
            failures.add_metric(key, total.failures)
            methods.setdefault(key[:2], Sum()).add(total)
        for place, total in methods.items():
            seconds.add_metric(place, _cumulated(total.buckets), total.seconds)
        yield from (counts, failures, seconds)

    def _of_declared(self) -> Iterator[Metric]:
        labels = ("target", "name")
        gauges = GaugeMetricFamily("soulfra_declared_value", "Values that services declare.", labels=labels)
        counters = CounterMetricFamily("soulfra_declared", "Counters that services declare.", labels=labels)
        low = GaugeMetricFamily("soulfra_declared_low", "Below it a declared value is wrong.", labels=labels)
        high = GaugeMetricFamily(
            "soulfra_declared_high", "Above it a declared value is wrong.", labels=labels
        )
        for one in self._declared():
            key = (one.service, one.name)
            (counters if one.counter else gauges).add_metric(key, one.value)
            if one.low is not None:
                low.add_metric(key, one.low)
            if one.high is not None:
                high.add_metric(key, one.high)
        yield from (gauges, counters, low, high)

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


def _cumulated(buckets: Sequence[int]) -> list[tuple[str, float]]:
    pairs: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], buckets, strict=True):
        below += count
        pairs.append((bound, below))
    return pairs
