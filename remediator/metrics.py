"""The remediator's own metrics, in one place. Names and labels are what rules and dashboards rely on."""

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from remediator.run import Outcome
from remediator.signals import Reason, Signal, Status, Verdict
from soulfra_monitor import __version__
from soulfra_monitor.problems import Severity

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter

TARGETS_LIMIT = 500
"""Services with counters of their own; those that nobody has configured come from outside."""

_SECONDS = (0.5, 1, 2, 3, 5, 8, 12, 20, 30, 60, 120, 300)


class Metrics:
    """Every counter, gauge and histogram of one remediator; known label values start at 0."""

    def __init__(self, playbooks: Iterable[str] = (), services: Iterable[str] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.build_info = Gauge(
            "soulfra_remediator_build_info", "Version of the remediator.", ["version"], registry=registry
        )
        self.build_info.labels(__version__).set(1)
        self.webhook_requests = Counter(
            "soulfra_webhook_requests_total",
            "Posts to the alert webhook by answer.",
            ["code"],
            registry=registry,
        )
        self.webhook_seconds = Histogram(
            "soulfra_webhook_request_duration_seconds",
            "Time to store and answer a post of alerts.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=registry,
        )
        self.webhook_alerts = Counter(
            "soulfra_webhook_alerts_total", "Alerts taken in, by their status.", ["status"], registry=registry
        )
        self.truncated_alerts = Counter(
            "soulfra_webhook_truncated_alerts_total",
            "Alerts that Alertmanager left out of a post.",
            registry=registry,
        )
        self.ingest_requests = Counter(
            "soulfra_ingest_requests_total",
            "Posts of applications' errors by endpoint and answer.",
            ["endpoint", "code"],
            registry=registry,
        )
        self.error_events = Counter(
            "soulfra_error_events_total",
            "Errors that applications told of, by severity; alike ones count each.",
            ["target", "severity"],
            registry=registry,
        )
        self.problem_events = Counter(
            "soulfra_problem_events_total",
            "Errors that applications told of, by problem; alike ones count each.",
            ["target", "problem"],
            registry=registry,
        )
        self.decisions = Counter(
            "soulfra_decisions_total",
            "Decisions by verdict and reason.",
            ["verdict", "reason"],
            registry=registry,
        )
        self.runs = Counter(
            "soulfra_runs_total", "Runs that ended, by outcome.", ["playbook", "outcome"], registry=registry
        )
        self.runs_in_progress = Gauge("soulfra_runs_in_progress", "Runs under way.", registry=registry)
        self.run_seconds = Histogram(
            "soulfra_run_duration_seconds",
            "From the decision to the end of a run.",
            ["playbook"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.recovery_seconds = Histogram(
            "soulfra_recovery_time_seconds",
            "From the first sight of an error to its verified recovery by a run.",
            ["playbook"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.relapses = Counter(
            "soulfra_relapses_total", "Errors that came back soon after a recovery.", registry=registry
        )
        self.escalations = Counter(
            "soulfra_escalations_total",
            "People called, by whether they could be told.",
            ["result"],
            registry=registry,
        )
        self.notification_failures = Counter(
            "soulfra_notification_failures_total",
            "Notifications that a channel did not take.",
            ["channel"],
            registry=registry,
        )
        self.errors_open = Gauge(
            "soulfra_errors_open", "Errors that are not over, by state.", ["state"], registry=registry
        )
        self.paused = Gauge(
            "soulfra_paused", "Whether automatic runs are held back.", ["scope"], registry=registry
        )
        self.watchdog = Gauge(
            "soulfra_watchdog_last_received_timestamp_seconds",
            "When the always-firing Watchdog alert last came in; 0 when never.",
            registry=registry,
        )
        self.exporter_reachable = Gauge(
            "soulfra_exporter_reachable",
            "Whether the exporter answered the last question.",
            registry=registry,
        )
        self.alertmanager_reachable = Gauge(
            "soulfra_alertmanager_reachable",
            "Whether an Alertmanager answered the last question.",
            registry=registry,
        )
        self.internal_errors = Counter(
            "soulfra_remediator_internal_errors_total",
            "Failures of the remediator itself, by place.",
            ["place"],
            registry=registry,
        )
        self._targets = set(services)
        self._start_at_zero(playbooks)

    def count_event(self, signal: Signal) -> None:
        """Count what an application told of; services nobody has configured are bounded in number."""
        target = signal.target
        if target not in self._targets:
            target = target if len(self._targets) < TARGETS_LIMIT else "(other)"
            self._targets.add(target)
        self.error_events.labels(target, signal.severity).inc(signal.count)
        self.problem_events.labels(target, signal.problem).inc(signal.count)

    def _start_at_zero(self, playbooks: Iterable[str]) -> None:
        for target in self._targets:
            for severity in Severity:
                self.error_events.labels(target, severity)
        for status in Status:
            self.webhook_alerts.labels(status)
        self.decisions.labels(Verdict.RUN, "")
        for reason in Reason:
            self.decisions.labels(Verdict.REFUSED, reason)
            self.decisions.labels(Verdict.DEFERRED, reason)
        for playbook in playbooks:
            self.run_seconds.labels(playbook)
            self.recovery_seconds.labels(playbook)
            for outcome in Outcome:
                self.runs.labels(playbook, outcome)
        for result in ("told", "untold", "summarised"):
            self.escalations.labels(result)
        for place in PLACES:
            self.internal_errors.labels(place)


PLACES = ("look", "run", "resume", "timer", "chores", "notify", "web", "evidence")
"""Where a failure of our own may be caught; the label values of the counter for them."""
