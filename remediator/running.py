"""The runs under way: begins them under a lease, keeps the lease, adopts what was left behind."""

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from remediator.actions.stop import ENDED
from remediator.complaints import Complaints
from remediator.plan import Plan
from remediator.playbook import Playbook
from remediator.run import Outcome, Run, Trigger
from remediator.runner import RunLeftError, Tools, end, execute, resume
from remediator.signals import Error, Signal, is_event
from remediator.store import RunQuery
from soulfra_monitor.events import Kind

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who we are in leases: a name that stays over restarts, and this life of it."""

    owner: str
    boot: str


class Running:
    """Runs at work in a pool of threads, one per target, each under a lease in the store."""

    def __init__(
        self,
        tools: Tools,
        identity: Identity,
        *,
        lease: float,
        workers: int,
        on_end: Callable[[], None],
        on_give_up: Callable[[str, str], None],
    ) -> None:
        self._tools = tools
        self._identity = identity
        self._lease = lease
        self._on_end = on_end
        self._on_give_up = on_give_up  # called with an error that must not be tried again, and why
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="run")
        self._at_work: dict[str, Run] = {}
        self._lock = threading.Lock()  # guards the one above
        self._kept = 0.0
        self._complaints = Complaints(log)

    def claim(self, run: Run, error: Error | None) -> bool:
        """Write the run and take its target's lease; False when it is held or the error has changed."""
        held = replace(error, held_reason=None, held_since=None, check_at=None) if error else None
        return self._tools.store.begin_run(run, held)

    def start(self, run: Run, plan: Plan, *, attempts_left: int, seen: Mapping[str, Any]) -> None:
        """Let a claimed run do its work."""
        self._enter(run)
        try:
            self._pool.submit(self._run, run, plan, attempts_left, seen)
        except RuntimeError:
            self._leave(run)  # we are being stopped: it stays as it stands, for the next life
            raise

    def prepare(
        self,
        error: Error,
        playbook: Playbook,
        plan: Plan,
        *,
        by: str | None = None,
        stored: bool = True,
        down_since: float | None = None,
    ) -> Run:
        """Make the run that would be claimed now; nothing is written."""
        now = self._tools.clock()
        timings = {"signal": error.last_seen, "decided": now}
        if error.alerted_at is not None:
            timings["alert"] = error.alerted_at
        if down_since is not None:
            timings["down"] = down_since
        return Run(
            id=f"R_{secrets.token_hex(6)}",
            target=error.target,
            playbook=playbook.name,
            trigger=_trigger(error, by),
            requested_by=by,
            error_id=error.id if stored else None,
            started_at=now,
            owner=self._identity.owner,
            boot=self._identity.boot,
            token=secrets.token_hex(8),
            lease_until=now + self._lease,
            rung=0 if by else min(error.attempts, len(plan.rungs) - 1),
            timings=timings,
            plan=plan.as_json(),
        )

    def that_ended(self, signal: Signal) -> Run | None:
        """Return the run that ended the process of whose death a service tells at its next start.

        None for any other signal, and for a process that crashed or was ended by somebody else.
        """
        life = signal.detail.get("context")
        if signal.labels.get("kind") != Kind.EXIT or not isinstance(life, Mapping) or life.get("crash"):
            return None
        pid, began = life.get("pid"), life.get("started")
        if not isinstance(pid, int) or not isinstance(began, int | float):
            return None
        ended = ENDED.when(signal.target, pid, began)
        runs = self._tools.store.find_runs(RunQuery(target=signal.target)) if ended is not None else []
        return next((run for run in runs if ended is not None and run.started_at <= ended), None)

    def adopt_orphans(self) -> None:
        """Take over and settle every run that nobody works on: of an earlier life, or with its lease over."""
        now = self._tools.clock()
        with self._lock:
            at_work = set(self._at_work)
        for run in self._tools.store.orphans(self._identity.owner, self._identity.boot, now):
            if run.id not in at_work:
                self._adopt(run, now)

    def keep_leases(self) -> None:
        """Renew the leases of runs at work and adopt orphans, every third of a lease; cheap to call often."""
        now = self._tools.clock()
        if 0 <= now - self._kept < self._lease / 3:
            return
        self._kept = now
        with self._lock:
            at_work = list(self._at_work.values())
        for run in at_work:
            if not self._tools.store.renew(run, now + self._lease):
                log.warning("the lease of %s is lost; it stops before its next effect", run.id)
        self.adopt_orphans()

    def shut_down(self) -> None:
        """Begin nothing more; what is at work stops by ``tools.stopping``."""
        self._pool.shutdown(wait=False)  # what was submitted sees ``stopping`` and leaves its run as it is

    def _run(self, run: Run, plan: Plan, attempts_left: int, seen: Mapping[str, Any]) -> None:
        try:
            execute(self._tools, run, plan, attempts_left=attempts_left, seen=seen)
        except RunLeftError:
            log.warning("%s is left as it stands", run.id)
        except Exception as failure:  # noqa: BLE001 - a thread's edge; counted and logged
            self._count_failure("run", "%s broke", run)
            self._end_broken(run, failure)
        finally:
            self._leave(run)

    def _end_broken(self, run: Run, failure: Exception) -> None:
        try:
            current = self._tools.store.get_run(run.id) or run
            end(
                self._tools,
                current,
                Outcome.FAILED,
                f"the engine failed: {type(failure).__name__}: {failure}",
            )
        except Exception:  # noqa: BLE001 - a thread's edge; counted and logged
            # Its lease runs out, and then it is adopted as an orphan.
            self._count_failure("run", "%s could not be ended", run)

    def _adopt(self, run: Run, now: float) -> None:
        token = secrets.token_hex(8)
        owner, boot = self._identity.owner, self._identity.boot
        ours = self._tools.store.adopt(run, token, boot, now + self._lease, owner)
        if ours is not None:
            self._enter(ours)
            self._pool.submit(self._resume, ours)
            self._tools.feed("resume", f"{run.target}: {run.id} was left behind; it is verified first")

    def _resume(self, run: Run) -> None:
        try:
            ended, must_not_repeat = resume(self._tools, run)
            if must_not_repeat and ended.outcome is not Outcome.RECOVERED and ended.error_id:
                self._on_give_up(ended.error_id, ended.detail)
        except RunLeftError:
            log.warning("%s was taken over by another remediator", run.id)
        except Exception as failure:  # noqa: BLE001 - a thread's edge; counted and logged
            self._count_failure("resume", "%s could not be settled", run)
            self._end_broken(run, failure)
        finally:
            self._leave(run)

    def _enter(self, run: Run) -> None:
        with self._lock:
            self._at_work[run.id] = run
            self._tools.metrics.runs_in_progress.set(len(self._at_work))

    def _leave(self, run: Run) -> None:
        with self._lock:
            self._at_work.pop(run.id, None)
            self._tools.metrics.runs_in_progress.set(len(self._at_work))
        self._on_end()

    def _count_failure(self, place: str, message: str, run: Run) -> None:
        self._tools.metrics.internal_errors.labels(place).inc()
        self._complaints.say(place, message % run.id)


def _trigger(error: Error, by: str | None) -> Trigger:
    if by:
        return Trigger.PERSON
    return Trigger.EVENT if is_event(error.fingerprint) else Trigger.ALERT
