"""``ErrorMonitor``: what a program uses of the library.

    from soulfra_monitor import ErrorMonitor

    monitor = ErrorMonitor(service="trust-engine").start()
    engine = monitor.add_service("trust-engine", engine)

Nothing here raises into the program but SettingsError and mistakes in declarations, and nothing waits but
``flush`` and ``stop``, for as long as they are told.
"""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from soulfra_monitor.capture import FACTS, Fact, Opinion, text_of
from soulfra_monitor.declared import Counter, Declarations, Gauge
from soulfra_monitor.events import Calls, Declared, Kind
from soulfra_monitor.guard import guard
from soulfra_monitor.heartbeats import Heartbeat
from soulfra_monitor.intake import ENDS, Intake
from soulfra_monitor.life import Life, Stats
from soulfra_monitor.loading import pythons_own
from soulfra_monitor.settings import SettingsError, check_service, read
from soulfra_monitor.worker import Source

if TYPE_CHECKING:
    from soulfra_monitor.collector import Collector
    from soulfra_monitor.hooks import Undo

Service = TypeVar("Service")
P = ParamSpec("P")


class ErrorMonitor:
    """Watches this process and tells the remediator. One is active in a process at a time."""

    shared: bool  # whether it is every monitor that the program makes, see ``share``

    def __init__(
        self, service: str | None = None, url: str | None = None, token: str | None = None, **settings: Any
    ) -> None:
        """Take settings by keyword or from the environment (docs/library.md). Raises SettingsError.

        In a program that runs under ``python -m soulfra_monitor`` this is the monitor that is there already.
        """
        given = read({"service": service, "url": url, "token": token, **settings})
        if _active is not None and _active.shared:
            self.__dict__ = _active.__dict__  # one state: what is said to either is said to both
            return
        self.settings = given
        self.shared = False
        self._undo: dict[str, Undo] = {}
        self._watched: list[weakref.ref[Any]] = []
        self._watches = False
        self._collector: Collector | None = None
        source = Source(calls=self._calls, declared=self._declared, wanted=self._has_counts)
        self._life = Life(self.settings, source, self._after_fork)
        self._declarations = Declarations(self._life.wake)

    # life

    def start(self) -> Self:
        """Install the hooks and begin. Twice does nothing. Returns self.

        Raises RuntimeError when another monitor is active in this process.
        """
        if not self.settings.enabled or self._life.running:
            return self
        _activate(self)
        self._life.begin()
        self._install()
        self._life.wake_if_left_something()
        return self

    def stop(self) -> None:
        """Undo all that was changed, send what there is within the time for exit, spool the rest.

        ``start`` begins a new life, which sends what this one spooled. One that is shared goes on; it sends.
        """
        if not self._life.running:
            return
        if self.shared:
            self.flush(self.settings.exit_timeout)
            return
        for name, undo in reversed(self._undo.items()):
            self._life.attempt(f"hook:{name}", undo)
        self._undo.clear()
        for watched in self._watched:
            obj = watched()
            if obj is not None:
                self._life.attempt("unwatch", partial(self.remove_service, obj))
        self._watched.clear()
        self._life.end()
        self._watches = False
        _deactivate(self)

    def share(self) -> Self:
        """Be every ErrorMonitor that this program makes from now on, and outlive their ``stop``."""
        self.shared = True
        return self

    def step_aside(self) -> None:
        """Send what there is, and spool the rest: another program is about to take this process."""
        self._life.step_aside()

    def when_left(self, do: Callable[[], object]) -> None:
        """Have *do* called when errors stay in the spool that this process has no means to send any more."""
        self._life.left = do

    def flush(self, timeout: float = 2.0) -> bool:
        """Send what there is; wait at most *timeout* seconds. True when the remediator has taken it all."""
        return self._life.flush(timeout)

    def send_left(self, timeout: float) -> None:
        """Wait, at most *timeout* seconds, until something is sent that dead processes left, if they did."""
        self._life.send_left(timeout)

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
    ) -> Counter:
        """Declare what only grows. Twice gives the same object. Raises as ``gauge`` does."""
        place = service or self.settings.service
        return self._declarations.counter(
            Declared(service=place, name=name, value=0.0, counter=True, help=help)
        )

    def heartbeat(self, name: str) -> Heartbeat:
        """Return the heartbeat of a job or loop: a context manager, or ``beat()`` after each round."""
        return Heartbeat(name, self._life.beat)

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
        self._life.wake()
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
        self._take(
            Intake.raised,
            kind,
            error,
            service=service,
            message=message,
            handled=handled,
            facts=facts,
            context=context,
            opinion=opinion,
        )

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
        self._take(
            Intake.noted,
            kind,
            message,
            service=service,
            frame=frame,
            facts=facts,
            context=context,
            opinion=opinion,
        )

    def broke(self, place: str, error: BaseException) -> None:
        """Count a failure of our own, and have it logged once a minute per place."""
        self._life.broke(place, error)

    def has_told_end(self, error: BaseException) -> bool:
        """Whether *error* was taken as what ended the program: nobody else needs to tell that it died."""
        return self._life.intake.told.end_of(error) == ENDS[Kind.UNCAUGHT]

    # what is to be seen of us

    def stats(self) -> Stats:
        """Return what became of all errors, and how the library itself fares."""
        return self._life.stats()

    # inside

    def _take(
        self, take: Callable[Concatenate[Intake, P], None], *given: P.args, **details: P.kwargs
    ) -> None:
        """Hand something to the intake, unless we are at work ourselves; what fails there stays there."""
        if guard.busy or not self._life.running:
            return
        guard.busy = True
        try:
            take(self._life.intake, *given, **details)
        except Exception as failure:  # noqa: BLE001 - the edge to the program: counted and logged
            self._life.broke("intake", failure)
        finally:
            guard.busy = False
        if self._life.intake.closing:
            self._life.leave()

    def _after_fork(self) -> None:
        self._declarations.after_fork()
        if self._watches:
            self._life.wake()

    def _install(self) -> None:
        """Install every hook of the table that is not switched off. One that fails leaves the others."""
        with pythons_own():
            self._install_all()

    def _install_all(self) -> None:
        try:
            hooks: Mapping[str, str] = import_module("soulfra_monitor.hooks.table").HOOKS
        except Exception as error:  # noqa: BLE001 - the program goes on without hooks; it is told
            self.broke("hooks", error)
            return
        for name in self.settings.without - hooks.keys():
            self.broke("hooks", SettingsError(f"without: {name} is no hook; there are {', '.join(hooks)}"))
        for name, place in hooks.items():
            if name not in self.settings.without:
                self._life.attempt(f"hook:{name}", partial(self._install_one, name, place))

    def _install_one(self, name: str, place: str) -> None:
        module, _, function = place.partition(":")
        self._undo[name] = getattr(import_module(module), function)(self)

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


_SAID = frozenset({"service", "message", "severity", "problem", "fingerprint"})
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


def _frozen(value: Any) -> Any:
    """Let people write lists and sets of names."""
    return frozenset(value) if isinstance(value, list | set | tuple) else value
