"""Jobs and loops that must report: what is known of each, whether it is late, and the metrics of both."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from remediator.store import Heartbeat


class Pulse(StrEnum):
    """How a job stands."""

    NEW = "new"  # expected, never heard, and not late yet
    RUNNING = "running"  # it started, and has not ended since
    UP = "up"
    FAILED = "failed"  # the last word was a failure
    LATE = "late"  # the period is over, the grace is not
    MISSED = "missed"


def pulse_of(beat: Heartbeat, now: float) -> Pulse:
    """Say how a job stands at *now*. Lateness counts from the last success: a failure is none.

    What it said before it was expected counts for nothing.
    """
    since = max(beat.since, beat.last_success or 0.0)
    if beat.period is not None and now > since + beat.period + (beat.grace or 0.0):
        return Pulse.MISSED
    failed = max(since, beat.last_failure or 0.0)
    if (beat.last_start or 0.0) > failed:
        return Pulse.RUNNING
    if failed > since:
        return Pulse.FAILED
    if beat.period is not None and now > since + beat.period:
        return Pulse.LATE
    return Pulse.UP if (beat.last_success or -1.0) >= beat.since else Pulse.NEW


_TIMES: Mapping[str, tuple[str, Callable[[Heartbeat], float | None]]] = {
    "last_success_timestamp_seconds": (
        "When the job last reported success; 0 when it never did.",
        lambda beat: beat.last_success or 0.0,
    ),
    "last_start_timestamp_seconds": (
        "When the job last reported that it started; 0 when it never did.",
        lambda beat: beat.last_start or 0.0,
    ),
    "last_failure_timestamp_seconds": (
        "When the job last reported a failure; 0 when it never did.",
        lambda beat: beat.last_failure or 0.0,
    ),
    "expected_since_timestamp_seconds": (
        "Since when the job is expected to report.",
        lambda beat: beat.since,
    ),
    "period_seconds": ("How often the job must report success.", lambda beat: beat.period),
    "grace_seconds": ("How much later than its period a report may come.", lambda beat: beat.grace),
    "last_exit_code": (
        "The exit code in the job's last report that had one.",
        lambda beat: beat.last_exit_code,
    ),
}


class HeartbeatCollector(Collector):
    """Exposes what the store knows of the jobs that are configured, at each scrape anew."""

    def __init__(
        self, registry: CollectorRegistry, names: Sequence[str], read: Callable[[], Sequence[Heartbeat]]
    ) -> None:
        self._names = frozenset(names)
        self._read = read
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge for each fact, with the label heartbeat."""
        beats = [beat for beat in self._read() if beat.name in self._names] if self._names else []
        for name, (text, value_of) in _TIMES.items():
            family = GaugeMetricFamily(f"soulfra_heartbeat_{name}", text, labels=["heartbeat"])
            for beat in beats:
                value = value_of(beat)
                if value is not None:
                    family.add_metric([beat.name], value)
            yield family

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: reading the store while registering is no use."""
        return iter(())
