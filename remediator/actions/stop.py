"""Ends the process of a service: gracefully first, only the one that was seen, and its descendants."""

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from remediator.actions import ActionError
from remediator.actions.spawn import CHILDREN

START_TOLERANCE = 1.5
"""Seconds by which two readings of one start time may differ: the kernel's boot time is rounded."""

SHORT_GRACE = 1.0
"""For a process that is stopped or answers nothing; it would not use the time."""

KILL_WAIT = 5.0
"""How long a killed process may take to go; it is the kernel that works then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process as somebody saw it a moment ago."""

    pid: int
    start_time: float
    unresponsive: bool = False

    @classmethod
    def of(cls, facts: Mapping[str, Any] | None) -> "Seen | None":
        """Read what the exporter says of a process; None when it says that there is none.

        Raises ActionError when it names a process without its start time: a pid alone may be anybody's.
        """
        if not facts or not facts.get("pid") or facts.get("status") == "gone":
            return None
        start_time = facts.get("start_time")
        if not isinstance(start_time, int | float):
            raise ActionError(
                f"the start time of process {facts['pid']} is not known, so that it is left alone"
            )
        return cls(
            pid=int(facts["pid"]), start_time=float(start_time), unresponsive=bool(facts.get("unresponsive"))
        )


class Ended:
    """The processes that we ended, so that their deaths are known for our own. Thread-safe; bounded."""

    def __init__(self, limit: int = 1000) -> None:
        self._lock = threading.Lock()
        self._ended: deque[tuple[str, int, float, float]] = deque(maxlen=limit)

    def add(self, name: str, processes: Iterable[psutil.Process], at: float) -> None:
        """Remember processes of a service that were ended at *at*."""
        with self._lock:
            self._ended.extend((name, process.pid, process.create_time(), at) for process in processes)

    def when(self, name: str, pid: int, alive_at: float) -> float | None:
        """Return when we ended the process that had the pid when it was alive; None when we did not."""
        with self._lock:
            return next(
                (
                    at
                    for whose, number, began, at in self._ended
                    if (whose, number) == (name, pid) and began - START_TOLERANCE <= alive_at <= at
                ),
                None,
            )


ENDED = Ended()


def stop(name: str, seen: Seen, grace: float, timeout: float) -> str:
    """End the process and whatever it started; return one line about it.

    A process that is gone already, or whose pid belongs to another one now, is left alone. Raises
    ActionError when it must not or cannot be ended.
    """
    deadline = time.monotonic() + timeout
    _refuse_ours(name, seen.pid)
    with _handle(seen.pid) as handle:
        process = _identified(seen)
        if handle is None or process is None:
            return "was not running"
        _refuse_other_child(name, process)
        offspring = _offspring(process)
        how = _end(process, handle, _patience(process, seen, grace, deadline), deadline)
    ENDED.add(name, (process, *offspring), time.time())
    left = _kill_offspring(offspring, deadline)
    return f"{how}{f', {left} of its processes killed' if left else ''}"


def _refuse_ours(name: str, pid: int) -> None:
    ours = {1, os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    if pid <= 1 or pid in ours:
        raise ActionError(
            f"process {pid} is the monitor itself or above it; services.{name}.process finds the wrong one",
            permanent=True,
        )


def _refuse_other_child(name: str, process: psutil.Process) -> None:
    started_for = CHILDREN.name_of(process.pid)
    with suppress(psutil.NoSuchProcess):
        if started_for != name and (started_for or process.ppid() == os.getpid()):
            whose = f"belongs to {started_for}" if started_for else "is a part of the remediator"
            raise ActionError(
                f"process {process.pid} {whose}; services.{name}.process finds the wrong one", permanent=True
            )


@contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    """Hold on to the process itself: what is signalled through it can be no other."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _identified(seen: Seen) -> psutil.Process | None:
    try:
        process = psutil.Process(seen.pid)
        same = abs(process.create_time() - seen.start_time) <= START_TOLERANCE
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _offspring(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _patience(process: psutil.Process, seen: Seen, grace: float, deadline: float) -> float:
    """Return how long to wait between asking and killing; the killing must fit in the time left."""
    left = deadline - time.monotonic() - SHORT_GRACE
    short = seen.unresponsive or _is_stopped(process)
    return max(0.0, min(SHORT_GRACE if short else grace, grace, left))


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


def _end(process: psutil.Process, handle: int, patience: float, deadline: float) -> str:
    stopped = _is_stopped(process)
    _signal(handle, process.pid, signal.SIGTERM)
    if stopped:
        _signal(handle, process.pid, signal.SIGCONT)  # a stopped process gets SIGTERM when it goes on
    if _ended(handle, patience):
        return "ended when asked"
    _signal(handle, process.pid, signal.SIGKILL)
    if _ended(handle, max(SHORT_GRACE, min(KILL_WAIT, deadline - time.monotonic()))):
        return f"killed after {patience:.0f} s"
    raise ActionError(f"process {process.pid} does not end, not even killed; the kernel holds it")


def _signal(handle: int, pid: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return  # ended meanwhile, which is what was wanted
    except PermissionError as error:
        raise ActionError(
            f"process {pid} may not be signalled; run the remediator as its user", permanent=True
        ) from error


def _ended(handle: int, seconds: float) -> bool:
    waiter = select.poll()
    waiter.register(handle, select.POLLIN)
    return bool(waiter.poll(seconds * 1000))


def _kill_offspring(offspring: list[psutil.Process], deadline: float) -> int:
    """Kill what outlived its parent: it holds ports and files that the new process needs."""
    left = [process for process in offspring if _lives(process)]
    for process in left:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()  # psutil refuses when the pid has another owner by now
    for process in left:
        with _handle(process.pid) as handle:
            if handle is not None and _lives(process):
                _ended(handle, max(0.0, min(KILL_WAIT, deadline - time.monotonic())))
    return len(left)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
