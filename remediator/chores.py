"""What must happen now and then, whether or not anything comes in.

Asks Alertmanager for alerts that its notifications may never bring, keeps the health minutes for
uptime, refreshes gauges, and forgets what is old. Each chore fails on its own.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remediator import alertmanager
from remediator.alerts import signal_of_alert
from remediator.complaints import Complaints
from remediator.engine import Engine
from remediator.escalation import tell_withheld
from remediator.notify import Notification
from remediator.runner import Tools
from remediator.signals import Error, ErrorState, Signal, Source, Status, is_event, resolved_unheard
from remediator.store import ErrorQuery, HealthMinute
from remediator.verify import ExporterUnreachable
from remediator.watchdog import Change
from soulfra_monitor.problems import Problem, Severity

log = logging.getLogger(__name__)

_SAMPLE = 5.0  # seconds between looks at the exporter's state
_GAUGES = 5.0
_PRUNE = 3600.0
_FORGET = 60.0
_WATCHDOG = 5.0
_QUIET = 5.0
_WITHHELD = 5.0
_QUIET_AT_ONCE = 1000  # fingerprints that one pass says are over
_AWAY_FOR = 90.0  # seconds; Prometheus sends what fires again every minute


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chore:
    every: float  # seconds
    do: Callable[[], None]


class Chores:
    """Runs every chore at its pace in one thread."""

    def __init__(
        self,
        tools: Tools,
        engine: Engine,
        *,
        alertmanagers: Sequence[str],
        reconcile: float,
        retention: float,
        summary_retention: float,
        quiet: float = 300.0,
        enabled: bool = True,
    ) -> None:
        self._tools = tools
        self._engine = engine
        self._alertmanagers = alertmanagers
        self._retention = retention
        self._summary_retention = summary_retention
        self._quiet = quiet
        self._complaints = Complaints(log)
        self._began = tools.clock()
        self._away_since: dict[tuple[str, str], float] = {}  # by error and fingerprint; of one thread
        chores = [
            _Chore(every=_SAMPLE, do=self.sample_health),
            _Chore(every=_GAUGES, do=self.refresh_gauges),
            _Chore(every=_PRUNE, do=self.prune),
            _Chore(every=_WATCHDOG, do=self.watch_pipeline),
            _Chore(every=_QUIET, do=self.end_quiet_events),
            _Chore(every=_FORGET, do=self.forget_senders),
            _Chore(every=_WITHHELD, do=self.tell_withheld),
        ]
        if enabled:  # else nothing is taken in, in no way
            chores.append(_Chore(every=reconcile, do=self.reconcile))
        self._chores = tuple(chores)
        self._thread = threading.Thread(target=self._work, name="chores", daemon=True)

    def start(self) -> None:
        """Begin; ends with ``tools.stopping``."""
        self._thread.start()

    def _work(self) -> None:
        due = dict.fromkeys(range(len(self._chores)), 0.0)
        while not self._tools.stopping.wait(0.5):
            now = self._tools.clock()
            for index, chore in enumerate(self._chores):
                if due[index] <= now or due[index] > now + chore.every:
                    due[index] = now + chore.every
                    self._do_safely(chore)

    def _do_safely(self, chore: _Chore) -> None:
        try:
            chore.do()
        except Exception:  # noqa: BLE001 - a thread's edge; counted and logged
            self._tools.metrics.internal_errors.labels("chores").inc()
            self._complaints.say("chores", "a chore failed; it is tried again")

    def reconcile(self) -> None:
        """Take in the alerts that are active in Alertmanager, as if it had posted them now."""
        try:
            alerts = alertmanager.active_alerts(self._alertmanagers, timeout=2.0)
        except alertmanager.AlertmanagerUnreachable as failure:
            self._tools.metrics.alertmanager_reachable.set(0)
            log.warning("nothing to reconcile with: %s", failure)
            return
        self._tools.metrics.alertmanager_reachable.set(1)
        now = self._tools.clock()
        signals = [signal_of_alert(alert, now, Source.RECONCILE) for alert in alerts]
        signals += self._ended_unheard(now)
        if signals:
            self._engine.accept(signals)

    def _ended_unheard(self, now: float) -> list[Signal]:
        """Stand in for "resolved" notifications that never came, where only they can end an error.

        An alert has ended when it is away in every pass for so long that no restart of Alertmanager,
        which forgets what fires until Prometheus sends it again, can be the reason.
        """
        firing = self._firing_unproven()
        if not firing:
            self._away_since.clear()
            return []
        try:
            held = alertmanager.held_fingerprints(self._alertmanagers, timeout=2.0)
        except alertmanager.AlertmanagerUnreachable as failure:
            log.warning("no alert is taken to be over: %s", failure)
            self._away_since.clear()
            return []
        away = [(error, fingerprint) for error, fingerprint in firing if fingerprint not in held]
        self._away_since = {
            (error.id, fingerprint): self._away_since.get((error.id, fingerprint), now)
            for error, fingerprint in away
        }
        return [
            resolved_unheard(error, fingerprint, now)
            for error, fingerprint in away
            if now - self._away_since[error.id, fingerprint] >= _AWAY_FOR
        ]

    def end_quiet_events(self) -> None:
        """Say of events that came in no more for a while that they are over, as nobody else does.

        The engine's fresh look at the service decides what that means.
        """
        now = self._tools.clock()
        if now - self._began < self._quiet:
            return  # what was sent while we were away lies with its senders, and comes in by and by
        quiet = self._tools.store.quiet_events(now - self._quiet, _QUIET_AT_ONCE)
        signals = [resolved_unheard(error, fingerprint, now, Source.QUIET) for error, fingerprint in quiet]
        if signals:
            self._engine.accept(signals)

    def _firing_unproven(self) -> list[tuple[Error, str]]:
        """Return the firing alerts of open errors that no probe can disprove."""
        store = self._tools.store
        return [
            (error, fingerprint)
            for error in store.find_errors(ErrorQuery(open=True, limit=10_000))
            if not error.proven_by_probe
            for fingerprint, status in store.members(error.id).items()
            if status is Status.FIRING and not is_event(fingerprint)
        ]

    def sample_health(self) -> None:
        """Add one look per service to the health minutes; a service that is unknown counts in neither way."""
        try:
            state = self._tools.exporter.state(timeout=2.0)
        except ExporterUnreachable:
            self._tools.metrics.exporter_reachable.set(0)
            return
        self._tools.metrics.exporter_reachable.set(1)
        self._tools.store.add_health(health_minutes(state, self._tools.clock()))

    def refresh_gauges(self) -> None:
        """Bring the gauges that mirror the store up to date."""
        counts = self._tools.store.count_errors(ErrorQuery(open=True))
        for state in ErrorState:
            self._tools.metrics.errors_open.labels(state).set(counts.get(state, 0))
        pauses = self._tools.store.pauses(self._tools.clock())
        self._tools.metrics.paused.clear()
        self._tools.metrics.paused.labels("everything").set(0)
        for pause in pauses:
            self._tools.metrics.paused.labels(pause.scope).set(1)

    def watch_pipeline(self) -> None:
        """Tell people when the Watchdog alert falls silent, by channels that do not need what is dead."""
        change = self._tools.watchdog.look(self._tools.clock())
        if change is None:
            return
        text = _WATCHDOG_TEXT[change]
        self._tools.feed("watchdog", text)
        results = self._tools.notifier.escalate(
            self._tools.notifier.direct,
            Notification(
                subject=f"Soulfra Monitor: the Watchdog is {change.value}",
                text=text,
                severity=Severity.CRITICAL if change is Change.SILENT else Severity.LOW,
                target="alerting",
                problem=Problem.HEARTBEAT_MISSED,
            ),
        )
        for channel, failure in results.items():
            if failure is not None:
                self._tools.metrics.notification_failures.labels(channel).inc()

    def prune(self) -> None:
        """Forget the detail and the summaries that are older than they are kept."""
        now = self._tools.clock()
        gone = self._tools.store.prune(now - self._retention, now - self._summary_retention)
        if any(gone.values()):
            log.info("forgotten: %s", ", ".join(f"{count} {what}" for what, count in gone.items() if count))

    def tell_withheld(self) -> None:
        """Tell people in one message of the calls that were too many."""
        tell_withheld(self._tools)

    def forget_senders(self) -> None:
        """Forget which batches and events were taken, when nobody sends them again."""
        self._tools.store.forget_senders(self._tools.clock())


_WATCHDOG_TEXT = {
    Change.SILENT: "the Watchdog alert is not heard: Prometheus or Alertmanager is dead, or its route is "
    "missing. Outages still come in by the exporter if Alertmanager lives",
    Change.BACK: "the Watchdog alert is heard again",
}


def health_minutes(state: Mapping[str, Any], now: float) -> list[HealthMinute]:
    """Turn the exporter's state into one look per service that has a verdict."""
    return [
        HealthMinute(target=name, minute=int(now // 60), looks=1, up=int(service["status"] == "up"))
        for name, service in state.get("services", {}).items()
        if service.get("status") in ("up", "down")
    ]
