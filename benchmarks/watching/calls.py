"""What a call costs: plain, watched by us, and as others measure calls; all in the same run."""

import asyncio
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.watching.quiet import Quiet
from soulfra_monitor.watching import Options, watch

ROUND = 0.004
"""Seconds of processor time that one round of one variant is to take."""

WARM_UP = 500
"""Calls after which the interpreter has adapted to what it runs."""

EVERYTHING = Options(slow=1.0, timeout=5.0, failed=lambda result: result is None)
"""All features on: slow calls, timeouts for the watchdog, a check of each result."""


class Analyzer:
    """What is called."""

    def analyze(self, value: int) -> int:
        """Return it: the least that a method can do."""
        return value

    async def analyze_later(self, value: int) -> int:
        """Return it."""
        return value


@dataclass
class Variant:
    """One way to measure calls."""

    name: str
    target: Analyzer
    asynchronous: bool = False
    before: Callable[[], object] = lambda: None  # each round
    calls: int = 0  # a round
    nanoseconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Processor time of one call."""
        return statistics.median(self.nanoseconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles below and above the median."""
        low, _, high = statistics.quantiles(self.nanoseconds, n=4)
        return low, high


def variants() -> tuple[list[Variant], list[str]]:
    """Return what can be measured here, and what cannot, with the reason."""
    found = [
        Variant("plain", Analyzer()),
        Variant("functools.wraps, handing through", _decorated(_through)),
        Variant("watched", watch(Analyzer(), "bench", Quiet())),
        Variant("watched, all features on", watch(Analyzer(), "bench", Quiet(), EVERYTHING)),
        Variant("async: plain", Analyzer(), asynchronous=True),
        Variant("async: watched", watch(Analyzer(), "bench", Quiet()), asynchronous=True),
        Variant(
            "async: watched, all features on",
            watch(Analyzer(), "bench", Quiet(), EVERYTHING),
            asynchronous=True,
        ),
    ]
    missing = []
    for make in (_prometheus, _sentry, _opentelemetry):
        try:
            found += make()
        except ImportError as error:
            missing.append(f"{error.name} is not installed")
    return found, missing


def measure(found: list[Variant], rounds: int) -> None:
    """Measure all of them in turn, as often as *rounds* says."""
    for variant in found:
        variant.calls = WARM_UP
        _round(variant)
        variant.calls = max(50, int(ROUND * 1e9 / _round(variant)))
    for _ in range(rounds):
        for variant in found:
            variant.nanoseconds.append(_round(variant))


def _round(variant: Variant) -> float:
    variant.before()
    if variant.asynchronous:
        return asyncio.run(_await(variant.target, variant.calls)) / variant.calls * 1e9
    return _call(variant.target, variant.calls) / variant.calls * 1e9


def _call(target: Analyzer, count: int) -> float:
    began = time.thread_time()
    for number in range(count):
        target.analyze(number)
    return time.thread_time() - began


async def _await(target: Analyzer, count: int) -> float:
    began = time.thread_time()
    for number in range(count):
        await target.analyze_later(number)
    return time.thread_time() - began


def _decorated(decorate: Callable[[Any], Any]) -> Analyzer:
    """Return an object whose class was decorated by hand, as others want it."""

    class Decorated(Analyzer):
        analyze = decorate(Analyzer.analyze)

    return Decorated()


def _through(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def through(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return through


def _prometheus() -> list[Variant]:
    import prometheus_client as prometheus  # noqa: PLC0415 - each peer is optional

    registry = prometheus.CollectorRegistry()
    seconds = prometheus.Histogram("seconds", "s", ["method"], registry=registry).labels("analyze")
    failures = prometheus.Counter("failures", "f", ["method"], registry=registry).labels("analyze")
    calls = prometheus.Counter("calls", "c", ["method"], registry=registry).labels("analyze")

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def measured(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            except Exception:
                failures.inc()
                raise
            finally:
                seconds.observe(time.perf_counter() - began)
                calls.inc()

        return measured

    return [Variant("prometheus_client, histogram and counter", _decorated(decorate))]


def _sentry() -> list[Variant]:
    import sentry_sdk  # noqa: PLC0415
    from sentry_sdk.transport import Transport  # noqa: PLC0415

    class Nowhere(Transport):
        def capture_envelope(self, envelope: object) -> None:
            del envelope

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1",
        traces_sampler=lambda context: float(context["transaction_context"]["name"] == "sampled"),
        transport=Nowhere,
        default_integrations=False,
    )
    traced = _decorated(sentry_sdk.trace)
    current: list[Any] = []

    def begin(name: str) -> None:
        while current:
            current.pop().__exit__(None, None, None)
        transaction = sentry_sdk.start_transaction(name=name)
        current.append(transaction.__enter__())

    return [
        Variant("sentry_sdk.trace, not sampled", traced, before=lambda: begin("not sampled")),
        Variant("sentry_sdk.trace, sampled", traced, before=lambda: begin("sampled")),
    ]


def _opentelemetry() -> list[Variant]:
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler  # noqa: PLC0415

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            del spans
            return SpanExportResult.SUCCESS

    meter = MeterProvider([InMemoryMetricReader()]).get_meter("bench")
    seconds = meter.create_histogram("seconds")
    labels = {"method": "analyze"}

    def measured_by(sampler: Sampler) -> Analyzer:
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        tracer = provider.get_tracer("bench")

        def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def measured(*args: Any, **kwargs: Any) -> Any:
                began = time.perf_counter()
                with tracer.start_as_current_span("analyze"):
                    try:
                        return method(*args, **kwargs)
                    finally:
                        seconds.record(time.perf_counter() - began, labels)

            return measured

        return _decorated(decorate)

    return [
        Variant("OpenTelemetry, span (not sampled) and metric", measured_by(ALWAYS_OFF)),
        Variant("OpenTelemetry, span (sampled) and metric", measured_by(ALWAYS_ON)),
    ]
