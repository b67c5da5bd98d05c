"""Decides about one error at a time and lets it run, or records why not and what follows from that."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from exporter.config import Service
from remediator import alertmanager
from remediator.escalation import escalate, notify, watch_seconds
from remediator.inquiry import ask
from remediator.match import first_match, matches_all
from remediator.places import entries_over, expand
from remediator.plan import Plan, PlanError, make_plan, offers
from remediator.playbook import Playbook
from remediator.policy import Answer, Health, Situation, attempts_allowed, decide
from remediator.run import Outcome, Run
from remediator.runner import Tools, change_error
from remediator.running import Running
from remediator.signals import Decision, Error, ErrorState, Reason, Verdict, is_event, look_again
from remediator.store import ErrorQuery, RunQuery
from soulfra_monitor.problems import Problem, Severity

log = logging.getLogger(__name__)

_CLAIM_TRIES = 50
_PROOF_AGAIN = 0.5  # seconds
_SELF_HEAL = 45.0  # seconds; as long as people's notifications wait
_CALLS_LIMIT = 3
_CALLS_WINDOW = 600.0  # seconds; people are called for so many critical errors of one target in it
_HISTORY = 8 * 86400.0  # seconds of past runs that limits may look at


class RefusalError(Exception):
    """A person's request that is not carried out: the HTTP status to answer with, and why."""

    def __init__(self, status: int, message: str, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Judge:
    """Holds an error against its playbook, the limits and what the exporter says."""

    def __init__(
        self,
        tools: Tools,
        playbooks: Sequence[Playbook],
        running: Running,
        *,
        alertmanagers: Sequence[str],
        escalate_after: float,
    ) -> None:
        self._tools = tools
        self._store = tools.store
        self._playbooks = playbooks
        self._by_name = {playbook.name: playbook for playbook in playbooks}
        self._running = running
        self._alertmanagers = alertmanagers
        self._escalate_after = escalate_after
        self._deciding = threading.Lock()  # limits are read and used up in one go
        self._calling = threading.Lock()  # so is the one on calls for people

    def judge(self, error: Error, health: Health, seen: Mapping[str, Any]) -> None:
        """Let the error run, or hold it and record the reason. *health* and *seen* are of this moment."""
        playbook, error = self._matched(error)
        service = self._tools.services.get(error.target)
        plan = self._plan(playbook, error, service) if playbook and service else None
        failed = plan if isinstance(plan, str) else None
        answer = decide(self._situation(error, playbook, health, template_error=failed))
        silenced = self._silence(error) if answer.verdict is Verdict.RUN else None
        with self._deciding:
            situation = self._situation(error, playbook, health, template_error=failed, silenced=silenced)
            answer = decide(situation)
            if answer.verdict is Verdict.RUN and playbook and isinstance(plan, Plan):
                self._begin(error, playbook, plan, health, seen)
                return
        self._hold(error, answer, playbook, plan if isinstance(plan, Plan) else None)

    def _begin(
        self, error: Error, playbook: Playbook, plan: Plan, health: Health, seen: Mapping[str, Any]
    ) -> None:
        run = self._running.prepare(error, playbook, plan, down_since=health.down_since)
        if not self._running.claim(run, error):
            # A signal came in between, or another remediator was faster: look again at once.
            self.set_check(error.id, self._tools.clock() + 0.05)
            return
        left = attempts_allowed(playbook, self._tools.settings) - error.attempts
        try:
            self.record(error, "timer", Answer(verdict=Verdict.RUN), playbook=playbook.name, run=run.id)
        finally:
            # What is claimed is done, also when its decision cannot be written.
            self._running.start(run, plan, attempts_left=left, seen=seen)

    def request(self, action: str, target: str, *, force: bool, by: str) -> Run:
        """Begin what a person asks for. Raises RefusalError with the reason when it is not begun."""
        playbook = self._playbook_of(action, target)
        service = self._tools.services.get(target)
        if service is None:
            message = f"{target!r} is not a configured service"
            raise RefusalError(HTTPStatus.NOT_FOUND, message, Reason.UNKNOWN_TARGET)
        error = self._open_error_of(target)
        subject = error or _requested(action, target, self._tools.clock())
        plan = self._plan(playbook, subject, service)
        if isinstance(plan, str):
            raise RefusalError(HTTPStatus.CONFLICT, plan, Reason.TEMPLATE_ERROR)
        asked = ask(self._tools, target, peers=False)
        stored = error is not None
        with self._deciding:
            answer = decide(self._situation(subject, playbook, asked.health, by_person=True, forced=force))
            run = self._running.prepare(subject, playbook, plan, by=by, stored=stored)
            if answer.verdict is Verdict.RUN and not self._claim_for_person(run):
                answer = Answer(
                    verdict=Verdict.REFUSED, reason=Reason.LOCKED, detail="another run was faster"
                )
        if answer.verdict is not Verdict.RUN:
            refused = replace(answer, verdict=Verdict.REFUSED, until=None)
            self.record(subject, "person", refused, playbook=playbook.name, stored=stored)
            raise RefusalError(HTTPStatus.CONFLICT, answer.detail, answer.reason)
        try:
            self.record(subject, "person", answer, playbook=playbook.name, run=run.id, stored=stored)
        finally:
            self._running.start(run, plan, attempts_left=len(plan.rungs), seen=asked.result)
        return run

    def _claim_for_person(self, run: Run) -> bool:
        """Claim with the error as it is now: signals that come meanwhile are no reason to refuse a person."""
        for _ in range(_CLAIM_TRIES):
            error = self._store.get_error(run.error_id) if run.error_id else None
            if self._running.claim(run, error):
                return True
            if error is None or self._is_running(run.target):
                return False
        return False

    def _is_running(self, target: str) -> bool:
        return bool(self._store.find_runs(RunQuery(target=target, running=True, limit=1)))

    def counts_for(self, error: Error) -> bool:
        """Whether it matters to *error* how many services are up."""
        playbook = self.playbook_for(error)
        return playbook is not None and playbook.limits.min_healthy is not None

    def playbook_for(self, error: Error) -> Playbook | None:
        """Return the first playbook that matches the error."""
        return self._matched(error)[0]

    def _matched(self, error: Error) -> tuple[Playbook | None, Error]:
        """Match every alert that fires for the error: a second rule cannot take the first one's playbook.

        Returns the error with the labels of the alert that matched; the configuration's order decides.
        """
        alerts = [error.labels, *self._store.member_labels(error.id)]
        told = [replace(error, labels=labels) for labels in alerts]
        for playbook in self._playbooks:
            for one in told:
                if matches_all(playbook.matchers, _match_labels(one)) and self._is_offered(playbook, one):
                    return playbook, one
        return None, error

    def _is_offered(self, playbook: Playbook, error: Error) -> bool:
        """Whether the service has what the playbook needs, where the playbook is only for those that have."""
        service = self._tools.services.get(error.target)
        if not playbook.if_offered or service is None:
            return True
        folders = self._tools.config_folder, self._tools.data_folder
        covered = bool(entries_over(service, error.labels.get("path", ""), *folders))
        return offers(service, playbook, path_is_declared=covered)

    def _hold(self, error: Error, answer: Answer, playbook: Playbook | None, plan: Plan | None) -> None:
        """Record why nothing runs now, and see to what follows from it."""
        now = self._tools.clock()
        name = playbook.name if playbook else None
        first = self.record(error, "timer", answer, playbook=name).times == 1
        # A time that somebody held it back on purpose does not count towards calling people.
        both_count = error.held_reason in _ESCALATING and answer.reason in _ESCALATING
        goes_on = both_count or error.held_reason is answer.reason
        held_since = error.held_since if goes_on and error.held_since is not None else now
        # However long a limit holds: an end that nobody tells, and the moment to call people, are not missed.
        watch = watch_seconds(self._tools, error.target)
        again = min(answer.until or now + watch, now + watch)

        def hold(old: Error) -> Error:
            held = replace(old, held_reason=answer.reason, held_since=held_since)
            return look_again(held, error, again)  # sooner after an approval, or the end of the alert

        change_error(self._store, error.id, hold)
        if answer.reason is Reason.ATTEMPTS:
            escalate(self._tools, error, playbook, answer.detail, give_up=True)
        elif answer.reason is Reason.SHADOW and plan and playbook and first:
            shadow = self._running.prepare(error, playbook, plan)
            self._store.add_shadow(
                replace(shadow, outcome=Outcome.SHADOWED, ended_at=now, detail="planned only")
            )
        elif answer.reason is Reason.APPROVAL_PENDING and first:
            asked = f"{error.target} {error.problem} {answer.detail}"
            notify(self._tools, error, playbook, asked, kind="approval")
        elif answer.reason in _UNHANDLED and self._calls_people(error, now):
            escalate(self._tools, error, playbook, f"critical, and {answer.detail}", give_up=True)
        elif answer.reason in _ESCALATING and now - held_since >= self._escalate_after:
            escalate(
                self._tools,
                error,
                playbook,
                f"held back for {now - held_since:.0f} s: {answer.detail}",
                give_up=False,
            )

    def _calls_people(self, error: Error, now: float) -> bool:
        """Whether people are called for events that nothing handles: critical ones, not a hundred at once."""
        if error.severity is not Severity.CRITICAL or not is_event(error.fingerprint):
            return False
        healing = error.proven_by_probe and error.target in self._tools.services
        if healing and now - error.first_seen < _SELF_HEAL:
            return False  # whoever else starts it again may be at it
        if error.target not in self._tools.services:
            return True  # all of these together have a limit of their own
        query = ErrorQuery(target=error.target, severity=Severity.CRITICAL, since=now - _CALLS_WINDOW)
        with self._calling:
            others = [one for one in self._store.find_errors(query) if one.id != error.id]
            called = [one for one in others if (one.escalated_at or 0.0) > now - _CALLS_WINDOW]
            if len(called) >= _CALLS_LIMIT:
                return False  # looked at again, and told when it is still there
            change_error(
                self._store, error.id, lambda old: replace(old, escalated_at=old.escalated_at or now)
            )
            return True

    def hold_unproven(self, error: Error, detail: str) -> None:
        """Look again soon at an error whose end could not be proven; people hear of it if that goes on."""
        soon = self._tools.clock() + _PROOF_AGAIN
        answer = Answer(verdict=Verdict.DEFERRED, reason=Reason.STALE, detail=detail, until=soon)
        self._hold(error, answer, self.playbook_for(error), None)

    def defer(self, error: Error, reason: Reason, detail: str, until: float) -> None:
        """Record that the error is looked at again later, and why."""
        self.record(
            error, "timer", Answer(verdict=Verdict.DEFERRED, reason=reason, detail=detail, until=until)
        )
        self.set_check(error.id, until)

    def set_check(self, error_id: str, at: float | None) -> None:
        """Say when the error is looked at next; None: only a signal wakes it."""
        change_error(self._store, error_id, lambda old: replace(old, check_at=at))

    def record(
        self,
        error: Error,
        cause: str,
        answer: Answer,
        *,
        playbook: str | None = None,
        run: str | None = None,
        stored: bool = True,
    ) -> Decision:
        """Keep the answer in the store, count it and say it."""
        decision = self._store.record(
            Decision(
                at=self._tools.clock(),
                error_id=error.id if stored else None,
                target=error.target,
                cause=cause,
                verdict=answer.verdict,
                reason=answer.reason,
                detail=answer.detail,
                playbook=playbook,
                run_id=run,
                until=answer.until,
            )
        )
        self._tell_decision(decision)
        return decision

    def _situation(self, error: Error, playbook: Playbook | None, health: Health, **more: Any) -> Situation:
        now = self._tools.clock()
        return Situation(
            error=error,
            now=now,
            health=health,
            playbook=playbook,
            service=self._tools.services.get(error.target),
            settings=self._tools.settings,
            pauses=self._store.pauses(now),
            history=self._store.starts(now - _HISTORY),
            playbooks=self._by_name,
            outage=self._outage(error) if health.known and not health.healthy else None,
            **more,
        )

    def _outage(self, error: Error) -> str | None:
        """Return another open error that says of the target that it is down, when this one does not."""
        if error.problem in _OUTAGES and error.proven_by_probe:
            return None
        query = ErrorQuery(target=error.target, open=True, state=ErrorState.PENDING)
        found = (
            one
            for problem in _OUTAGES
            for one in self._store.find_errors(replace(query, problem=problem))
            if one.proven_by_probe and one.id != error.id
        )
        return next((one.id for one in found), None)

    def _plan(self, playbook: Playbook, error: Error, service: Service | None) -> Plan | str:
        values = {
            "target": error.target,
            "problem": error.problem.value,
            "severity": error.severity.value,
            "labels": dict(error.labels),
            "annotations": dict(error.annotations),
            "error": {"id": error.id, "message": error.message, "attempts": error.attempts},
            "service": {"host": service.host, "hooks": dict(service.hooks)} if service else {},
        }
        try:
            return make_plan(playbook, values, self._tools.services, self._expand)
        except PlanError as failure:
            return str(failure)

    def _expand(self, text: str) -> str:
        return expand(text, self._tools.data_folder)

    def _silence(self, error: Error) -> str | None:
        try:
            silence = alertmanager.silence_for(self._alertmanagers, error.labels, timeout=1.0)
        except alertmanager.AlertmanagerUnreachable as failure:
            # A dead Alertmanager must not stop a repair that a fresh probe asks for.
            log.warning("silences are unknown: %s", failure)
            self._tools.metrics.alertmanager_reachable.set(0)
            return None
        self._tools.metrics.alertmanager_reachable.set(1)
        return silence

    def _tell_decision(self, decision: Decision) -> None:
        self._tools.metrics.decisions.labels(decision.verdict, decision.reason or "").inc()
        if decision.times > 1:
            return
        why = f": {decision.reason}, {decision.detail}" if decision.reason else ""
        number = decision.run_id or decision.error_id or ""
        self._tools.feed("decision", f"{decision.target} {decision.verdict}{why} [{number}]")

    def _playbook_of(self, action: str, target: str) -> Playbook:
        offered = [playbook for playbook in self._playbooks if _is_for_people(playbook)]
        playbook = first_match(offered, {"action": action, "target": target})
        if playbook is None:
            raise RefusalError(HTTPStatus.BAD_REQUEST, f"unknown action {action!r}")
        return playbook

    def _open_error_of(self, target: str) -> Error | None:
        # A healthy probe proves nothing about the other problems, so a run by hand is not counted for them.
        errors = self._store.find_errors(ErrorQuery(target=target, open=True, limit=1000))
        return next((error for error in errors if error.proven_by_probe), None)


_OUTAGES = (Problem.SERVICE_DOWN, Problem.PROCESS_DIED)

_UNHANDLED = frozenset({Reason.NO_PLAYBOOK, Reason.UNKNOWN_TARGET, Reason.MODE_OFF})
"""What leaves an error to people."""

_ESCALATING = frozenset(
    {
        Reason.BUDGET,
        Reason.AT_ONCE,
        Reason.WARMING_UP,
        Reason.PROBER_BLIND,
        Reason.STALE,
        Reason.MIN_HEALTHY,
        Reason.DEPENDENCY_DOWN,
        Reason.TEMPLATE_ERROR,
        Reason.APPROVAL_PENDING,
        Reason.PAUSED,
        Reason.LOCKED,
    }
)
"""What holds an error back so long that people must hear of it."""


def _is_for_people(playbook: Playbook) -> bool:
    return any(matcher.label == "action" and matcher.value for matcher in playbook.matchers)


def _match_labels(error: Error) -> dict[str, str]:
    # "action" is what people ask for; no alert may pretend to be a person.
    labels = {key: value for key, value in error.labels.items() if key != "action"}
    return {
        **labels,
        "target": error.target,
        "problem": error.problem.value,
        "severity": error.severity.value,
    }


def _requested(action: str, target: str, now: float) -> Error:
    """Stand in for an error where a person asks and nothing is known to be wrong; it is not stored."""
    return Error(
        id="",
        target=target,
        problem=Problem.OTHER,
        severity=Severity.LOW,
        message=f"{action} requested",
        first_seen=now,
        last_seen=now,
    )
