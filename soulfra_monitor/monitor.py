"""``ErrorMonitor``: what a program uses of the library.

    from soulfra_monitor import ErrorMonitor

    monitor = ErrorMonitor(service="trust-engine").start()
    engine = monitor.add_service("trust-engine", engine)

Nothing here raises into the program but SettingsError and mistakes in declarations, and nothing waits but
``flush`` and ``stop``, for as long as they are told.
"""

import _thread
import atexit
import os
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from threading import Event as Signal
from threading import active_count, main_thread
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from soulfra_monitor.capture import FACTS, Fact, Opinion, text_of
from soulfra_monitor.declared import Counter as DeclaredCounter
from soulfra_monitor.declared import Declarations, Gauge
from soulfra_monitor.dispatch import Beat
from soulfra_monitor.events import Calls, Declared, Kind
from soulfra_monitor.guard import guard
from soulfra_monitor.heartbeats import Heartbeat
from soulfra_monitor.intake import Intake
from soulfra_monitor.settings import LEVELS, SettingsError, check_service, read
from soulfra_monitor.shedding import Level
from soulfra_monitor.worker import Complaint, Flush, Source, Worker

if TYPE_CHECKING:
    from soulfra_monitor.collector import Collector
    from soulfra_monitor.hooks import Undo

COMPLAIN_EVERY = 60.0
START_AGAIN_AFTER = 1.0
RETIRE_WITHIN = 0.1
"""Seconds that a fork waits for our thread to end."""

SENDING_SHARE = 0.7
"""Of the time at exit; the rest is for the spool."""

AFTER_ALL_OTHERS = -1000
"""A priority among what multiprocessing runs at the end of a child; those of others are above it."""

Service = TypeVar("Service")


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


class ErrorMonitor:
    """Watches this process and tells the remediator. One is active in a process at a time."""

    def __init__(
        self, service: str | None = None, url: str | None = None, token: str | None = None, **settings: Any
    ) -> None:
        """Take settings by keyword or from the environment (docs/library.md). Raises SettingsError."""
        self.settings = read({"service": service, "url": url, "token": token, **settings})
        self._running = False
        self._ended = False
        self._undo: dict[str, Undo] = {}
        self._broken: Counter[str] = Counter()
        self._complained: dict[str, float] = {}
        self._watched: list[weakref.ref[Any]] = []
        self._watches = False
        self._declarations = Declarations(self._wake)
        self._collector: Collector | None = None
        self._renew()
        _monitors.add(self)

    # life

    def start(self) -> Self:
        """Install the hooks and begin. Twice does nothing. Returns self.

        Raises RuntimeError when another monitor is active in this process.
        """
        if not self.settings.enabled or self._running:
            return self
        _activate(self)
        if self._ended:
            self._renew()
        self._ended = False
        self._running = True
        atexit.register(self._at_exit)
        if _is_child_of_multiprocessing():
            self._end_with_multiprocessing()
        self._install()
        if self._worker.spool.has_orphans(self._intake.boot) or self._has_counts():
            self._wake()
        return self

    def stop(self) -> None:
        """Undo all that was changed, send what there is within the time for exit, spool the rest.

        ``start`` begins a new life, which sends what this one spooled.
        """
        if not self._running:
            return
        for name, undo in reversed(self._undo.items()):
            self._try(f"hook:{name}", undo)
        self._undo.clear()
        for watched in self._watched:
            obj = watched()
            if obj is not None:
                self.remove_service(obj)
        self._watched.clear()
        self._watches = False
        atexit.unregister(self._at_exit)
        self._leave(stop=True)
        self._running = False
        self._ended = True
        _deactivate(self)

    def flush(self, timeout: float = 2.0) -> bool:
        """Send what there is; wait at most *timeout* seconds. True when the remediator has taken it all."""
        if guard.busy or not self._running:
            return False
        guard.busy = True
        try:
            return self._flush(timeout)
        except Exception as error:  # noqa: BLE001 - the edge to the program: counted and logged
            self._count_failure("flush", error)
            return False
        finally:
            guard.busy = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # what a program tells

    def report(self, problem: str | BaseException, /, **details: Any) -> None:
        """Tell an error: a text, or an exception that was caught.

        Of *details* ``service``, ``message``, ``severity``, ``problem`` and ``fingerprint`` are what they
        say; what playbooks can use (``path``, ``peer``, ``status``, ... of events.Event.facts) becomes facts,
        and the rest context.
        """
        said = {name: text_of(details.pop(name)) for name in _SAID & details.keys()}
        facts = {name: details.pop(name) for name in FACTS & details.keys()}
        service, message = said.pop("service", None), said.pop("message", None)
        if isinstance(problem, BaseException):
            self.raised(
                Kind.REPORTED,
                problem,
                service=service,
                message=message,
                facts=facts,
                context=details,
                opinion=Opinion(**said),
            )
        else:
            text = message or text_of(problem)
            self.noted(
                Kind.REPORTED, text, service=service, facts=facts, context=details, opinion=Opinion(**said)
            )

    def gauge(
        self,
        name: str,
        help: str = "",  # noqa: A002 - as people know it from prometheus_client
        *,
        low: float | None = None,
        high: float | None = None,
        service: str | None = None,
    ) -> Gauge:
        """Declare a number; below *low* or above *high* people want to know. Twice gives the same object.

        Raises ValueError for a name that is declared as a counter, and above 100 names.
        """
        place = service or self.settings.service
        return self._declarations.gauge(
            Declared(service=place, name=name, value=0.0, low=low, high=high, help=help)
        )

    def counter(
        self,
        name: str,
        help: str = "",  # noqa: A002 - as people know it from prometheus_client
        *,
        service: str | None = None,
    ) -> DeclaredCounter:
        """Declare what only grows. Twice gives the same object. Raises as ``gauge`` does."""
        place = service or self.settings.service
        return self._declarations.counter(
            Declared(service=place, name=name, value=0.0, counter=True, help=help)
        )

    def heartbeat(self, name: str) -> Heartbeat:
        """Return the heartbeat of a job or loop: a context manager, or ``beat()`` after each round."""
        return Heartbeat(name, self._beat)

    # watched objects

    def add_service(self, name: str, obj: Service, **options: Any) -> Service:
        """Watch the methods of *obj* as those of service *name*, and return it.

        *options* are those of ``watching.Options``. What cannot be watched is returned as it is, and told.
        Raises SettingsError for a name or an option that cannot be.
        """
        try:
            check_service(name)
            watching = import_module("soulfra_monitor.watching")
            how = watching.Options(**{key: _frozen(value) for key, value in options.items()})
        except (TypeError, ValueError) as error:
            raise SettingsError(f"add_service: {error}") from None
        if not self.settings.enabled:
            return obj
        try:
            watched: Service = watching.watch(obj, name, self, how)
        except Exception as error:  # noqa: BLE001 - the program works without being watched; it is told
            self.broke("watch", error)
            return obj
        self._remember(watched)
        self._wake()
        return watched

    def remove_service(self, obj: Service) -> Service:
        """Stop watching *obj* and return it as it was. What is not watched is returned as it is."""
        original: Service = import_module("soulfra_monitor.watching").unwatch(obj)
        return original

    def collector(self) -> "Collector":
        """Return a collector for a prometheus_client registry of the service's own.

        From then on calls and declared values are told there, and no longer to the remediator.
        """
        from soulfra_monitor.collector import Collector  # noqa: PLC0415 - needs prometheus_client

        if self._collector is None:
            self._collector = Collector(_drain, self._declarations.totals, self.stats)
        return self._collector

    # hooks.Reporter

    def raised(
        self,
        kind: Kind,
        error: BaseException,
        *,
        service: str | None = None,
        message: str | None = None,
        handled: bool = True,
        facts: Mapping[str, Fact] | None = None,
        context: Mapping[str, Any] | None = None,
        opinion: Opinion | None = None,
    ) -> None:
        """Take an exception, as hooks.Reporter says."""
        if guard.busy or not self._running:
            return
        guard.busy = True
        try:
            self._intake.raised(
                kind,
                error,
                service=service,
                message=message,
                handled=handled,
                facts=facts,
                context=context,
                opinion=opinion,
            )
        except Exception as failure:  # noqa: BLE001 - the edge to the program: counted and logged
            self._count_failure("intake", failure)
        finally:
            guard.busy = False
        if self._intake.closing:
            self._leave()

    def noted(
        self,
        kind: Kind,
        message: str,
        *,
        service: str | None = None,
        frame: FrameType | None = None,
        facts: Mapping[str, Fact] | None = None,
        context: Mapping[str, Any] | None = None,
        opinion: Opinion | None = None,
    ) -> None:
        """Take an error that no exception stands for, as hooks.Reporter says."""
        if guard.busy or not self._running:
            return
        guard.busy = True
        try:
            self._intake.noted(
                kind,
                message,
                service=service,
                frame=frame,
                facts=facts,
                context=context,
                opinion=opinion,
            )
        except Exception as failure:  # noqa: BLE001 - the edge to the program: counted and logged
            self._count_failure("intake", failure)
        finally:
            guard.busy = False
        if self._intake.closing:
            self._leave()

    def broke(self, place: str, error: BaseException) -> None:
        """Count a failure of our own, and log it once a minute per place."""
        busy, guard.busy = guard.busy, True
        try:
            self._count_failure(place, error)
        finally:
            guard.busy = busy

    # what is to be seen of us

    def stats(self) -> Stats:
        """Return what became of all errors, and how the library itself fares."""
        worker, intake = self._worker, self._intake
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

    # inside

    def _renew(self) -> None:
        """Begin a life: an empty queue, a new boot. What came before a fork is the parent's."""
        self._start_again_at = 0.0
        self._leave_by = 0.0
        self._intake = Intake(self.settings, self._start_worker)
        source = Source(calls=self._calls, declared=self._declared, wanted=self._has_counts)
        self._worker = Worker(self._intake, source, _log_as(self.settings.log_level), self.broke)

    def _after_fork(self) -> None:
        self._worker.close()
        self._broken.clear()
        self._complained.clear()
        self._declarations.after_fork()
        self._renew()
        if not self._running:
            return
        if self._watches:
            self._wake()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:  # it forgets what is registered now, but for this
            util.register_after_fork(self, ErrorMonitor._end_with_multiprocessing)

    def _before_fork(self) -> None:
        """Let our thread end if the program has no others: it forks as it would without us.

        Bounded, and not at all while a request is under way: that could take long.
        """
        if self._intake.alive and active_count() == 1 and not self._worker.is_posting:
            threads = _count_threads()
            deadline = time.monotonic() + RETIRE_WITHIN
            if self._worker.retire(RETIRE_WITHIN):
                while _count_threads() >= threads > 0 and time.monotonic() < deadline:
                    time.sleep(RETIRE_WITHIN / 1000)

    def _after_fork_in_parent(self) -> None:
        self._worker.resume()
        if self._running and not self._intake.alive and not self._is_idle():
            self._wake()

    def _end_with_multiprocessing(self) -> None:
        """Send what there is when a child of multiprocessing ends: it does not run what atexit knows."""
        util: Any = sys.modules["multiprocessing.util"]
        util.Finalize(None, self._at_exit, exitpriority=AFTER_ALL_OTHERS)

    def _install(self) -> None:
        """Install every hook of the table that is not switched off. One that fails leaves the others."""
        try:
            hooks: Mapping[str, str] = import_module("soulfra_monitor.hooks.table").HOOKS
        except Exception as error:  # noqa: BLE001 - the program goes on without hooks; it is told
            self.broke("hooks", error)
            return
        for name in self.settings.without - hooks.keys():
            self.broke("hooks", SettingsError(f"without: {name} is no hook; there are {', '.join(hooks)}"))
        for name, place in hooks.items():
            if name not in self.settings.without:
                self._try(f"hook:{name}", partial(self._install_one, name, place))

    def _install_one(self, name: str, place: str) -> None:
        module, _, function = place.partition(":")
        self._undo[name] = getattr(import_module(module), function)(self)

    def _try(self, place: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - counted and logged; the program goes on
            self.broke(place, error)

    def _wake(self) -> None:
        if self._running and not self._intake.alive:
            self._start_worker(self._intake)

    def _start_worker(self, intake: Intake) -> None:
        """Start the thread, without waiting for it. Where none can be had, who leaves does its work."""
        now = time.monotonic()
        busy, guard.busy = guard.busy, True
        try:
            with intake.lock:
                if intake.alive or now < self._start_again_at:
                    return
                intake.alive = True
            _thread.start_new_thread(self._worker.run, ())
        except RuntimeError as error:
            intake.alive = False
            self._start_again_at = now + START_AGAIN_AFTER
            if main_thread().is_alive():  # else the program ends, and who leaves does the work
                self._count_failure("thread", error)
        finally:
            guard.busy = busy

    def _beat(self, beat: Beat) -> None:
        if self._running:
            self._intake.queue.put(beat)
            self._wake()

    def _calls(self) -> tuple[Calls, ...]:
        return _drain() if self._watches and self._collector is None else ()

    def _declared(self) -> tuple[Declared, ...]:
        return self._declarations.take() if self._collector is None else ()

    def _has_counts(self) -> bool:
        return self._collector is None and (self._watches or len(self._declarations) > 0)

    def _remember(self, watched: object) -> None:
        """Keep a watched object in mind for ``stop``, and not alive."""
        self._watches = True
        self._watched = [one for one in self._watched if one() is not None]
        try:
            self._watched.append(weakref.ref(watched))
        except TypeError:  # it takes none; what it tells after stop is not taken
            return

    def _count_failure(self, place: str, error: BaseException) -> None:
        """Count a failure of our own; have it logged where the program does not wait for it."""
        self._broken[place] += 1
        now = time.monotonic()
        if now - self._complained.get(place, float("-inf")) < COMPLAIN_EVERY:
            return
        self._complained[place] = now
        text = f"{place} failed: {type(error).__name__}: {text_of(error)}"
        self._intake.queue.put(Complaint("warning", text))
        if place != "thread":
            self._wake()

    def _flush(self, timeout: float, *, last: bool = False, stop: bool = False) -> bool:
        flush = Flush(Signal(), last=last, stop=stop)
        deadline = time.monotonic() + timeout
        if self._intake.alive:
            self._worker.ask(flush)
            if flush.done.wait(timeout):
                return flush.complete
        if self._intake.alive:
            return False
        return self._work_off(flush, deadline)

    def _work_off(self, flush: Flush, deadline: float) -> bool:
        """Do the worker's work here: there is no thread, and at the end of a program none can be had."""
        self._worker.ask(flush)
        while not flush.done.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._worker.sender.limit(left)
            self._worker.turn()
        return flush.complete

    def _at_exit(self) -> None:
        """Send what there is. Errors of what ends after us are sent one by one."""
        self._intake.closing = True
        self._leave()

    def _leave(self, *, stop: bool = False) -> None:
        """Send what there is while there is time, and spool the rest; in the time for exit as a whole."""
        if guard.busy or self._intake.pid != os.getpid():
            return
        guard.busy = True
        try:
            now = time.monotonic()
            self._leave_by = self._leave_by or now + self.settings.exit_timeout
            left = max(0.0, self._leave_by - now)
            if self._is_idle() and not stop:
                return
            if not self._flush(left * SENDING_SHARE, last=True, stop=stop):
                self._worker.sender.abort()
                self._worker.put_by()
            self._worker.leave(stop=stop)
        except Exception as error:  # noqa: BLE001 - the edge to the program, which is ending
            self._count_failure("exit", error)
        finally:
            guard.busy = False

    def _is_idle(self) -> bool:
        """Whether there is nothing that would be lost."""
        with self._intake.lock:
            told = self._intake.on_way + self._intake.admission.pending
            nothing = not told and not self._intake.untold and self._intake.queue.empty()
        return nothing and not self._worker.dispatch.has_own and not self._has_counts()


_SAID = frozenset({"service", "message", "severity", "problem", "fingerprint"})
_monitors: weakref.WeakSet[ErrorMonitor] = weakref.WeakSet()
_active: ErrorMonitor | None = None


def active() -> ErrorMonitor | None:
    """Return the monitor that watches this process, or None."""
    return _active


def _activate(monitor: ErrorMonitor) -> None:
    global _active  # noqa: PLW0603 - one per process is the promise
    if _active is not None:
        raise RuntimeError("another ErrorMonitor is active in this process: stop it first")
    _active = monitor


def _deactivate(monitor: ErrorMonitor) -> None:
    global _active  # noqa: PLW0603 - one per process is the promise
    if _active is monitor:
        _active = None


def _drain() -> tuple[Calls, ...]:
    calls: tuple[Calls, ...] = import_module("soulfra_monitor.cells").drain()
    return calls


def _is_child_of_multiprocessing() -> bool:
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _frozen(value: Any) -> Any:
    """Let people write lists and sets of names."""
    return frozenset(value) if isinstance(value, list | set | tuple) else value


def _log_as(level: str) -> Callable[[str, str], None]:
    """Return what logs for us: through logging if the program uses it, else as logging would, to stderr."""

    def say(severity: str, text: str) -> None:
        logging: Any = sys.modules.get("logging")
        if hasattr(logging, "getLogger"):
            logger = logging.getLogger("soulfra_monitor")
            logger.setLevel(level.upper())
            logger.log(getattr(logging, severity.upper()), "%s", text)
        elif LEVELS.index(severity) >= max(LEVELS.index(level), LEVELS.index("warning")) and sys.stderr:
            sys.stderr.write(f"{text}\n")

    return say


def _count_threads() -> int:
    """Return how many threads the system knows of, 0 where it does not say."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - pathlib is not loaded in every program
    except OSError:
        return 0


def _before_fork() -> None:
    _for_all(ErrorMonitor._before_fork)


def _after_fork_in_parent() -> None:
    _for_all(ErrorMonitor._after_fork_in_parent)


def _for_all(do: Callable[[ErrorMonitor], None]) -> None:
    """Do something at a fork. Whatever fails, the program forks."""
    busy, guard.busy = guard.busy, True
    for monitor in list(_monitors):
        monitor._try("fork", partial(do, monitor))
    guard.busy = busy


def _after_fork_in_child() -> None:
    _for_all(ErrorMonitor._after_fork)
    guard.busy = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
