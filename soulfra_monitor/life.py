"""The life of a monitor in a process: its thread, its end, and what becomes of it when the process forks.

Nothing here raises into the program.
"""

import atexit
import os
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event as Signal
from threading import Lock, active_count, main_thread
from typing import Any

from soulfra_monitor import aside
from soulfra_monitor.capture import text_of
from soulfra_monitor.dispatch import Beat
from soulfra_monitor.guard import guard
from soulfra_monitor.intake import Intake
from soulfra_monitor.settings import Settings
from soulfra_monitor.shedding import Level
from soulfra_monitor.worker import Complaint, Flush, Source, Worker

COMPLAIN_EVERY = 60.0
START_AGAIN_AFTER = 1.0
RETIRE_WITHIN = 0.1
"""Seconds that a fork, and the end of the program, wait for our thread to end."""

LEFT_PERIOD = 0.01
"""Seconds between looks at what has been sent."""

SENDING_SHARE = 0.7
"""Of the time at exit; the rest is for the spool."""

AFTER_ALL_OTHERS = -1000
"""A priority among what multiprocessing runs at the end of a child; those of others are above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What became of all errors seen: ``seen == sent + sum(dropped.values()) + pending``."""

    seen: int
    sent: int  # the remediator took them
    pending: int  # counted, queued or spooled
    dropped: Mapping[str, int]  # by reason (docs/library.md)
    repeated: int  # the same exception object seen again; not among the seen
    spooled: int  # of the pending, those that wait for the remediator to come back
    batches: int  # that the remediator took
    failures: int  # requests that got no answer, or were asked to come again
    refused: int  # batches that the remediator will never take
    adopted: int  # batches that dead processes left, and that were sent
    last_failure: str
    broken: Mapping[str, int]  # failures of the library itself, by place
    level: Level  # what is left out to stay below the limit of overhead
    overhead: float  # share of one core, over the last seconds


class Life:
    """Intake and worker of this process. A forked child gets new ones."""

    intake: Intake
    worker: Worker
    _start_again_at: float  # time.monotonic()
    _leave_by: float  # likewise; 0 until somebody leaves

    def __init__(self, settings: Settings, source: Source, forked: Callable[[], None]) -> None:
        self.running = False
        self.left: Callable[[], object] = _nothing
        """Called when errors are spooled at the very end that this process has no means to send any more."""
        self._settings = settings
        self._source = source
        self._forked = forked
        self._ended = False
        self._forked_off = False  # nothing but the fork has happened in this process
        self._broken: Counter[str] = Counter()
        self._complained: dict[str, float] = {}
        self._renew()
        _lives.add(self)

    def begin(self) -> None:
        """Take errors from now on, and have what there is sent at the end of the program."""
        if self._ended:
            self._renew()
        self._ended = False
        self.running = True
        aside.prepare()
        atexit.register(self._at_exit)
        if _is_child_of_multiprocessing():
            self._end_with_multiprocessing()

    def end(self) -> None:
        """Send what there is within the time for exit, spool the rest, take no more."""
        atexit.unregister(self._at_exit)
        self.leave(stop=True)
        self.running = False
        self._ended = True

    def wake(self) -> None:
        """See that a worker is there."""
        if self.running and not self.intake.alive:
            self._start_worker(self.intake)

    def wake_if_left_something(self) -> None:
        """Start the worker if dead processes left something to send, or counts may come without errors."""
        if self._source.wanted() or self.worker.spool.has_orphans(self.intake.boot):
            self.wake()

    def beat(self, beat: Beat) -> None:
        """Have a sign of life sent."""
        if self.running:
            self.intake.queue.put(beat)
            self.wake()
        if self.intake.closing:
            self.leave()

    def flush(self, timeout: float) -> bool:
        """Send what there is; wait at most *timeout* seconds. True when the remediator has taken it all."""
        if guard.busy or not self.running:
            return False
        guard.busy = True
        try:
            return self._flush(timeout)
        except Exception as error:  # noqa: BLE001 - the edge to the program: counted and logged
            self._count_failure("flush", error)
            return False
        finally:
            guard.busy = False

    def send_left(self, timeout: float) -> None:
        """Wait until something is sent that dead processes left, if they did and the remediator takes it.

        The time is part of that for the end of this process.
        """
        deadline = self._leave_by = time.monotonic() + timeout
        while time.monotonic() < deadline and self.worker.spool.has_orphans(self.intake.boot):
            stats = self.stats()
            if stats.adopted or stats.failures:
                return
            time.sleep(LEFT_PERIOD)

    def leave(self, *, stop: bool = False) -> None:
        """Send what there is while there is time, and spool the rest; in the time for exit as a whole."""
        if guard.busy or self.intake.pid != os.getpid():
            return
        guard.busy = True
        try:
            now = time.monotonic()
            self._leave_by = self._leave_by or now + self._settings.exit_timeout
            left = max(0.0, self._leave_by - now)
            if sys.is_finalizing() and not self._take_over(left):
                return
            if self._is_idle() and not stop:
                return
            if not self._flush(left * SENDING_SHARE, last=True, stop=stop):
                self.worker.sender.abort()
                self.worker.put_by()
                if not self.worker.sender.is_loaded:
                    self.left()
            self.worker.leave(stop=stop)
        except Exception as error:  # noqa: BLE001 - the edge to the program, which is ending
            self._count_failure("exit", error)
        finally:
            guard.busy = False

    def step_aside(self) -> None:
        """Leave, and be ready to go on: another program is about to take this process, but may not come.

        A forked child that has nothing to tell waits for nothing: that it becomes another is the use of it.
        """
        if guard.busy or not self.running or (self._forked_off and not self.intake.seen):
            return
        self.leave()
        self._leave_by = 0.0

    def attempt(self, place: str, do: Callable[[], object]) -> None:
        """Do something of ours that may fail; if it does it is counted and logged."""
        try:
            do()
        except Exception as error:  # noqa: BLE001 - counted and logged; the program goes on
            self.broke(place, error)

    def broke(self, place: str, error: BaseException) -> None:
        """Count a failure of our own, and have it logged once a minute per place."""
        busy, guard.busy = guard.busy, True
        try:
            self._count_failure(place, error)
        finally:
            guard.busy = busy

    def stats(self) -> Stats:
        """Return what became of all errors, and how the library itself fares."""
        worker, intake = self.worker, self.intake
        busy, guard.busy = guard.busy, True
        try:
            with worker.desk, intake.lock:
                counts = worker.dispatch.counts
                return Stats(
                    seen=intake.seen,
                    sent=intake.sent,
                    pending=intake.admission.pending + intake.on_way + worker.dispatch.weight,
                    dropped=dict(intake.dropped),
                    repeated=intake.repeated,
                    spooled=worker.dispatch.backlog.weight,
                    batches=counts.batches,
                    failures=counts.failures,
                    refused=counts.refused,
                    adopted=counts.adopted,
                    last_failure=counts.last_failure,
                    broken=dict(self._broken),
                    level=intake.level,
                    overhead=worker.shedding.share,
                )
        finally:
            guard.busy = busy

    def before_fork(self) -> None:
        """Let our thread end if the program has no others: it forks as it would without us.

        Bounded, and not at all while a request is under way: that could take long.
        """
        if self.intake.alive and active_count() == 1 and not self.worker.is_posting:
            threads = _count_threads()
            deadline = time.monotonic() + RETIRE_WITHIN
            if self.worker.retire(RETIRE_WITHIN):
                while _count_threads() >= threads > 0 and time.monotonic() < deadline:
                    time.sleep(RETIRE_WITHIN / 1000)

    def after_fork_in_parent(self) -> None:
        """Go on as before."""
        self.worker.resume()
        if self.running and not self.intake.alive and not self._is_idle():
            self.wake()

    def after_fork_in_child(self) -> None:
        """Begin anew. No thread is started but for watched services, whose calls nobody else would tell."""
        self.worker.close()
        self._broken.clear()
        self._complained.clear()
        self._forked_off = True
        self._renew()
        self._forked()
        util = sys.modules.get("multiprocessing.util")
        if self.running and util is not None:  # it forgets what is registered now, but for this
            util.register_after_fork(self, Life._end_with_multiprocessing)

    def _renew(self) -> None:
        """Make an empty queue and a new boot. What came before a fork is the parent's."""
        self._start_again_at = 0.0
        self._leave_by = 0.0
        self._at_work = Lock()  # of who does the worker's work
        self.intake = Intake(self._settings, self._start_worker)
        self.worker = Worker(self.intake, self._source, _log_as(self._settings.log_level), self.broke)

    def _start_worker(self, intake: Intake) -> None:
        """Start the thread, without waiting for it. Where none can be had, who leaves does its work."""
        now = time.monotonic()
        busy, guard.busy = guard.busy, True
        try:
            with intake.lock:
                if intake.alive or intake.closing or now < self._start_again_at:
                    return
                intake.alive = True
            aside.start(self.worker.run)
        except RuntimeError as error:
            intake.alive = False
            self._start_again_at = now + START_AGAIN_AFTER
            if main_thread().is_alive():  # else the program ends, and who leaves does the work
                self._count_failure("thread", error)
        finally:
            guard.busy = busy

    def _count_failure(self, place: str, error: BaseException) -> None:
        """Count a failure of our own; have it logged where the program does not wait for it."""
        self._broken[place] += 1
        if isinstance(error, RecursionError):  # the program has used up the stack, and is told of that itself
            return
        now = time.monotonic()
        if now - self._complained.get(place, float("-inf")) < COMPLAIN_EVERY:
            return
        self._complained[place] = now
        text = f"{place} failed: {type(error).__name__}: {text_of(error)}"
        self.intake.queue.put(Complaint("warning", text))
        if place != "thread":
            self.wake()

    def _flush(self, timeout: float, *, last: bool = False, stop: bool = False) -> bool:
        flush = Flush(Signal(), last=last, stop=stop)
        deadline = time.monotonic() + timeout
        if self.intake.alive:
            self.worker.ask(flush)
            if flush.done.wait(timeout):
                return flush.complete
        if self.intake.alive:
            return False
        return self._work_off(flush, deadline)

    def _work_off(self, flush: Flush, deadline: float) -> bool:
        """Do the worker's work here: there is no thread, and at the end of a program none can be had."""
        if not self._at_work.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            self.worker.ask(flush)
            while not flush.done.is_set():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.worker.sender.limit(left)
                self.worker.turn()
            return flush.complete
        finally:
            self._at_work.release()

    def _take_over(self, seconds: float) -> bool:
        """Do the thread's work from now on: it never runs again. False if it has left its desk locked."""
        self.intake.alive = False
        if not self.worker.desk.acquire(timeout=seconds):
            return False
        self.worker.desk.release()
        return True

    def _at_exit(self) -> None:
        """Send what there is. Errors of what ends after us are sent one by one, by who brings them.

        So the thread ends: at the very end Python gives it no more turns, and what it is handed is lost.
        """
        self.intake.closing = True
        self.leave()
        if self.intake.alive:
            self.worker.retire(RETIRE_WITHIN)

    def _end_with_multiprocessing(self) -> None:
        """Send what there is when a child of multiprocessing ends: it does not run what atexit knows."""
        util: Any = sys.modules["multiprocessing.util"]
        util.Finalize(None, self._at_exit, exitpriority=AFTER_ALL_OTHERS)

    def _is_idle(self) -> bool:
        """Whether there is nothing that would be lost."""
        with self.intake.lock:
            told = self.intake.on_way + self.intake.admission.pending
            nothing = not told and not self.intake.untold and self.intake.queue.empty()
        return nothing and not self.worker.dispatch.has_own and not self._source.wanted()


_lives: weakref.WeakSet[Life] = weakref.WeakSet()


def _nothing() -> None:
    """Tell nobody."""


def _is_child_of_multiprocessing() -> bool:
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _log_as(level: str) -> Callable[[str, str], None]:
    """Return what logs for us, if the program uses logging. Its stderr is its own: we write nothing there."""

    def say(severity: str, text: str) -> None:
        logging: Any = sys.modules.get("logging")
        if not hasattr(logging, "getLogger"):
            return
        logger = logging.getLogger("soulfra_monitor")
        if not logger.handlers:  # else what no handler takes goes to stderr
            logger.addHandler(logging.NullHandler())
        logger.setLevel(level.upper())
        logger.log(getattr(logging, severity.upper()), "%s", text)
        aside.unname()

    return say


def _count_threads() -> int:
    """Return how many threads the system knows of, 0 where it does not say."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _for_all(do: Callable[[Life], None]) -> None:
    """Do something at a fork. Whatever fails, the program forks."""
    busy, guard.busy = guard.busy, True
    for life in list(_lives):
        life.attempt("fork", partial(do, life))
    guard.busy = busy


def _after_fork_in_child() -> None:
    _for_all(Life.after_fork_in_child)
    guard.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=partial(_for_all, Life.before_fork),
        after_in_parent=partial(_for_all, Life.after_fork_in_parent),
        after_in_child=_after_fork_in_child,
    )
