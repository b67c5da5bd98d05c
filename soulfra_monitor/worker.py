"""The library's one thread: makes events of sketches, puts them into batches, and has them sent.

Whoever runs ``turn`` is the worker for that time: the thread, or at the end of the program who ends it. What
two must not do at once happens under ``desk``; no request is made and nothing waits under it.
"""

import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty
from threading import Event as Signal
from threading import Lock
from typing import Any, TypeVar

from soulfra_monitor import __version__
from soulfra_monitor.admission import Entry, Told
from soulfra_monitor.capture import Painter, Sketch
from soulfra_monitor.dispatch import Beat, Counts, Dispatch, Shipment
from soulfra_monitor.events import Batch, Calls, Declared, Event
from soulfra_monitor.events import Sender as Origin
from soulfra_monitor.guard import guard
from soulfra_monitor.intake import Intake
from soulfra_monitor.loading import load
from soulfra_monitor.redaction import FAILURES, redact_event
from soulfra_monitor.sender import GZIP_FROM, Answer, NoAnswerError, Sender
from soulfra_monitor.shedding import Level, Shedding
from soulfra_monitor.spool import Parcel, Spool
from soulfra_monitor.system import SystemState
from soulfra_monitor.wire import write_batch

NAME = f"soulfra-python/{__version__}"
BATCH_EVENTS = 100
BATCH_BYTES = 500_000
"""What one batch may hold, about."""

LINGER = 0.02
LINGER_AWAY = 0.5
"""Seconds in which what comes together may travel together; longer while nobody takes it."""

IDLE = 5.0
"""Seconds after which a thread with nothing to do ends. The next error starts another."""

PAUSE_AFTER_FAILURE = 1.0
Counted = TypeVar("Counted", Calls, Declared)
_GZIP = 31  # zlib's number for gzip's format


@dataclass(slots=True)
class Flush:
    """Asks that all there is be sent now, or spooled."""

    done: Signal
    last: bool = False  # the program ends: the connection is to be closed
    stop: bool = False  # the monitor stops: the thread is to end
    complete: bool = False  # the answer: all was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the worker asks for counts."""

    calls: Callable[[], tuple[Calls, ...]]
    declared: Callable[[], tuple[Declared, ...]]
    wanted: Callable[[], bool]  # whether counts may come without an error, so that the thread must stay


class Worker:
    """Everything behind the queue."""

    def __init__(
        self, intake: Intake, source: Source, say: Callable[[str, str], None], broke: Callable[..., None]
    ) -> None:
        settings = intake.settings
        now = time.monotonic()
        self.desk = Lock()
        self.shedding = Shedding(settings.overhead_limit / 100.0, now)
        self.sender = Sender(settings.url, settings.token, settings.timeout, NAME)
        self.spool = Spool(
            settings.spool,
            settings.service,
            limit=settings.spool_bytes,
            age=settings.spool_age,
            broke=broke,
        )
        self.dispatch = Dispatch(intake, self.sender, self.spool, self._note, Counts())
        self._intake = intake
        self._source = source
        self._say = say
        self._broke = broke
        self._painter = Painter(release=settings.release, in_app=settings.in_app)
        self._system = SystemState(broke)
        self._unredacted = FAILURES.total()  # texts that could not be redacted, and so are hidden
        self._origin = Origin(
            boot=intake.boot, service=settings.service, name=NAME, host=_host(), pid=intake.pid
        )
        self._seq = 0
        self._notes: list[tuple[str, str]] = []
        self._inbox: list[Any] = []
        self._events: list[Event] = []
        self._size = 0  # of the events, about
        self._flushes: list[Flush] = []
        self._retiring: Signal | None = None
        self._hurry = Signal()  # somebody waits
        self.is_posting = False
        self._counts_due = False
        self._tick_at = now + settings.interval
        self._busy_at = now

    def run(self) -> None:
        """Work as a thread, until there has been nothing to do for a while."""
        guard.busy = True
        self._busy_at = time.monotonic()
        going, ready = True, False
        while going:
            try:
                if not ready:
                    ready = True
                    self._begin()
                self._wait(self._pause())
                self.turn()
            except Exception as error:  # noqa: BLE001 - the edge of the thread: told, and the thread goes on
                self._broke("worker", error)
                time.sleep(PAUSE_AFTER_FAILURE)
            going = not self._may_end()
        retiring, self._retiring = self._retiring, None
        if retiring is not None:
            retiring.set()
        else:
            self.sender.close()

    def _begin(self) -> None:
        load(secure=self._intake.settings.url.startswith("https:"))
        with self.desk:
            self.dispatch.adopt()

    def turn(self) -> None:
        """Do what there is to do now, and send one thing."""
        began = time.thread_time()
        with self.desk:
            now = time.monotonic()
            self._receive()
            if now >= self._tick_at:
                self._tick(now)
            self._pack()
            shipment = self._next_shipment(now)
        if shipment is not None:
            answer = self._post(shipment)
            with self.desk:
                final = self.dispatch.settle(shipment, answer)
            self._answer_flushes(go_on=final)
        else:
            self._answer_flushes(go_on=False)
        self._spend(time.thread_time() - began)
        self._log()

    def _post(self, shipment: Shipment) -> Answer | NoAnswerError:
        self.is_posting = True
        try:
            return self.dispatch.post(shipment)
        finally:
            self.is_posting = False

    def put_by(self) -> None:
        """Make parcels of all there is and spool them: there is no time left to send."""
        with self.desk:
            while not self._intake.queue.empty():
                self._inbox.append(self._intake.queue.get_nowait())
                self._receive()
                self._pack()
            self._receive()
            self._tick(time.monotonic())
            self._pack()
            self.dispatch.put_by()
        self._answer_flushes(go_on=False)

    def retire(self, seconds: float) -> bool:
        """Ask the thread to end when it has done its turn; wait at most that long. True when it has."""
        done = self._retiring = Signal()
        self.ask(None)
        return done.wait(seconds)

    def ask(self, item: Flush | None) -> None:
        """Put something into the queue for which somebody waits."""
        self._hurry.set()
        self._intake.queue.put(item)

    def resume(self) -> None:
        """Take back the wish that the thread may end."""
        self._retiring = None

    def leave(self, *, stop: bool) -> None:
        """Leave the spool to whoever comes next."""
        with self.desk:
            self.spool.leave(self._intake.boot)
            if stop:
                self.dispatch.release()

    def close(self) -> None:
        """Let go of connection and folders in a forked child, which the parent goes on using."""
        self.sender.close()
        self.dispatch.release()
        self.spool.close()

    # what comes in

    def _wait(self, pause: float) -> None:
        """Wait for something to come in, and a little longer for what comes with it."""
        try:
            self._inbox.append(self._intake.queue.get(timeout=pause))
        except Empty:
            return
        self._hurry.wait(LINGER if self.dispatch.connected else LINGER_AWAY)
        self._hurry.clear()

    def _receive(self) -> None:
        """Take what has come in, up to a batch."""
        queue = self._intake.queue
        while True:
            while self._inbox:
                self._take(self._inbox.pop(0))
            if len(self._events) >= BATCH_EVENTS or self._size >= BATCH_BYTES:
                return
            try:
                self._inbox.append(queue.get_nowait())
            except Empty:
                return
            self._busy_at = time.monotonic()

    def _take(self, item: Any) -> None:
        if isinstance(item, tuple):
            self._paint(*item)
        elif isinstance(item, Beat):
            self.dispatch.beat(item)
        elif isinstance(item, Complaint):
            self._note(item.level, item.text)
        else:  # somebody waits: what was only counted comes out now
            self._tick_at = 0.0
            if isinstance(item, Flush):
                self._flushes.append(item)

    def _paint(self, entry: Entry, sketch: Sketch) -> None:
        """Make an event of a sketch, without secrets. What cannot be redacted is dropped."""
        cheap = self._intake.level >= Level.CHEAP
        event = None
        try:
            event = redact_event(
                self._painter.paint(sketch, ident=_ident(), system={} if cheap else self._system.read())
            )
        except Exception as error:  # noqa: BLE001 - one event is lost, counted and told
            self._broke("capture", error)
        self._look_at_redaction()
        size = sketch.size
        with self._intake.lock:
            self._intake.settle(entry, size)
            if event is None:
                self._intake.on_way -= sketch.count
                self._intake.drop("capture", sketch.count)
                return
            entry.event = event
        self._events.append(event)
        self._size += size

    def _look_at_redaction(self) -> None:
        """Tell of texts that could not be redacted: in their place the event says only that there was one."""
        hidden = FAILURES.total()
        if hidden != self._unredacted:
            self._unredacted = hidden
            self._broke("redaction", RuntimeError(f"a text is hidden: {', '.join(FAILURES)}"))

    # what happens from time to time

    def _tick(self, now: float) -> None:
        """Bring out what was only counted."""
        self._tick_at = now + self._intake.settings.interval
        self._counts_due = True
        with self._intake.lock:
            for told in self._intake.admission.sweep(now):
                self._tell(told, now)
            self._intake.drop("usual", self._intake.admission.usual)
            self._intake.admission.usual = 0
            self._intake.told.forget()
        self.dispatch.adopt()

    def _tell(self, told: Told, now: float) -> None:
        if told.event is None:
            self._intake.drop("queue", told.count)
            return
        at = time.time() - max(0.0, now - told.last)
        self._intake.on_way += told.count
        self._events.append(replace(told.event, id=_ident(), at=at, count=told.count))

    def _spend(self, seconds: float) -> None:
        """Count what the library cost, and do less or more accordingly."""
        cost, self._intake.cost = self._intake.cost, 0.0
        self.shedding.spend(seconds + cost)
        level = self.shedding.judge(time.monotonic())
        if level != self._intake.level:
            self._note("warning" if level > self._intake.level else "info", _what_is_shed(level))
            self._intake.level = level
            self._counts_due = True

    def _note(self, level: str, text: str) -> None:
        """Keep a line for the log: a handler may block, and nothing of ours must be locked then."""
        self._notes.append((level, text))

    def _log(self) -> None:
        while self._notes:
            self._say(*self._notes.pop(0))

    # what goes out

    def _pack(self) -> None:
        """Make a parcel of the events there are, and of counts when they are due and would arrive."""
        with_counts = self._counts_due and self.dispatch.takes_fresh
        calls = self._ask(self._source.calls) if with_counts else ()
        declared = self._ask(self._source.declared) if with_counts else ()
        with self._intake.lock:
            dropped = dict(self._intake.untold) if with_counts or self._events else {}
            if not (self._events or calls or declared or dropped):
                self._counts_due = self._counts_due and not with_counts
                return
            self._intake.untold.clear()
        events, self._events, self._size = tuple(self._events), [], 0
        self._counts_due = self._counts_due and not with_counts
        self._seq += 1
        batch = Batch(
            sender=self._origin,
            seq=self._seq,
            events=events,
            calls=calls,
            declared=declared,
            dropped=dropped,
            shedding=self._intake.level > Level.FULL,
        )
        weight = sum(event.count for event in events)
        try:
            self.dispatch.offer(_parcel(batch, weight))
        except Exception as error:  # noqa: BLE001 - a batch is lost, counted and told
            self._broke("batch", error)
            with self._intake.lock:
                self._intake.drop("batch", weight)
                self._intake.untold.update(dropped)
        with self._intake.lock:
            self._intake.on_way -= weight

    def _ask(self, source: Callable[[], tuple[Counted, ...]]) -> tuple[Counted, ...]:
        """Ask for counts. What cannot count must not keep errors from being told."""
        try:
            return source()
        except Exception as error:  # noqa: BLE001 - told; the next batch asks again
            self._broke("counts", error)
            return ()

    def _next_shipment(self, now: float) -> Shipment | None:
        if now < self.dispatch.retry_at and not self._flushes:
            return None
        return self.dispatch.next()

    def _answer_flushes(self, *, go_on: bool) -> None:
        """Tell who waits, once all of ours is out or somebody does not take it."""
        with self._intake.lock:
            rest = self._events or not self._intake.queue.empty() or self.dispatch.has_own
        if not self._flushes or (go_on and rest):
            return
        flushes, self._flushes = self._flushes, []
        if any(flush.last for flush in flushes):
            self.sender.close()
        if any(flush.stop for flush in flushes):
            self._busy_at = float("-inf")
        for flush in flushes:
            flush.complete = not rest
            flush.done.set()

    # the thread's life

    def _pause(self) -> float:
        """Return for how long there is nothing to do unless something comes in."""
        now = time.monotonic()
        if self._flushes or self._inbox or self._events:
            return 0.0
        pauses = [self._tick_at - now]
        if self.dispatch.has_any:
            pauses.append(self.dispatch.retry_at - now)
        with self._intake.lock:
            if not self._is_kept():
                pauses.append(self._busy_at + IDLE - now)
        return max(0.0, min(pauses))

    def _is_kept(self) -> bool:
        """Whether something will have to be done though nothing comes in. Under the intake's lock."""
        if self._intake.admission.pending or self._intake.untold or self._intake.level:
            return True
        return self.dispatch.has_any or self._source.wanted()

    def _may_end(self) -> bool:
        """Whether the thread may end; if so another is started by what comes in next."""
        if self._retiring is not None:
            with self._intake.lock:
                self._intake.alive = False
            return True
        if time.monotonic() - self._busy_at < IDLE:
            return False
        stopped = self._busy_at == float("-inf")
        with self._intake.lock:
            waits = self._inbox or self._events or not self._intake.queue.empty() or self._intake.queued
            if waits or (not stopped and self._is_kept()):
                return False
            self._intake.alive = False
            return True


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something of our own to be logged, away from the host's threads."""

    level: str
    text: str


def _parcel(batch: Batch, weight: int) -> Parcel:
    body = json.dumps(write_batch(batch), separators=(",", ":")).encode()
    packed = len(body) > GZIP_FROM
    if packed:
        squeeze = zlib.compressobj(level=3, wbits=_GZIP)
        body = squeeze.compress(body) + squeeze.flush()
    return Parcel(
        boot=batch.sender.boot,
        seq=batch.seq,
        body=body,
        packed=packed,
        weight=weight,
        dropped=batch.dropped,
    )


def _ident() -> str:
    return os.urandom(16).hex()


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


def _what_is_shed(level: Level) -> str:
    texts = {
        Level.FULL: "the library is below its limit of overhead again and does all it can",
        Level.NO_SWALLOWED: "to stay below the limit of overhead, swallowed errors are only counted",
        Level.CHEAP: "to stay below the limit of overhead, errors are told without causes and context",
        Level.COUNTS: "to stay below the limit of overhead, known errors are only counted",
    }
    return texts[level]
