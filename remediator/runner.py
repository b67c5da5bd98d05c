"""Carries a run out: journal, act, verify, end. The only place where something is done to a service.

Every step is written before its effect, and a run ends as recovered only when fresh probes of the
exporter say so. Losing the lease stops the run before its next effect.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter.config import Service
from remediator import evidence
from remediator.actions import ActionContext, ActionError, find_action, spawn
from remediator.call_limit import CallLimit
from remediator.feed import Feed
from remediator.metrics import Metrics
from remediator.notify import Notifier
from remediator.plan import Plan, PlannedRung, PlannedStep
from remediator.playbook import RestartArgs, Verify
from remediator.policy import Settings, backoff_seconds
from remediator.run import PROVES_ITSELF, Outcome, Run, Step, StepState, Trigger
from remediator.signals import Error, ErrorState, Reason, is_event
from remediator.store import ErrorQuery, Store
from remediator.verify import ExporterClient, ExporterUnreachable, Verification, verify
from remediator.watchdog import Watchdog
from soulfra_monitor.problems import Problem
from soulfra_monitor.redaction import redact, redact_value

log = logging.getLogger(__name__)

_DESTRUCTIVE = frozenset({"restart", "command", "http", "hook"})
_UNRESPONSIVE = frozenset({"timeout", "connect_timeout"})
_LOOK_WITHIN = 1.0  # seconds for a look between two effects
_UNPROVEN_WAIT = 360.0  # seconds an alert over five minutes needs to fall silent after a repair
_RESUME_WITHIN = 10.0  # seconds a repair gets to show after the remediator itself was away
_WRITE_TRIES = 50


class RunLeftError(Exception):
    """The run is not ours to go on with: its lease is lost, or the remediator is being stopped.

    It stays as it stands in the store, for whoever holds it now or adopts it next.
    """


@dataclass(kw_only=True)
class Tools:
    """What runs work with; shared by all of them."""

    store: Store
    exporter: ExporterClient
    notifier: Notifier
    metrics: Metrics
    feed: Feed
    services: Mapping[str, Service]
    settings: Settings
    config_folder: Path
    data_folder: Path
    evidence_timeout: float
    watchdog: Watchdog
    withheld: frozenset[str] = frozenset()  # variables with our own secrets; no child inherits them
    call_limit: CallLimit = field(default_factory=CallLimit)
    clock: Callable[[], float] = time.time
    stopping: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Progress:
    """The one mutable thing: where a run stands."""

    run: Run
    seen: Mapping[str, Any]  # the exporter's latest check of the target
    steps: int = 0

    def mark(self, milestone: str, at: float) -> None:
        self.run = replace(self.run, timings={**self.run.timings, milestone: at})


def change_error(store: Store, error_id: str, change: Callable[[Error], Error]) -> Error | None:
    """Apply *change* to the stored error, again if somebody else wrote it meanwhile. None when it is gone."""
    for _ in range(_WRITE_TRIES):
        error = store.get_error(error_id)
        if error is None:
            return None
        if store.update_error(change(error)):
            return store.get_error(error_id)
    raise RuntimeError(f"{error_id} is written too often by others")


def execute(tools: Tools, run: Run, plan: Plan, *, attempts_left: int, seen: Mapping[str, Any]) -> Run:
    """Try the rungs of *plan* from ``run.rung`` on, *attempts_left* at most; return the ended run.

    *seen* is what the exporter's check of the target has just said. Raises RunLeftError when the
    run is no longer ours.
    """
    if tools.stopping.is_set():
        raise RunLeftError(run.id)
    progress = _Progress(run=run, seen=seen)
    tried = _Tried(Outcome.FAILED, "no attempt was left")
    for index in range(run.rung, min(len(plan.rungs), run.rung + attempts_left)):
        if index > run.rung and (objection := _before_next(tools, run)) is not None:
            tried = _Tried(*objection)
            break
        tried = _try_rung(tools, progress, index, plan.rungs[index])
        if tried.outcome is not Outcome.FAILED:
            break
    if tools.stopping.is_set() and tried.outcome is not Outcome.RECOVERED:
        raise RunLeftError(run.id)
    # The last rung is all that another run would try.
    spent = tried.refused and progress.run.rung == len(plan.rungs) - 1
    return end(tools, progress.run, tried.outcome, tried.detail, spent=spent)


def _before_next(tools: Tools, run: Run) -> tuple[Outcome, str] | None:
    """Say why the next effect is not to be: it is not needed any more, or held back meanwhile."""
    if tools.stopping.is_set():
        raise RunLeftError(run.id)
    now = tools.clock()
    if run.trigger is not Trigger.PERSON:
        for pause in tools.store.pauses(now):
            if pause.holds(run.target, now):
                return Outcome.FAILED, f"paused by {pause.owner} before the next rung: {pause.reason}"
    return _look_before_next(tools, run)


def _look_before_next(tools: Tools, run: Run) -> tuple[Outcome, str] | None:
    """Ask once, patiently: a hung service takes a whole probe timeout to say that it is unhealthy."""
    try:
        seen = tools.exporter.check([run.target])["results"].get(run.target, {})
    except ExporterUnreachable as error:
        return Outcome.UNVERIFIED, f"the exporter cannot be asked: {error}"
    if seen.get("healthy") is False:
        return None
    proof = _verify(tools, run.target, run.error_id, _rung_verify(run), within=_RESUME_WITHIN)
    return None if proof.outcome is Outcome.FAILED else (proof.outcome, proof.detail)


def resume(tools: Tools, run: Run) -> tuple[Run, bool]:
    """Settle a run that an earlier life of the remediator left behind.

    Returns it, ended, and whether its last step forbids to try again. It ends as recovered when fresh
    probes say so, else as interrupted (or failed, where it must not be tried again); the error then
    stays open and is decided anew. Nothing is repeated here.
    """
    steps = tools.store.steps(run.id)
    last = steps[-1] if steps else None
    if last is None:
        return end(tools, run, Outcome.INTERRUPTED, "the remediator went away before the first step"), False
    declared = last.on_crash if last.state is StepState.STARTED else "verify"
    within = _LOOK_WITHIN if declared == "rerun" else _RESUME_WITHIN
    proof = _verify(tools, run.target, run.error_id, _rung_verify(run), within=within)
    if proof.outcome is Outcome.RECOVERED:
        detail = f"verified after the remediator was away: {proof.detail}"
        return end(tools, run, Outcome.RECOVERED, detail), False
    detail = f"the remediator went away in {last.action}: {proof.detail}"
    if declared == "fail":
        return end(tools, run, Outcome.FAILED, f"{detail}; it must not be tried again"), True
    return end(tools, run, Outcome.INTERRUPTED, detail), False


def end(tools: Tools, run: Run, outcome: Outcome, detail: str, *, spent: bool = False) -> Run:
    """Write the end of a run and what it means for its error, free the lease, and say so.

    *spent*: its last rung was refused for good, so that no further run is worth trying.
    """
    now = tools.clock()
    ended = replace(run, outcome=outcome, detail=redact(detail), ended_at=now)
    for _ in range(_WRITE_TRIES):
        error = tools.store.get_error(run.error_id) if run.error_id else None
        after = _after_run(error, ended, tools.settings, spent=spent) if error else None
        if tools.store.end_run(ended, after):
            _tell_end(tools, ended, error)
            if "mended" in ended.timings:
                _wake_waiting(tools, ended.target, now)
            return ended
        current = tools.store.get_run(run.id)
        if current is None or current.token != run.token or current.outcome is not None:
            raise RunLeftError(run.id)
    raise RuntimeError(f"{run.id} could not be ended: its error is written too often by others")


def _wake_waiting(tools: Tools, target: str, now: float) -> None:
    """Have what holds a restart back decided anew: after the mend it is worth trying."""
    for error in tools.store.find_errors(ErrorQuery(target=target, open=True)):
        if error.proven_by_probe and error.held_reason is Reason.COOLDOWN:
            change_error(tools.store, error.id, lambda old: replace(old, check_at=now))


def _after_run(error: Error, run: Run, settings: Settings, *, spent: bool) -> Error:
    now = run.ended_at or run.started_at
    if run.outcome is Outcome.RECOVERED and not _is_proven(error, run):
        # The service is well, but only the end of its alert or events says that the problem is gone.
        told_by_events = is_event(error.fingerprint)  # another one may come at once, and means a failure
        wait = backoff_seconds(settings, error.attempts) if told_by_events else _UNPROVEN_WAIT
        return replace(error, recovered_by=_by(run), not_before=now + wait, check_at=now, held_reason=None)
    if run.outcome is Outcome.RECOVERED:
        verified = run.timings.get("verified", now)
        return replace(
            error,
            state=ErrorState.RECOVERED,
            open=False,
            recovered_at=verified,
            recovered_by=_by(run),
            closed_at=now,
            not_before=now + backoff_seconds(settings, error.attempts),
            held_reason=None,
            held_since=None,
            # A signal that came in after the proof may tell of the next failure: look once more.
            check_at=now if error.last_seen > verified else None,
        )
    if run.outcome is Outcome.UNVERIFIED and "mended" in run.timings and error.subject:
        return replace(error, recovered_by=_by(run), mended_at=now, check_at=now, held_reason=None)
    wait = 0.0 if run.outcome is Outcome.INTERRUPTED else backoff_seconds(settings, error.attempts)
    # Looked at again at once: the backoff holds the next try back, not the call for people.
    # What a person asked for says nothing about the playbook of the error.
    refused = run.detail if spent and run.trigger is not Trigger.PERSON else error.refused
    return replace(error, not_before=now + wait, check_at=now, refused=refused)


def _is_proven(error: Error, run: Run) -> bool:
    """Whether healthy probes after this run prove that the problem is gone."""
    if error.proven_by_probe:
        return True
    steps = run.plan[run.rung]["steps"] if run.rung < len(run.plan) else ()
    # The action has looked at the path that the error is about, and nobody else can.
    return bool(error.subject) and any(step["action"] in PROVES_ITSELF for step in steps)


def _by(run: Run) -> str:
    return "person" if run.trigger is Trigger.PERSON else "run"


def _tell_end(tools: Tools, run: Run, error: Error | None) -> None:
    seconds = (run.ended_at or 0.0) - run.started_at
    tools.metrics.runs.labels(run.playbook, run.outcome).inc()
    tools.metrics.run_seconds.labels(run.playbook).observe(seconds)
    told = f"{run.target} {run.outcome} after {seconds:.1f} s: {run.detail}"
    if run.outcome is Outcome.RECOVERED and error is not None:
        total = run.timings.get("verified", run.ended_at or 0.0) - error.first_seen
        if not error.relapses:
            tools.metrics.recovery_seconds.labels(run.playbook).observe(max(0.0, total))
    tools.feed("outcome", f"{told} [{run.id}{' ' + run.error_id if run.error_id else ''}]")


@dataclass(frozen=True, slots=True)
class _Tried:
    """What one rung came to."""

    outcome: Outcome
    detail: str
    refused: bool = False  # for good: the same again would be refused again


def _try_rung(tools: Tools, progress: _Progress, index: int, rung: PlannedRung) -> _Tried:
    progress.run = replace(progress.run, rung=index, rungs_tried=progress.run.rungs_tried + 1)
    _save(tools, progress)
    if progress.run.error_id and progress.run.trigger is not Trigger.PERSON:
        change_error(
            tools.store, progress.run.error_id, lambda error: replace(error, attempts=error.attempts + 1)
        )
    _gather_evidence(tools, progress, rung)
    try:
        for step in rung.steps:
            _do_step(tools, progress, index, step)
    except ActionError as error:
        return _Tried(Outcome.FAILED, str(error), error.permanent)
    progress.mark("acted", tools.clock())
    _save(tools, progress)
    only_mends = all(step.action in PROVES_ITSELF for step in rung.steps)
    hopeless = _down_for_itself if only_mends else partial(_started_and_ended, tools, rung)
    proof = _verify(tools, progress.run.target, progress.run.error_id, rung.verify, hopeless=hopeless)
    if proof.outcome is Outcome.RECOVERED:
        progress.mark("verified", tools.clock())
    elif only_mends and index == len(progress.run.plan) - 1 and not tools.stopping.is_set():
        progress.mark("mended", tools.clock())
        return _Tried(Outcome.UNVERIFIED, f"mended; {proof.detail}")
    return _Tried(proof.outcome, proof.detail)


def _down_for_itself() -> str:
    """Hold no restart back: what was to be mended is, and the action has proved it."""
    return "its restart is not for this run"


def _started_and_ended(tools: Tools, rung: PlannedRung) -> str | None:
    """Say that a process which the rung started has failed already: nothing will answer."""
    for step in rung.steps:
        if isinstance(step.args, RestartArgs):
            try:
                started = spawn.recorded_process(step.args.service, tools.data_folder)
            except ActionError as error:
                log.warning("%s; probes alone tell whether it came up", error)
                continue
            code = spawn.CHILDREN.code_of(step.args.service, int(started["pid"])) if started else None
            if code:
                return f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
    return None


def _do_step(tools: Tools, progress: _Progress, rung: int, step: PlannedStep) -> None:
    """Do one step with its own retries. Raises ActionError when it is given up."""
    progress.steps += 1
    row = Step(
        run_id=progress.run.id,
        number=progress.steps,
        rung=rung,
        action=step.action,
        args=redact_value(step.args.model_dump(mode="json", by_alias=True)),
        state=StepState.STARTED,
        started_at=tools.clock(),
        on_crash=step.on_crash,
    )
    for attempt in range(1, step.retry.attempts + 1):
        try:
            _attempt(tools, progress, replace(row, attempt=attempt), step)
        except ActionError as error:
            if error.permanent or attempt == step.retry.attempts:
                raise
            if tools.stopping.wait(step.retry.backoff * 2 ** (attempt - 1)):
                raise RunLeftError(progress.run.id) from error
            objection = _before_next(tools, progress.run)
            if objection is not None and objection[0] is Outcome.RECOVERED:
                return  # it took effect after all
            if objection is not None:
                raise ActionError(f"not tried again: {objection[1]}") from error
        else:
            return


def _attempt(tools: Tools, progress: _Progress, row: Step, step: PlannedStep) -> None:
    """Journal, act, journal. Raises ActionError when the action failed."""
    if "acting" not in progress.run.timings:
        progress.mark("acting", tools.clock())
    _save(tools, progress)  # proves that the lease still holds right before the effect
    tools.store.journal(row)
    tools.feed("run", f"{progress.run.target}: {_describe(step)} [{progress.run.id}]")
    try:
        result = find_action(step.action)(step.args, _context(tools, progress, step), step.timeout)
    except ActionError as error:
        failure = error
    except Exception as error:  # an action that breaks its contract fails its step, not the engine
        tools.metrics.internal_errors.labels("run").inc()
        log.exception("action %s of run %s broke", step.action, progress.run.id)
        failure = ActionError(f"{step.action} broke: {type(error).__name__}: {error}", permanent=True)
    else:
        tools.store.journal(replace(row, state=StepState.DONE, ended_at=tools.clock(), result=redact(result)))
        return
    told = redact(str(failure))
    tools.store.journal(replace(row, state=StepState.FAILED, ended_at=tools.clock(), result=told))
    raise failure


def _describe(step: PlannedStep) -> str:
    subject = getattr(step.args, "service", None) or getattr(step.args, "url", None)
    return f"{step.action} {subject}" if subject else step.action


def _save(tools: Tools, progress: _Progress) -> None:
    if not tools.store.save_run(progress.run):
        raise RunLeftError(progress.run.id)


def _gather_evidence(tools: Tools, progress: _Progress, rung: PlannedRung) -> None:
    """Take what a restart would destroy, before it does. Bounded in time and size; never fails the run."""
    if not any(step.action in _DESTRUCTIVE for step in rung.steps):
        return
    found = take_evidence(tools, progress.run.target)
    progress.run = replace(
        progress.run, evidence={**progress.run.evidence, f"rung {progress.run.rung + 1}": found}
    )
    progress.mark("evidence", tools.clock())
    _save(tools, progress)


def take_evidence(tools: Tools, target: str) -> dict[str, Any]:
    """Return what can be said about the target now: bounded in time and size, redacted. Never raises."""
    try:
        state = tools.exporter.state(target, timeout=1.0)
    except ExporterUnreachable as error:
        state = {"unreachable": str(error)}
    return evidence.gather(
        target=target,
        service=tools.services.get(target),
        state=state,
        data_folder=tools.data_folder,
        config_folder=tools.config_folder,
        on_fault=tools.metrics.internal_errors.labels("evidence").inc,
        deadline_seconds=tools.evidence_timeout,
    )


def _context(tools: Tools, progress: _Progress, step: PlannedStep) -> ActionContext:
    run = progress.run
    error = tools.store.get_error(run.error_id) if run.error_id else None
    return ActionContext(
        run_id=run.id,
        target=run.target,
        services=tools.services,
        config_folder=tools.config_folder,
        data_folder=tools.data_folder,
        processes=_process_of(tools, progress, step.args.service)
        if isinstance(step.args, RestartArgs)
        else {},
        notifier=tools.notifier,
        summary={
            "run": run.id,
            "error": run.error_id,
            "target": run.target,
            "playbook": run.playbook,
            "problem": error.problem if error else None,
            "severity": error.severity if error else None,
            "last_seen": error.last_seen if error else None,
        },
        withheld=tools.withheld,
        stop=tools.stopping,
    )


def _process_of(tools: Tools, progress: _Progress, service: str) -> Mapping[str, Mapping[str, Any]]:
    """Say what runs there: as seen by the decision a moment ago, else asked of the exporter now."""
    seen, progress.seen = progress.seen, {}
    if not seen or service != progress.run.target:
        try:
            seen = tools.exporter.check([service], timeout=5.0)["results"].get(service, {})
        except ExporterUnreachable as error:
            raise ActionError(f"the exporter cannot be asked for the process: {error}") from error
    process = seen.get("process")
    return {service: {**process, "unresponsive": seen.get("reason") in _UNRESPONSIVE}} if process else {}


def _rung_verify(run: Run) -> Verify:
    stored = run.plan[run.rung]["verify"] if run.rung < len(run.plan) else {}
    return Verify.model_construct(**{**Verify().model_dump(), **stored})


def _verify(
    tools: Tools,
    target: str,
    error_id: str | None,
    how: Verify,
    *,
    within: float | None = None,
    hopeless: Callable[[], str | None] = lambda: None,
) -> Verification:
    error = tools.store.get_error(error_id) if error_id else None
    must_be_fast = error is not None and error.problem is Problem.SERVICE_TIMEOUT
    bounded = how if within is None else how.model_copy(update={"within": min(how.within, within)})
    return verify(
        tools.exporter, target, bounded, must_be_fast=must_be_fast, hopeless=hopeless, stop=tools.stopping
    )
