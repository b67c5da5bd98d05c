"""The stage in the host's own thread: is it ours, was it told, is it worth a look; then into the queue.

What runs here runs in other people's requests: a few microseconds, no I/O, no waiting, nothing kept alive.
One intake is one life of one process; a forked child gets a new one.
"""

import os
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from queue import SimpleQueue
from threading import Lock
from types import FrameType
from typing import Any

from soulfra_monitor.admission import Admission, Entry
from soulfra_monitor.capture import (
    Fact,
    Link,
    Opinion,
    Sketch,
    facts_of,
    link_of_frame,
    links_of,
    plain,
    plain_facts,
    text_of,
)
from soulfra_monitor.events import Kind
from soulfra_monitor.fingerprint import quick
from soulfra_monitor.settings import Settings
from soulfra_monitor.shedding import Level

IGNORED = (KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration)
IGNORED_NAMES = frozenset({"CancelledError", "Cancelled", "GreenletExit"})
"""Ways to end something, not errors. By name: their modules need not be loaded."""

ENDS = {Kind.THREAD: 1, Kind.UNCAUGHT: 2}
"""What an exception has ended, by how much that is. Such an end is told though the exception was told before
as less: who logged it, or a library that raised it, did not know what would become of it."""

TOLD_LIMIT = 2048
"""Exceptions remembered as told. In a storm of more at once the second sight of one may count again."""

KEY_FACTS = ("peer", "path", "status", "errno", "method", "exit_code", "signal")
"""Facts that make errors of one place unlike."""

IN_FLIGHT = frozenset({Kind.HTTP, Kind.HTTP_STATUS, Kind.REDIS, Kind.DATABASE, Kind.FILE})
"""Told where a library raises them, so that who called is on the stack and not in the traceback."""

SWALLOWED, COUNTS = Kind.SWALLOWED, Level.COUNTS  # looked up once: members of enums are slow to get at

SAMPLED = 64
"""One in so many errors is timed, for what the library costs."""

_NO_DIGITS = {ord(digit): None for digit in "0123456789"}
_LIKENESS = 120


class Told:
    """Remembers exceptions that were told, without keeping them alive or leaving a mark on them.

    Many exceptions take no weak reference. Of those their ``__dict__`` is kept, which belongs to one
    exception alone and holds neither it nor its traceback: a new exception at the same address has another.
    """

    def __init__(self) -> None:
        self._marks: OrderedDict[int, Any] = OrderedDict()
        self._ends: dict[int, int] = {}  # of those marks: what was told as an end

    def is_new(self, error: BaseException) -> bool:
        """Whether this very object is seen for the first time. From now on it is known."""
        marks, place = self._marks, id(error)
        mark = marks.get(place)
        if mark is not None and _is_mark_of(mark, error):
            return False
        self._ends.pop(place, None)
        marks[place] = weakref.ref(error) if type(error).__weakrefoffset__ else error.__dict__
        marks.move_to_end(place)
        if len(marks) > TOLD_LIMIT:
            self._ends.pop(marks.popitem(last=False)[0], None)
        return True

    def end_of(self, error: BaseException) -> int:
        """Return as what end (``ENDS``) an exception was told; 0 for none."""
        end = self._ends.get(id(error), 0)
        return end if end and _is_mark_of(self._marks.get(id(error)), error) else 0

    def ended(self, error: BaseException, end: int) -> None:
        """Note as what end a known exception was told."""
        self._ends[id(error)] = end

    def forget(self) -> None:
        """Let go of what is gone, and of marks that something has been put into."""
        for place in list(self._marks):
            mark = self._marks.get(place)
            if (mark() is None) if type(mark) is weakref.ref else mark:
                self._marks.pop(place, None)
                self._ends.pop(place, None)


def _is_mark_of(mark: Any, error: BaseException) -> bool:
    return (mark() is error) if type(mark) is weakref.ref else mark is error.__dict__


class Intake:
    """Takes errors in. Its methods may raise: ``monitor`` is the edge to the host."""

    def __init__(self, settings: Settings, start: Callable[["Intake"], None]) -> None:
        self.settings = settings
        self.boot = os.urandom(16).hex()
        self.pid = os.getpid()
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.lock = Lock()
        self.admission = Admission(time.monotonic())
        self.level = Level.FULL
        self.alive = False  # whether a worker reads the queue
        self.closing = False  # the program is ending: nobody comes later to send
        self.seen = 0
        self.sent = 0
        self.repeated = 0  # exceptions seen again
        self.queued = 0  # sketches in the queue, and on the worker's desk
        self.queued_bytes = 0
        self.on_way = 0  # errors (with counts) that are admitted and in no parcel yet
        self.dropped: Counter[str] = Counter()  # by reason, since the process began
        self.untold: Counter[str] = Counter()  # of those, what no batch has told yet
        self.cost = 0.0  # seconds that host threads spent here since the worker last asked, estimated
        self._each = 0.0  # seconds for one error, estimated
        self.told = Told()
        self._start = start

    def raised(
        self,
        kind: Kind,
        error: BaseException,
        *,
        service: str | None,
        message: str | None,
        handled: bool,
        facts: Mapping[str, Fact] | None,
        context: Mapping[str, Any] | None,
        opinion: Opinion | None = None,
    ) -> None:
        end = ENDS.get(kind, 0)
        if (isinstance(error, IGNORED) or type(error).__name__ in IGNORED_NAMES) and not end:
            return
        if not self.told.is_new(error) and end <= self.told.end_of(error):
            self.repeated += 1
            return
        if kind is SWALLOWED and self.level:
            self._shed()
            return
        began = time.thread_time() if self.seen % SAMPLED == 1 else 0.0
        name = service or self.settings.service
        how = kind._value_
        at = context.get("at") if context else None
        key = (quick(how, error, error.__traceback__), name, at, *_likeness(error, facts))
        taken = self._admit(kind, key, (how, name, type(error)), must=kind is Kind.UNCAUGHT)
        if taken is not None:
            self._put(
                *taken,
                lambda count: self._sketch(
                    kind,
                    name,
                    count,
                    error,
                    message=message,
                    handled=handled,
                    facts=facts,
                    context=context,
                    opinion=opinion,
                ),
            )
        if end:
            self.told.ended(error, end)
        if began:
            self._each = 0.5 * self._each + 0.5 * (time.thread_time() - began)
        self.cost += self._each

    def noted(
        self,
        kind: Kind,
        message: str,
        *,
        service: str | None,
        frame: FrameType | None,
        facts: Mapping[str, Fact] | None,
        context: Mapping[str, Any] | None,
        opinion: Opinion | None = None,
    ) -> None:
        name = service or self.settings.service
        code = frame.f_code if frame is not None else None
        place = (code.co_filename, code.co_name) if code else _like(message)
        how = kind._value_
        taken = self._admit(kind, (how, name, place, *_key_facts(facts)), (how, name))
        if taken is not None:
            links = link_of_frame(frame) if frame is not None else ()
            self._put(
                *taken,
                lambda count: Sketch(
                    at=time.time(),
                    kind=kind,
                    service=name,
                    message=text_of(message),
                    links=links,
                    handled=True,
                    count=count,
                    facts=plain_facts(facts or {}),
                    context=plain(context or {}),
                    opinion=opinion or Opinion(),
                ),
            )
        self.cost += self._each

    def wake(self) -> None:
        """See that a worker is there."""
        if not self.alive:
            self._start(self)

    def drop(self, reason: str, count: int) -> None:
        """Count errors that will not be told. Under the lock."""
        if count:
            self.dropped[reason] += count
            self.untold[reason] += count

    def _admit(
        self, kind: Kind, key: Hashable, others: Hashable, *, must: bool = False
    ) -> tuple[Entry, int] | None:
        """Count one error; return its entry and how many to tell if it is to be told now.

        One that *must* be told is not dropped for want of room: there are few of them.
        """
        now = time.monotonic()
        with self.lock:
            self.seen += 1
            if self.level == COUNTS and self.admission.count(key, others, now):
                return None
            entry, count = self.admission.admit(key, others, now, swallowed=kind is SWALLOWED)
            if count:
                if not must and not self._has_room():
                    self.drop("queue", count)
                    count = 0
                else:
                    entry.waiting += 1
                    self.queued += 1
                    self.on_way += count
        if not self.alive:
            self._start(self)
        return (entry, count) if count else None

    def _shed(self) -> None:
        """Only count an error, at the least cost."""
        with self.lock:
            self.seen += 1
            self.drop("shed", 1)
        if not self.alive:
            self._start(self)

    def _has_room(self) -> bool:
        return self.queued < self.settings.queue_events and self.queued_bytes < self.settings.queue_bytes

    def _put(self, entry: Entry, count: int, sketch: Callable[[int], Sketch]) -> None:
        """Queue a sketch. If it cannot be taken its errors count as dropped, and whoever called hears why."""
        try:
            taken = sketch(count)
        except BaseException:
            with self.lock:
                self.settle(entry, 0)
                self.on_way -= count
                self.drop("capture", count)
            raise
        with self.lock:
            self.queued_bytes += taken.size
        self.queue.put((entry, taken))

    def settle(self, entry: Entry, size: int) -> None:
        """Take a sketch off the queue's books. Under the lock."""
        entry.waiting -= 1
        self.queued -= 1
        self.queued_bytes -= size

    def _sketch(
        self,
        kind: Kind,
        service: str,
        count: int,
        error: BaseException,
        *,
        message: str | None,
        handled: bool,
        facts: Mapping[str, Fact] | None,
        context: Mapping[str, Any] | None,
        opinion: Opinion | None,
    ) -> Sketch:
        cheap = self.level >= Level.CHEAP
        links: tuple[Link, ...] = links_of(error, cheap=cheap, in_flight=kind in IN_FLIGHT)
        return Sketch(
            at=time.time(),
            kind=kind,
            service=service,
            message=text_of(message) if message else "",
            links=links,
            handled=handled,
            count=count,
            facts=facts_of(error, facts),
            context={} if cheap or not context else plain(context),
            opinion=opinion or Opinion(),
        )


def _likeness(error: BaseException, facts: Mapping[str, Fact] | None) -> tuple[object, ...]:
    """Return what tells an error from others of its place."""
    found = _key_facts(facts)
    if isinstance(error, OSError):
        found = (*found, _scalar(error.errno), _scalar(error.filename))
    if error.__traceback__ is None and error.args and type(error.args[0]) is str:
        found = (*found, _like(error.args[0]))
    return found


def _key_facts(facts: Mapping[str, Fact] | None) -> tuple[object, ...]:
    return tuple(_scalar(facts.get(name)) for name in KEY_FACTS) if facts else ()


def _scalar(value: object) -> object:
    """Return what can be part of a key."""
    return value if value is None or type(value) in (str, int, float, bytes) else text_of(value)


def _like(message: str) -> str:
    """Return what a message has in common with alike ones, roughly and quickly."""
    return message[:_LIKENESS].translate(_NO_DIGITS)
