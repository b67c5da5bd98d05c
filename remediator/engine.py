"""Looks at every error that is due, decides, and lets the runner act. Effects start here only.

One timer thread finds what is due; looks and runs happen in pools, so that one hung target holds
up nothing else. Decisions are taken one at a time, so that limits hold across targets.
"""

import logging
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus

from remediator.actions import spawn
from remediator.complaints import Complaints
from remediator.escalation import WATCH, escalate, watch_seconds
from remediator.events import signal_of_event
from remediator.inquiry import UNWATCHED, Inquiry, ask, last_seen
from remediator.judge import Judge, RefusalError
from remediator.playbook import Playbook, Verify
from remediator.policy import Answer, Health, disproved, mended
from remediator.rhythm import Rhythm
from remediator.run import Outcome, Run, Trigger
from remediator.runner import Tools, change_error
from remediator.running import Identity, Running
from remediator.signals import (
    STRANGERS_LIMIT,
    Admission,
    Error,
    ErrorState,
    Reason,
    Signal,
    Source,
    Status,
    Verdict,
    admit,
    ended_by_run,
    look_again,
    of_a_stranger,
    open_again,
    reopen,
)
from remediator.store import Admit, RunQuery, StoreError
from remediator.verify import verify
from soulfra_monitor.events import Event
from soulfra_monitor.problems import Problem

log = logging.getLogger(__name__)

_TICK = 0.25  # seconds between looks at the store when nobody wakes the timer
_AT_ONCE = 200  # errors that are due and read in one go
_FAR_AT_ONCE = 20  # of services that nobody has configured, in one tick
_HEALERS = 20  # past runs of a target that may have made an end of an error
_QUICK = Verify.model_construct(healthy=3, every=0.25, within=3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a post of events."""

    repeated: bool  # it was taken before, and nothing of it was taken again
    admissions: tuple[Admission, ...] = ()  # of those taken now, in their order


class Engine:
    """Turns errors into decisions, runs and outcomes."""

    def __init__(
        self,
        tools: Tools,
        playbooks: Sequence[Playbook],
        identity: Identity,
        *,
        alertmanagers: Sequence[str] = (),
        stable_for: float = 60.0,
        escalate_after: float = 300.0,
        lease: float = 15.0,
        workers: int = 16,
    ) -> None:
        self._tools = tools
        self._store = tools.store
        self._stable_for = stable_for
        self._rhythm = Rhythm(tools.clock())
        self._admit = partial(admit, stable_for=stable_for)
        self._running = Running(
            tools, identity, lease=lease, workers=workers, on_end=self.wake, on_give_up=self._give_up
        )
        self._judge = Judge(
            tools, playbooks, self._running, alertmanagers=alertmanagers, escalate_after=escalate_after
        )
        self._looks = ThreadPoolExecutor(workers, thread_name_prefix="look")
        self._far_looks = ThreadPoolExecutor(1, thread_name_prefix="look-far")  # at services of nobody
        self._looking: set[str] = set()
        self._far_looking: set[str] = set()
        self._lock = threading.Lock()  # guards the two above
        self._placing = threading.Lock()  # room for errors of strangers is counted and used up in one go
        self._complaints = Complaints(log)
        self._wake = threading.Event()
        self._timer = threading.Thread(target=self._keep_time, name="timer", daemon=True)

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Settle what an earlier life left behind, then begin to look."""
        self._running.adopt_orphans()
        self._timer.start()

    def stop(self, grace: float = 5.0) -> None:
        """Begin nothing new; give runs under way *grace* seconds, then leave them to the next life."""
        self._tools.stopping.set()
        self._wake.set()
        if self._timer.is_alive():
            self._timer.join(grace)
        for pool in (self._looks, self._far_looks):
            pool.shutdown(wait=False, cancel_futures=True)
        self._running.shut_down()

    @property
    def alive(self) -> bool:
        """Whether the timer goes on; without it nothing is repaired."""
        return self._timer.is_alive()

    # -- what comes in ------------------------------------------------------------------------

    def accept(self, signals: Sequence[Signal]) -> list[Admission]:
        """Take signals durably; when this returns they are committed. Raises StoreError if they cannot be."""
        admissions = self._store.accept(signals, self._admit)
        self._tell_admissions(admissions)
        return admissions

    def accept_events(self, events: Sequence[Event], *, boot: str = "", seq: int = 0) -> Receipt:
        """Take events durably, exactly once; when this returns they are committed. Raises StoreError.

        Those of a batch are known by *boot* and *seq*, also when there are none; single ones, without
        *boot*, by their id. Each is redacted and classified first: the signals of the receipt's admissions
        have severity, problem and count.
        """
        now = self._tools.clock()
        signals = [signal_of_event(event, now, self._rhythm) for event in events]
        if all(signal.target in self._tools.services for signal in signals):
            return self._accept_signals(signals, boot, seq, now)
        with self._placing:
            return self._accept_signals(self._with_room(signals), boot, seq, now)

    def _with_room(self, signals: Sequence[Signal]) -> list[Signal]:
        """Give those of services that nobody has configured to one target, when these have too much open."""
        services = self._tools.services
        strangers = {_key(signal) for signal in signals if signal.target not in services}
        room = STRANGERS_LIMIT - self._store.count_strangers(services)
        if len(strangers) <= room:
            return list(signals)
        kept = set()
        for key in sorted(strangers):
            latest = self._store.latest_error(*key)
            is_open = latest is not None and latest.open
            if is_open or room > 0:
                kept.add(key)
                room -= not is_open
        return [
            signal if signal.target in services or _key(signal) in kept else of_a_stranger(signal)
            for signal in signals
        ]

    def _accept_signals(self, signals: Sequence[Signal], boot: str, seq: int, now: float) -> Receipt:
        admit_all = self._admit_knowing(signals)
        if boot:
            taken = self._store.accept_batch(boot, seq, signals, admit_all, at=now)
        else:
            once = self._store.accept_once(signals, admit_all, at=now)
            taken = [admission for admission in once if admission is not None] or None
        if taken is None:
            return Receipt(repeated=bool(boot or signals))
        for admission in taken:
            self._rhythm.note(admission)
        self._tell_admissions(taken)
        return Receipt(repeated=False, admissions=tuple(taken))

    def _admit_knowing(self, signals: Sequence[Signal]) -> Admit:
        """Return how to admit these: deaths that our own repairs caused are no errors."""
        runs = {signal.event_id: self._running.that_ended(signal) for signal in signals}

        def admit_one(signal: Signal, latest: Error | None, member: Status | None, new_id: str) -> Admission:
            run = runs.get(signal.event_id)
            if run is not None:
                return ended_by_run(signal, run.id, run.error_id)
            return self._admit(signal, latest, member, new_id)

        return admit_one

    def request(self, action: str, target: str, *, force: bool, by: str) -> Run:
        """Begin what a person asks for. Raises RefusalError with the reason when it is not begun."""
        return self._judge.request(action, target, force=force, by=by)

    def answer_approval(self, error_id: str, *, approve: bool, by: str, hold: float = 900.0) -> Error:
        """Note a person's yes or no; a yes holds for *hold* seconds.

        Raises RefusalError when there is no such error.
        """
        now = self._tools.clock()
        known = self._store.get_error(error_id)
        if known is not None and known.held_reason is not Reason.APPROVAL_PENDING:
            message = "it is over" if not known.open else "it does not wait for an approval"
            raise RefusalError(HTTPStatus.CONFLICT, f"{error_id}: {message}")

        def note(error: Error) -> Error:
            if approve:
                return replace(
                    error, approved_by=by, approved_until=now + hold, rejected_by=None, check_at=now
                )
            return replace(error, rejected_by=by, approved_until=None, check_at=now)

        error = change_error(self._store, error_id, note)
        if error is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, f"there is no error {error_id}")
        self._wake.set()
        return error

    def wake(self) -> None:
        """Look at the store now rather than at the next tick."""
        self._wake.set()

    # -- the timer ----------------------------------------------------------------------------

    def _keep_time(self) -> None:
        while not self._tools.stopping.is_set():
            self._wake.wait(_TICK)
            self._wake.clear()
            try:
                self._tell_ended_processes()
                self._running.keep_leases()
                due = self._store.due_errors(self._tools.clock(), _AT_ONCE, first=self._tools.services)
                for error in due:
                    self._submit_look(error)
            except StoreError:
                self._count_failure("timer", "the store failed; trying again")
                self._tools.stopping.wait(1.0)
            except Exception:  # noqa: BLE001 - a thread's edge; counted and logged
                self._count_failure("timer", "the timer failed; going on")

    def _submit_look(self, error: Error) -> None:
        """Look at it in a thread; at few errors of services that nobody has configured, and those in turn."""
        near = error.target in self._tools.services
        looking, pool = (self._looking, self._looks) if near else (self._far_looking, self._far_looks)
        with self._lock:
            if error.id in looking or (not near and len(looking) >= _FAR_AT_ONCE):
                return
            looking.add(error.id)
        look = pool.submit(self._look_safely, error.id)
        look.add_done_callback(lambda _: self._end_look(error.id, looking))  # also when it is cancelled

    def _end_look(self, error_id: str, looking: set[str]) -> None:
        with self._lock:
            looking.discard(error_id)
        if looking is self._looking:
            self._wake.set()  # others wait for the next tick

    def _look_safely(self, error_id: str) -> None:
        try:
            self._look(error_id)
        except Exception:  # noqa: BLE001 - a thread's edge; counted and logged
            self._count_failure("look", f"looking at {error_id} failed")
            self._put_off(error_id, 2.0)

    def _put_off(self, error_id: str, seconds: float) -> None:
        later = self._tools.clock() + seconds
        try:
            change_error(self._store, error_id, lambda error: replace(error, check_at=later))
        except Exception:  # noqa: BLE001 - a thread's edge; counted and logged
            self._count_failure("look", f"{error_id} could not be put off")
            self._tools.stopping.wait(seconds)

    def _tell_ended_processes(self) -> None:
        for name, pid, code in spawn.reap():
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._tools.feed("process", f"{name} ended with {how} (pid {pid})")

    def _count_failure(self, place: str, message: str) -> None:
        self._tools.metrics.internal_errors.labels(place).inc()
        self._complaints.say(place, message)

    # -- one look at one error ----------------------------------------------------------------

    def _look(self, error_id: str) -> None:
        error = self._store.get_error(error_id)
        if error is None or error.check_at is None or error.check_at > self._tools.clock():
            return
        known = error.target in self._tools.services
        asked = ask(self._tools, error.target, count=self._judge.counts_for(error)) if known else UNWATCHED
        health = asked.health
        if error.open:
            self._keep_sight(error, asked)
        else:
            current = self._reconsider(error, health)
            if current is None:
                return
            error = current
        if self._is_over(error, health):
            if not self._close(error):
                # It was healthy and is not, or its alert came again: looked at soon, and told if it goes on.
                self._judge.hold_unproven(error, "healthy, but the proof of it failed")
            return
        if error.state is ErrorState.FAILED:
            self._watch_failed(error)
            return
        self._judge.judge(error, health, asked.result)

    def _keep_sight(self, error: Error, asked: Inquiry) -> None:
        """Keep what was seen of the service and of what it depends on, at the first look at its error."""
        service = self._tools.services.get(error.target)
        if service is None or error.attempts or error.held_reason is not None:
            return
        if asked.health.reachable:
            seen = last_seen(self._tools, error.target)
        else:
            seen = {"missing": f"the exporter cannot be asked: {asked.health.detail}"}
        self._store.keep_sight(error.id, {"at": self._tools.clock(), **seen})

    def _give_up(self, error_id: str, why: str) -> None:
        error = self._store.get_error(error_id)
        if error is not None:
            escalate(self._tools, error, self._judge.playbook_for(error), why, give_up=True)

    def _watch_failed(self, error: Error) -> None:
        """Wait for the end of an error that people were called for, and make sure that they were told."""
        if not error.escalation_sent:
            playbook = self._judge.playbook_for(error)
            escalate(self._tools, error, playbook, "it could not be repaired", give_up=True)
        still = WATCH if not error.escalation_sent else watch_seconds(self._tools, error.target)
        again = self._tools.clock() + still
        change_error(self._store, error.id, lambda old: look_again(old, error, again))

    def _reconsider(self, error: Error, health: Health) -> Error | None:
        """Decide what a late signal of a closed error means; return the error to go on with, if any."""
        now = self._tools.clock()
        latest = self._store.latest_error(error.target, error.problem, error.subject)
        if latest is not None and latest.id != error.id:
            self._judge.set_check(error.id, None)  # a newer episode has taken over
            return None
        if error.proven_by_probe and self._tools.services.get(error.target):
            doubt = _doubt(health)
            if doubt is not None:
                self._judge.defer(error, *doubt, now + 2)
                return None
            if disproved(error, health):
                answer = Answer(
                    verdict=Verdict.REFUSED,
                    reason=Reason.ALREADY_HEALTHY,
                    detail="a fresh probe says healthy",
                )
                self._judge.record(error, "timer", answer)
                change_error(self._store, error.id, lambda old: _looked_at(old, error))
                return None
        if now - (error.closed_at or 0.0) <= self._stable_for:
            self._tools.metrics.relapses.inc()
            self._tools.feed("relapse", f"{error.target} {error.problem} is back [{error.id}]")
            return change_error(self._store, error.id, lambda old: reopen(old, now))
        fresh = open_again(error, _new_error_id())
        self._store.add_error(fresh, heir_of=error.id)
        self._judge.set_check(error.id, None)
        return self._store.get_error(fresh.id)

    def _is_over(self, error: Error, health: Health) -> bool:
        if disproved(error, health) or mended(error, health):
            return True
        if error.proven_by_probe and health.known:
            return False
        members = self._store.members(error.id)
        resolved = bool(members) and all(status is Status.RESOLVED for status in members.values())
        return resolved and health.reachable and (health.healthy or not health.known)

    def _close(self, error: Error) -> bool:
        """End an error that is over; a recovery is believed only after several healthy looks in a row."""
        known = error.target in self._tools.services
        if known:
            fast = error.problem is Problem.SERVICE_TIMEOUT
            proof = verify(
                self._tools.exporter, error.target, _QUICK, must_be_fast=fast, stop=self._tools.stopping
            )
            if proof.outcome is not Outcome.RECOVERED:
                return False
        now = self._tools.clock()
        healer = self._healer(error)
        missed = False

        def close(old: Error) -> Error:
            nonlocal missed
            missed = not error.proven_by_probe and old.last_seen != error.last_seen
            if missed:  # its alert may be firing again, which no probe can tell
                return replace(old, check_at=now)
            # A signal that came in after the proof may tell of the next failure: look once more.
            again = now if old.last_seen > now else None
            closed = replace(
                old, open=False, closed_at=now, check_at=again, held_reason=None, held_since=None
            )
            if old.state is ErrorState.FAILED:
                return closed
            if not known:
                return replace(closed, state=ErrorState.FAILED)  # nothing of ours can prove a recovery
            by = old.recovered_by or healer
            return replace(closed, state=ErrorState.RECOVERED, recovered_at=now, recovered_by=by)

        how = "a fresh probe says healthy" if known else "all of it is over; nothing here can prove more"
        reason = Reason.ALREADY_HEALTHY if known else Reason.RESOLVED
        change_error(self._store, error.id, close)
        if missed:
            return False
        self._judge.record(error, "timer", Answer(verdict=Verdict.REFUSED, reason=reason, detail=how))
        self._tools.feed("over", f"{error.target} {error.problem}: {how} [{error.id}]")
        return True

    def _healer(self, error: Error) -> str:
        """Say who made an end of it: a run for a like error of the same target may have, or be about to."""
        for run in self._store.find_runs(RunQuery(target=error.target, limit=_HEALERS)):
            helped = run.outcome is Outcome.RECOVERED and (run.ended_at or 0.0) >= error.first_seen
            if (helped or run.outcome is None) and self._may_have_healed(run, error):
                return "person" if run.trigger is Trigger.PERSON else "run"
        return "itself"

    def _may_have_healed(self, run: Run, error: Error) -> bool:
        """Whether a run had to do with it: begun for the same, or a repair of the outage that it tells of."""
        if error.proven_by_probe and not run.only_mends:
            return True
        cause = self._store.get_error(run.error_id) if run.error_id else None
        return cause is not None and (cause.problem, cause.subject) == (error.problem, error.subject)

    # -- telling ------------------------------------------------------------------------------

    def _tell_admissions(self, admissions: Sequence[Admission]) -> None:
        for admission in admissions:
            if admission.signal.source in (Source.EVENT, Source.QUIET):
                self._tell_event(admission)
            else:
                self._tell_admission(admission)
        self._wake.set()

    def _tell_event(self, admission: Admission) -> None:
        signal, error = admission.signal, admission.error
        if admission.decision is not None:
            reason = admission.decision.reason or ""
            self._tools.metrics.decisions.labels(admission.decision.verdict, reason).inc()
        if error is None and admission.decision is not None:
            told = f"{signal.message}: {admission.decision.detail}"
            self._tools.feed("event", f"{signal.target}: {told} [{admission.decision.run_id}]")
        if error is not None and admission.relapse:
            self._tools.metrics.relapses.inc()
            self._tools.feed("relapse", f"{error.target} {error.problem} is back [{error.id}]")
        elif error is not None and (admission.new or admission.decision is None):
            self._tools.feed(
                "event",
                f"{signal.severity} {signal.problem} in {signal.target}: {signal.message} [{error.id}]",
            )

    def _tell_admission(self, admission: Admission) -> None:
        signal = admission.signal
        if signal.source is Source.RECONCILE and not admission.new and signal.status is Status.FIRING:
            return  # what is open is asked for again and again; it is news once
        if signal.source is not Source.RECONCILE:
            self._tools.metrics.webhook_alerts.labels(signal.status).inc()
        if admission.decision is not None:
            reason = admission.decision.reason or ""
            self._tools.metrics.decisions.labels(admission.decision.verdict, reason).inc()
        name = signal.labels.get("alertname", signal.problem)
        origin = signal.labels.get("origin", signal.source)
        number = admission.error.id if admission.error else "no error"
        if admission.new or signal.status is Status.RESOLVED or admission.decision is None:
            self._tools.feed("alert", f"{name} {signal.status} for {signal.target} from {origin} [{number}]")


def _doubt(health: Health) -> tuple[Reason, str] | None:
    """Why a look that found nothing healthy proves nothing; None when it does."""
    if not health.reachable or not health.ready:
        return Reason.STALE, health.detail or "the exporter is warming up"
    if not health.known:
        return Reason.STALE, "the exporter does not watch this target"
    if health.blind and not health.healthy:
        return Reason.PROBER_BLIND, "most targets fail at once: the prober itself is suspected"
    return None


def _key(signal: Signal) -> tuple[str, Problem, str]:
    return signal.target, signal.problem, signal.subject


def _looked_at(stored: Error, seen: Error) -> Error:
    """Ask for no further look, unless a signal has asked for one since *seen* was read."""
    return replace(stored, check_at=None) if stored.check_at == seen.check_at else stored


def _new_error_id() -> str:
    return f"SE_{secrets.token_hex(4)}"
