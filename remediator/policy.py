"""Whether an error is acted on now, later or not at all, and why. Pure: no I/O, no clock of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.config import Service
from remediator.playbook import Budget, Mode, Playbook
from remediator.run import Pause, Start
from remediator.signals import Error, Reason, Verdict, is_event
from soulfra_monitor.problems import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the exporter said when it was asked to look now."""

    reachable: bool
    ready: bool = False
    known: bool = False  # the exporter watches this target
    healthy: bool = False  # every probe of the target succeeded in this look
    slow: bool = False
    blind: bool = False  # most targets fail at once: the prober itself is suspected
    detail: str = ""
    down_since: float | None = None
    sick_dependencies: tuple[str, ...] = ()
    services_up: int = 0
    services_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The limits that hold for every playbook."""

    auto_recovery: bool = True
    max_attempts: int = 3
    backoff: float = 2.0  # seconds before the second attempt
    backoff_multiplier: float = 2.0
    backoff_limit: float = 300.0
    settle: float = 3.0  # seconds a dependency must have been well before its dependants are touched


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything a decision looks at."""

    error: Error
    now: float
    health: Health
    playbook: Playbook | None
    service: Service | None
    settings: Settings
    silenced: str | None = None  # the silence that covers the alert
    pauses: Sequence[Pause] = ()
    history: Sequence[Start] = ()
    playbooks: Mapping[str, Playbook] = field(default_factory=dict)  # all, by name
    outage: str | None = None  # another open error of the target, which says that it is down
    template_error: str | None = None
    forced: bool = (
        False  # a person insists: skips cooldown, budget, pause and mode, never locks or the inventory
    )
    by_person: bool = False  # a person asked: what asks a person first has been answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The verdict, its one reason, and when to look again."""

    verdict: Verdict
    reason: Reason | None = None
    detail: str = ""
    until: float | None = None


def decide(situation: Situation) -> Answer:
    """Return the first objection that holds, or the permission to run."""
    for objection in _OBJECTIONS:
        answer = objection(situation)
        if answer is not None:
            return answer
    return Answer(verdict=Verdict.RUN)


def disproved(error: Error, health: Health) -> bool:
    """Whether what the exporter saw just now shows that the problem is not there (any more)."""
    if not error.proven_by_probe or not health.healthy:
        return False
    return error.problem is not Problem.SERVICE_TIMEOUT or not health.slow


def mended(error: Error, health: Health) -> bool:
    """Whether what the error is about was mended before the service came up again, and is told no more."""
    at = error.mended_at
    return at is not None and error.last_seen <= at and health.known and health.healthy


def backoff_seconds(settings: Settings, attempts: int) -> float:
    """Return the wait after so many attempts, doubling (or as configured) up to the limit."""
    if attempts < 1:
        return 0.0
    try:
        wait = settings.backoff * settings.backoff_multiplier ** (attempts - 1)
    except OverflowError:
        return settings.backoff_limit
    return min(settings.backoff_limit, wait)


def attempts_allowed(playbook: Playbook, settings: Settings) -> int:
    """Return how many rungs one error may cost; a playbook's own limit beats the global one."""
    return playbook.attempts or settings.max_attempts


def budget_free_at(budgets: Sequence[Budget], starts: Sequence[float], now: float) -> float | None:
    """Return when every window has room again, or None when all have room now."""
    waits = []
    for budget in budgets:
        inside = sorted(start for start in starts if start > now - budget.window)
        if len(inside) >= budget.count:
            # Room comes when enough of the oldest have left the window.
            waits.append(
                inside[len(inside) - budget.count] + budget.window if budget.count else now + budget.window
            )
    return max(waits, default=None)


def _refuse(reason: Reason, detail: str) -> Answer:
    return Answer(verdict=Verdict.REFUSED, reason=reason, detail=detail)


def _defer(reason: Reason, detail: str, until: float) -> Answer:
    return Answer(verdict=Verdict.DEFERRED, reason=reason, detail=detail, until=until)


def _switched_off(at: Situation) -> Answer | None:
    if at.settings.auto_recovery or at.by_person:
        return None
    return _refuse(Reason.MODE_OFF, "automatic recovery is disabled (AUTO_RECOVERY_ENABLED)")


def _without_playbook(at: Situation) -> Answer | None:
    if at.playbook is None:
        return _refuse(Reason.NO_PLAYBOOK, "no playbook matches this error")
    if at.service is None:
        return _refuse(Reason.UNKNOWN_TARGET, f"{at.error.target!r} is not a configured service")
    if at.playbook.mode is Mode.OFF and not at.forced:
        return _refuse(Reason.MODE_OFF, f"playbook {at.playbook.name} is off")
    return None


def _template_failed(at: Situation) -> Answer | None:
    return None if at.template_error is None else _refuse(Reason.TEMPLATE_ERROR, at.template_error)


def _inputs_missing(at: Situation) -> Answer | None:
    if at.by_person:
        return None
    if not at.health.reachable:
        return _defer(Reason.STALE, f"the exporter cannot be asked: {at.health.detail}", at.now + 2)
    if not at.health.ready:
        return _defer(Reason.WARMING_UP, "the exporter has not looked at everything yet", at.now + 1)
    if not at.health.known:
        return _defer(Reason.STALE, "the exporter does not watch this target", at.now + 15)
    return None


def _healthy(at: Situation) -> Answer | None:
    if at.by_person or not disproved(at.error, at.health):
        return None
    return _refuse(Reason.ALREADY_HEALTHY, "a fresh probe says healthy")


def _attempts_used(at: Situation) -> Answer | None:
    if at.by_person or at.playbook is None:
        return None
    if at.error.refused is not None:
        return _refuse(Reason.ATTEMPTS, f"refused for good, so it is not tried again: {at.error.refused}")
    allowed = attempts_allowed(at.playbook, at.settings)
    if at.error.attempts < allowed:
        return None
    return _refuse(Reason.ATTEMPTS, f"{at.error.attempts} of {allowed} attempts are used up")


def _blind(at: Situation) -> Answer | None:
    if at.by_person or not at.health.blind:
        return None
    up, total = at.health.services_up, at.health.services_total
    detail = f"most targets fail at once ({up} of {total} are up): the prober itself is suspected"
    return _defer(Reason.PROBER_BLIND, detail, at.now + 2)


def _paused(at: Situation) -> Answer | None:
    if at.forced:
        return None
    for pause in at.pauses:
        if pause.holds(at.error.target, at.now):
            again = at.now + 5 if pause.until is None else min(pause.until, at.now + 5)
            return _defer(Reason.PAUSED, f"paused by {pause.owner}: {pause.reason}", again)
    return None


def _silenced(at: Situation) -> Answer | None:
    if at.by_person or at.silenced is None:
        return None
    return _defer(Reason.SILENCED, f"silenced in Alertmanager: {at.silenced}", at.now + 10)


def _dependency_sick(at: Situation) -> Answer | None:
    if at.by_person or not at.health.sick_dependencies:
        return None
    names = ", ".join(at.health.sick_dependencies)
    return _defer(Reason.DEPENDENCY_DOWN, f"depends on {names}, to be repaired first", at.now + 1)


def _outranked(at: Situation) -> Answer | None:
    """While a service is down its restart comes first; a mend may be what the restart needs."""
    if at.by_person or at.outage is None or at.playbook is None or at.playbook.only_mends:
        return None
    return _defer(Reason.LOCKED, f"{at.outage} comes first: the service is down", at.now + 1)


def _locked(at: Situation) -> Answer | None:
    for start in at.history:
        if start.target == at.error.target and start.ended_at is None:
            return _defer(Reason.LOCKED, f"a run of {start.playbook} is under way on this target", at.now + 1)
    return None


def _cooling(at: Situation) -> Answer | None:
    if at.forced or at.playbook is None:
        return None
    until = max(_cool_at(at, at.playbook), at.error.not_before or 0.0)
    if until <= at.now:
        return None
    return _defer(Reason.COOLDOWN, f"{until - at.now:.1f} s left since the last run", until)


def _cool_at(at: Situation, playbook: Playbook) -> float:
    """Return when the playbook has cooled down on this target.

    Its own runs count, and for a restart those of whatever restarts; after a mend a restart is worth
    trying at once.
    """
    ended = [
        (run.ended_at, run.playbook)
        for run in at.history
        if run.target == at.error.target and run.ended_at is not None
    ]
    last = max((end for end, name in ended if _heats(at, playbook, name)), default=None)
    if last is None:
        return 0.0
    mends = (end for end, name in ended if name in at.playbooks and at.playbooks[name].only_mends)
    if playbook.restarts and any(end > last for end in mends):
        return 0.0
    return last + playbook.cooldown


def _heats(at: Situation, playbook: Playbook, ran: str) -> bool:
    """Whether the cooldown of *playbook* counts from a run of the one named *ran*."""
    by = at.playbooks.get(ran)
    return ran == playbook.name or (playbook.restarts and (by is None or by.restarts))


def _silent_since(at: Situation) -> Answer | None:
    """Wait for what events say after a repair: only another one tells that it did not help."""
    if at.by_person or at.error.recovered_by is None or not is_event(at.error.fingerprint):
        return None
    ends = [run.ended_at for run in at.history if run.target == at.error.target and run.ended_at is not None]
    if not ends or at.error.last_seen > max(ends):
        return None
    if at.error.mended_at is not None:
        return _defer(Reason.COOLDOWN, "mended; over when the service is up", at.now + 1)
    return _defer(Reason.COOLDOWN, "nothing of it came in since the last run", at.now + 5)


def _over_budget(at: Situation) -> Answer | None:
    if at.forced or at.playbook is None:
        return None
    limits = at.playbook.limits
    for what, budgets, starts in (
        ("target", limits.per_target, [run for run in at.history if run.target == at.error.target]),
        ("playbook", limits.per_playbook, [run for run in at.history if run.playbook == at.playbook.name]),
        ("everything", limits.everywhere, at.history),
    ):
        until = budget_free_at(budgets, [run.started_at for run in starts], at.now)
        if until is not None:
            return _defer(Reason.BUDGET, f"the run budget of this {what} is used up", until)
    return None


def _too_many_at_once(at: Situation) -> Answer | None:
    if at.playbook is None or at.playbook.limits.at_once is None:
        return None
    running = [run for run in at.history if run.ended_at is None and run.playbook == at.playbook.name]
    if len(running) < at.playbook.limits.at_once:
        return None
    return _defer(Reason.AT_ONCE, f"{len(running)} runs of this playbook are under way", at.now + 1)


def _too_few_healthy(at: Situation) -> Answer | None:
    limit = at.playbook.limits.min_healthy if at.playbook else None
    if limit is None or at.forced or at.by_person:
        return None
    up, total = at.health.services_up, at.health.services_total
    # Divided, not multiplied: 14 % of 50 would come out a little above 7.
    if up >= limit if limit >= 1 else total and up / total >= limit:
        return None
    needed = f"{limit:.0%}" if limit < 1 else f"{limit:g}"
    detail = f"{up} of {total} services are up, {needed} must be"
    return _defer(Reason.MIN_HEALTHY, detail, at.now + 2)


def _only_shadow(at: Situation) -> Answer | None:
    if at.forced or at.playbook is None or at.playbook.mode is not Mode.SHADOW:
        return None
    return _refuse(Reason.SHADOW, f"playbook {at.playbook.name} is in shadow mode: planned, not executed")


def _unapproved(at: Situation) -> Answer | None:
    if at.by_person or at.playbook is None or at.service is None:
        return None
    asks = at.playbook.mode is Mode.APPROVE or (at.playbook.restarts and not at.service.auto_restart)
    if not asks or (at.error.approved_until or 0.0) > at.now:
        return None
    if at.error.rejected_by is not None:
        return _refuse(Reason.APPROVAL_REJECTED, f"rejected by {at.error.rejected_by}")
    return _defer(Reason.APPROVAL_PENDING, f"waits for: soulfra approve {at.error.id}", at.now + 30)


_OBJECTIONS: tuple[Callable[[Situation], Answer | None], ...] = (
    _switched_off,
    _without_playbook,
    _inputs_missing,
    _healthy,
    _template_failed,
    _attempts_used,
    _blind,
    _paused,
    _silenced,
    _dependency_sick,
    _outranked,
    _locked,
    _cooling,
    _silent_since,
    _over_budget,
    _too_many_at_once,
    _too_few_healthy,
    _only_shadow,
    _unapproved,
)
"""In the order of asking: may anything be done, is anything known, is anything wrong, what holds it back."""
