"""Counts of watched calls: kept per thread without locks, exact, and taken as deltas.

Each thread writes only its own cells, whose numbers only grow; ``drain`` remembers what it has seen of each.
So nothing is ever lost or counted twice, and the thread that counts never waits. The number of calls is not
kept: it is the sum of the buckets, so that the two cannot differ.
"""

import os
import sys
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Any

from soulfra_monitor.events import BOUNDS, Calls
from soulfra_monitor.hooks import Reporter

Failed = Callable[[Any], bool | str]
"""Says of what a method returned whether it means failure, and in the best case why."""

BODIES_LIMIT = 1000
"""``with`` blocks of a thread whose begin is remembered: objects entered and never left must not pile up."""


class Method:
    """What is known of one watched method. Compared by identity: it is a key on the hot path."""

    __slots__ = ("expected", "failed", "name", "quick", "reporter", "service", "slow", "timeout")

    def __init__(
        self,
        service: str,
        name: str,
        reporter: Reporter,
        *,
        slow: float | None = None,  # seconds; a longer call is reported
        timeout: float | None = None,  # seconds; a longer call is one for the watchdog
        failed: Failed | None = None,
        expected: tuple[type[BaseException], ...] = (),  # exceptions that are answers
    ) -> None:
        self.service = service
        self.name = name
        self.reporter = reporter
        self.slow = slow
        self.timeout = timeout
        self.failed = failed
        self.expected = expected
        self.quick = BOUNDS[0] if slow is None else min(BOUNDS[0], slow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Underway:
    """One watched call that has not come back."""

    service: str
    method: str
    caller: str  # the service that called, "" where nobody knows
    thread: int  # the identifier of the thread it began on
    started: float  # time.perf_counter()
    timeout: float | None  # as declared, in seconds
    key: int  # the same for the same call while it lasts
    task: bool  # an asynchronous call: its thread may be doing something else


class Cell:
    """Calls of one method by one caller on one thread. Written by that thread only."""

    __slots__ = (
        *("caller", "failures", "inside", "method", "outer", "quick", "rest", "seconds", "seen", "started"),
        "state",
    )

    def __init__(self, state: "State", method: Method, caller: str) -> None:
        self.state = state
        self.method = method
        self.caller = caller
        self.inside = state.called_by(method.service)
        self.outer: Cell | None = None  # of a call under way, the cell of the call around it
        self.started = -1.0  # of the call under way, and of several the first
        self.quick = 0  # calls of the first bucket, the usual case
        self.rest = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.failures = 0
        self.seen = Tally()

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.rest[bisect_left(BOUNDS, seconds)] += 1

    def tally(self) -> "Tally":
        """Return all that was ever counted here.

        A call writes its seconds, then its bucket, then its failure. Read the other way round, there is
        never a failure without its call, nor a call without its seconds, whenever the writer is interrupted.
        """
        failures = self.failures
        rest = self.rest.copy()
        rest[0] += self.quick
        return Tally(rest, self.seconds, failures)


@dataclass(slots=True)
class Tally:
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0
    failures: int = 0

    def minus(self, other: "Tally") -> "Tally":
        buckets = [mine - theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        return Tally(buckets, self.seconds - other.seconds, self.failures - other.failures)

    def add(self, other: "Tally") -> None:
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds
        self.failures += other.failures


Place = dict[Method, Cell]
"""Cells of one thread by method, for one caller."""


class State:
    """What one thread knows: its cells, and the watched calls under way on it."""

    __slots__ = ("bodies", "call", "cells", "ident", "key", "places")

    def __init__(self, key: int) -> None:
        self.key = key
        self.ident = threading.get_ident()
        self.cells: list[Cell] = []
        self.places: dict[str, Place] = {}
        self.bodies: dict[int, list[float]] = {}
        self.call = Cell(self, _OUTSIDE, "")  # the innermost call under way

    def called_by(self, service: str) -> Place:
        """Return the cells of what *service* calls on this thread."""
        return self.places.setdefault(service, {})

    def cell(self, caller: str, method: Method) -> Cell:
        """Return the cell of calls of *method* by *caller*."""
        place = self.called_by(caller)
        return place.get(method) or self.open(place, method)

    def open(self, place: Place, method: Method) -> Cell:
        """Add a cell to *place*, which is one of this thread's."""
        caller = next(name for name, known in self.places.items() if known is place)
        cell = place[method] = Cell(self, method, caller)
        self.cells.append(cell)
        return cell

    def enter(self, what: int, started: float) -> None:
        """Remember when a ``with`` block of the object *what* began."""
        if len(self.bodies) >= BODIES_LIMIT:
            self.bodies.clear()
        self.bodies.setdefault(what, []).append(started)

    def leave(self, what: int, otherwise: float) -> float:
        """Return when the innermost ``with`` block of the object *what* began, if it began on this thread."""
        begun = self.bodies.get(what)
        if not begun:
            return otherwise
        started = begun.pop()
        if not begun:
            del self.bodies[what]
        return started


class _Nobody:
    """Stands where a reporter would, for what lies outside of watched calls."""


_OUTSIDE = Method("", "", _Nobody())  # type: ignore[arg-type]  # nothing is ever reported of it


class _Farewell:
    """Lives in the thread's own storage and thus ends with the thread."""

    __slots__ = ("state",)

    def __init__(self, state: State) -> None:
        self.state = state

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not finalizing():  # then the names of this module may be gone
            _ended.append(self.state)
            _fold()


_keys = count()
_live: dict[int, State] = {}
_ended: deque[State] = deque()
_totals: dict[tuple[str, str, str], Tally] = {}  # what was left by threads that have ended, under _lock
_lock = threading.Lock()

here = threading.local()
"""Holds the thread's state as ``state``, from its first watched call on. (A subclass would be slower.)"""

task: ContextVar[tuple[Any, float] | None] = ContextVar("soulfra_call", default=None)
"""The asynchronous watched call around: its cell and its start. Without the ones around it: tasks that start
tasks for ever would keep all of them."""
flights: dict[int, tuple[Any, float]] = {}
"""Asynchronous calls under way, by the identity of what is kept of them."""


def arrive() -> State:
    """Return the state of this thread; make it at its first watched call."""
    state: State | None = getattr(here, "state", None)
    if state is None:
        key = next(_keys)
        state = here.state = _live[key] = State(key)
        here.farewell = _Farewell(state)
    return state


def drain() -> tuple[Calls, ...]:
    """Return what has come since the last time, over all threads. Safe while others count."""
    with _lock:
        _fold_ended()
        for state in list(_live.values()):
            _collect(state)
        taken = dict(_totals)
        _totals.clear()
    return tuple(_as_calls(key, tally) for key, tally in taken.items())


def in_flight() -> tuple[Underway, ...]:
    """Return the calls under way in all threads and tasks; of one thread the outer ones come first.

    Of calls of the same method by the same caller on one thread (recursion) it is the outermost.
    """
    on_threads = [cell for state in list(_live.values()) for cell in reversed(_chain(state))]
    return (
        *(_underway(cell, cell.started, id(cell), task=False) for cell in on_threads),
        *(_underway(cell, started, key, task=True) for key, (cell, started) in list(flights.items())),
    )


def now() -> float:
    """Return the clock by which ``Underway.started`` is told."""
    return perf_counter()


def _chain(state: State) -> list[Cell]:
    """Return the cells of the calls under way on a thread. It goes on meanwhile: they may be a moment old."""
    chain: list[Cell] = []
    cell: Cell | None = state.call
    while cell is not None and cell.method is not _OUTSIDE and cell not in chain:
        chain.append(cell)
        cell = cell.outer
    return chain


def _underway(cell: Cell, started: float, key: int, *, task: bool) -> Underway:
    method = cell.method
    return Underway(
        service=method.service,
        method=method.name,
        caller=cell.caller,
        thread=cell.state.ident,
        started=started,
        timeout=method.timeout,
        key=hash((key, started)),
        task=task,
    )


def _fold() -> None:
    """Take over from ended threads, unless somebody is at it. Runs in dying threads: it must not wait."""
    if _lock.acquire(blocking=False):
        try:
            _fold_ended()
        finally:
            _lock.release()


def _fold_ended() -> None:
    while _ended:
        state = _ended.popleft()
        _collect(state)
        _live.pop(state.key, None)


def _collect(state: State) -> None:
    for cell in tuple(state.cells):
        tally = cell.tally()
        delta = tally.minus(cell.seen)
        if any(delta.buckets) or delta.failures:  # else there may be seconds whose call is just being written
            cell.seen = tally
            key = (cell.method.service, cell.method.name, cell.caller)
            _totals.setdefault(key, Tally()).add(delta)


def _as_calls(key: tuple[str, str, str], tally: Tally) -> Calls:
    service, method, caller = key
    return Calls(
        service=service,
        method=method,
        caller=caller,
        count=sum(tally.buckets),
        failures=tally.failures,
        seconds=tally.seconds,
        buckets=tuple(tally.buckets),
    )


def _after_fork() -> None:
    """Leave in the child what the parent has counted: the parent tells it. Its other threads are not here."""
    global _lock  # noqa: PLW0603 - whoever held it is not here to release it
    _lock = threading.Lock()
    mine = threading.get_ident()
    _ended.clear()
    _totals.clear()
    for state in list(_live.values()):
        if state.ident != mine:
            del _live[state.key]
        for cell in state.cells:
            cell.seen = cell.tally()
    for key, (cell, _) in list(flights.items()):
        if cell.state.ident != mine:
            del flights[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
