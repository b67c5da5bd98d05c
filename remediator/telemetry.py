"""What applications count of themselves: calls, declared values, and what their libraries had to drop.

It lives in memory. A restart of the remediator begins counters at 0 again, as Prometheus expects of counters;
errors themselves are in the store.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from soulfra_monitor.events import BOUNDS, Batch, Calls, Declared
from soulfra_monitor.redaction import FAILURES, redact

SERIES_LIMIT = 20_000
"""Series of all services together. What comes above is added up under REST, so that a scrape stays quick."""

STRANGERS_LIMIT = 5_000
"""Of those, what services may have that nobody has configured: names come from outside."""

SERVICES_LIMIT = 200
METHODS_LIMIT = 200
CALLERS_LIMIT = 50
DECLARED_LIMIT = 100
REASONS_LIMIT = 32
"""Of strangers; of methods, declared names and reasons of one service, and of callers of one method."""

FORGOTTEN_AFTER = 3600.0
"""Seconds of silence after which a stranger's series make room for others'."""

NAME_LENGTH = 120
REST = "(other)"
_OF_SERVICE, _OF_REASON = 2, 1  # series

T = TypeVar("T")


@dataclass(slots=True)
class _Cell:
    count: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Method:
    callers: dict[str, _Cell] = field(default_factory=dict)
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


@dataclass(slots=True)
class _Value:
    value: float = 0.0
    counter: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class _Part(Generic[T]):
    """A kind of thing that has a name: how one is made, how many there may be, and the series of each."""

    make: Callable[[], T]
    limit: int
    series: int


_METHODS = _Part(_Method, METHODS_LIMIT, len(BOUNDS) + 3)
_CALLERS = _Part(_Cell, CALLERS_LIMIT, 2)
_DECLARED = _Part(_Value, DECLARED_LIMIT, 3)


@dataclass(slots=True)
class _Service:
    stranger: bool
    methods: dict[str, _Method] = field(default_factory=dict)
    declared: dict[str, _Value] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    series: int = 0
    touched_at: float = 0.0
    heard_at: float = 0.0
    shedding: bool = False


class Telemetry(Collector):
    """Adds up what batches bring and exposes it, within bounds. Safe for several threads."""

    def __init__(self, registry: CollectorRegistry, services: Iterable[str] = ()) -> None:
        self._configured = frozenset(services)
        self._services: dict[str, _Service] = {}
        self._lock = Lock()
        registry.register(self)

    def take(self, batch: Batch, now: float) -> None:
        """Add the deltas of a batch that was not taken before."""
        with self._lock:
            self._forget(now)
            for calls in batch.calls:
                self._add(calls, now)
            for declared in batch.declared:
                self._declare(declared, now)
            if batch.sender.service:
                sender = self._service(batch.sender.service, now)
                sender.heard_at, sender.shedding = now, batch.shedding
                self._drop(sender, batch.dropped.items())

    def drop(self, service: str, reason: str, count: int, now: float) -> None:
        """Count what a sender of *service* says that it did not send."""
        with self._lock:
            self._drop(self._service(service, now), [(reason, count)])

    def _service(self, name: str, now: float) -> _Service:
        name = _name(name)
        service = self._services.get(name)
        if service is None:
            stranger = name not in self._configured
            strangers = sum(known.stranger for known in self._services.values())
            if stranger and (strangers >= SERVICES_LIMIT or not self._has_room(_OF_SERVICE, stranger=True)):
                name = REST
            service = self._services.setdefault(name, _Service(stranger=stranger, series=_OF_SERVICE))
        service.touched_at = now
        return service

    def _has_room(self, series: int, *, stranger: bool) -> bool:
        used = sum(known.series for known in self._services.values())
        by_strangers = sum(known.series for known in self._services.values() if known.stranger)
        return used + series <= SERIES_LIMIT and not (stranger and by_strangers + series > STRANGERS_LIMIT)

    def _place(self, service: _Service, known: dict[str, T], name: str, part: _Part[T]) -> T:
        """Return what is known under *name*, or under REST when there is no room for another."""
        name = _name(name) if name else name
        if name not in known:
            if len(known) >= part.limit or not self._has_room(part.series, stranger=service.stranger):
                name = REST
            if name not in known:
                known[name] = part.make()
                service.series += part.series
        return known[name]

    def _add(self, calls: Calls, now: float) -> None:
        service = self._service(calls.service, now)
        method = self._place(service, service.methods, calls.method, _METHODS)
        cell = self._place(service, method.callers, calls.caller, _CALLERS)
        cell.count += calls.count
        cell.failures += calls.failures
        method.seconds += calls.seconds
        if calls.buckets:
            method.buckets = [old + new for old, new in zip(method.buckets, calls.buckets, strict=True)]
        elif calls.count:
            # Only the sum is known: all are taken to be alike.
            method.buckets[bisect_left(BOUNDS, calls.seconds / calls.count)] += calls.count

    def _declare(self, declared: Declared, now: float) -> None:
        service = self._service(declared.service, now)
        known = self._place(service, service.declared, declared.name, _DECLARED)
        if known.counter is not declared.counter:  # it is another thing now, with the same name
            known.counter, known.value = declared.counter, 0.0
        known.value = known.value + declared.value if declared.counter else declared.value
        known.low, known.high = declared.low, declared.high

    def _drop(self, service: _Service, dropped: Iterable[tuple[str, int]]) -> None:
        for reason, count in dropped:
            name = _name(reason)
            if name not in service.dropped:
                if len(service.dropped) >= REASONS_LIMIT or not self._has_room(
                    _OF_REASON, stranger=service.stranger
                ):
                    name = REST
                service.series += name not in service.dropped
            service.dropped[name] = service.dropped.get(name, 0) + count

    def _forget(self, now: float) -> None:
        """Make room: a stranger that has been silent for long is told no more."""
        gone = [
            name
            for name, known in self._services.items()
            if known.stranger and now - known.touched_at > FORGOTTEN_AFTER
        ]
        for name in gone:
            del self._services[name]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as Prometheus's client asks for it."""
        with self._lock:
            yield from (*self._of_calls(), *self._of_declared(), *self._of_senders())
        yield CounterMetricFamily(
            "soulfra_redaction_failures",
            "Texts that could not be looked through for secrets and were left out whole.",
            value=FAILURES.total(),
        )

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: what is exposed depends on what comes in."""
        return iter(())

    def _of_calls(self) -> Iterator[Metric]:
        labels = ["target", "method", "caller"]
        counts = CounterMetricFamily("soulfra_calls", "Calls of watched methods.", labels=labels)
        failures = CounterMetricFamily(
            "soulfra_call_failures", "Calls of watched methods that failed.", labels=labels
        )
        times = HistogramMetricFamily(
            "soulfra_call_duration_seconds", "How long calls of watched methods took.", labels=labels[:2]
        )
        for target, service in self._services.items():
            for name, method in service.methods.items():
                for caller, cell in method.callers.items():
                    counts.add_metric([target, name, caller], cell.count)
                    failures.add_metric([target, name, caller], cell.failures)
                times.add_metric([target, name], _cumulative(method.buckets), method.seconds)
        yield from (counts, failures, times)

    def _of_declared(self) -> Iterator[Metric]:
        labels = ["target", "name"]
        gauges = GaugeMetricFamily("soulfra_declared_value", "Values that services declare.", labels=labels)
        counters = CounterMetricFamily("soulfra_declared", "Counters that services declare.", labels=labels)
        low = GaugeMetricFamily("soulfra_declared_low", "Below it a declared value is wrong.", labels=labels)
        high = GaugeMetricFamily(
            "soulfra_declared_high", "Above it a declared value is wrong.", labels=labels
        )
        for target, service in self._services.items():
            for name, known in service.declared.items():
                (counters if known.counter else gauges).add_metric([target, name], known.value)
                if known.low is not None:
                    low.add_metric([target, name], known.low)
                if known.high is not None:
                    high.add_metric([target, name], known.high)
        yield from (gauges, counters, low, high)

    def _of_senders(self) -> Iterator[Metric]:
        dropped = CounterMetricFamily(
            "soulfra_sender_dropped",
            "Errors that the library in a service counted but did not send, by reason.",
            labels=["target", "reason"],
        )
        heard = GaugeMetricFamily(
            "soulfra_sender_last_seen_timestamp_seconds",
            "When the library in a service last sent anything.",
            labels=["target"],
        )
        shedding = GaugeMetricFamily(
            "soulfra_sender_shedding",
            "Whether the library in a service does less than it could, to stay below its limit of overhead.",
            labels=["target"],
        )
        for target, service in self._services.items():
            for reason, count in service.dropped.items():
                dropped.add_metric([target, reason], count)
            if service.heard_at:
                heard.add_metric([target], service.heard_at)
                shedding.add_metric([target], int(service.shedding))
        yield from (dropped, heard, shedding)


def _name(text: str) -> str:
    return redact(text)[:NAME_LENGTH]


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total, found = 0, []
    for bound, count in zip((*BOUNDS, inf), buckets, strict=True):
        total += count
        found.append(("+Inf" if bound == inf else repr(bound), float(total)))
    return found
