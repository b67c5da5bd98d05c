"""The answer of ``/probe`` in the metric names of blackbox_exporter, for dashboards that know those."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from exporter.metrics import Family, Samples, label
from exporter.observation import Observation, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One on-demand run of the probes of a target; a probe without an answer in time is missing."""

    observations: Mapping[str, Observation]
    missing: tuple[str, ...]
    seconds: float
    limit: float


def blackbox_families(probed: Probed) -> Iterator[Family]:
    """All metrics of one ``/probe`` answer; nothing is left from the one before."""
    outcomes = [seen.outcome for seen in probed.observations.values()]
    failures = {name: seen.reason for name, seen in probed.observations.items() if seen.reason is not None}
    failures |= dict.fromkeys(probed.missing, Reason.TIMEOUT)
    ends = [outcome.tls.not_after for outcome in outcomes if outcome.tls is not None]
    http = [outcome for outcome in outcomes if outcome.http is not None]
    success = bool(outcomes) and not failures
    yield _gauge("probe_success", "Displays whether or not the probe was a success", [("", int(success))])
    yield _gauge(
        "probe_duration_seconds",
        "Returns how long the probe took to complete in seconds",
        [("", probed.seconds)],
    )
    yield _gauge("probe_timeout_seconds", "Returns the timeout of the probe in seconds", [("", probed.limit)])
    yield _gauge(
        "probe_failure_info",
        "Why probes of the target failed",
        [(label(probe=name, reason=reason), 1) for name, reason in failures.items()],
    )
    if http:
        status = http[0].http.status if http[0].http else 0
        yield _gauge("probe_http_status_code", "Response HTTP status code", [("", status)])
        phases = [(label(phase=phase), seconds) for phase, seconds in http[0].phases.items()]
        yield _gauge(
            "probe_http_duration_seconds",
            "Duration of http request by phase, the connect phase including TLS",
            phases,
        )
    if ends:
        yield _gauge(
            "probe_ssl_earliest_cert_expiry",
            "Returns earliest SSL cert expiry in unixtime",
            [("", min(ends))],
        )


def _gauge(name: str, help_text: str, samples: Samples) -> Family:
    return Family(name=name, kind="gauge", help=help_text, samples=samples)
