"""The one thread for all that looks at the process from time to time, four times a second."""

import _thread
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from soulfra_monitor import aside
from soulfra_monitor.hooks import Reporter, Undo

PERIOD = 0.25
"""Seconds between looks."""

GONE_WITHIN = 0.05
"""Seconds that a fork waits for the system to forget a thread that has ended."""

COUNTED_LATE = (3, 13) <= sys.version_info < (3, 15)
FORK = re.compile(r"This process \(pid=\d+\) is multi-threaded, use of fork")

Check = Callable[[float], None]
"""Looks at something; is given ``time.monotonic()``."""


class _Run:
    """One thread's life: who pauses it releases ``stop``; the thread holds ``ended`` while it lives."""

    __slots__ = ("ended", "ident", "native", "stop")

    def __init__(self) -> None:
        self.stop, self.ended = _thread.allocate_lock(), _thread.allocate_lock()
        self.stop.acquire()
        self.ended.acquire()
        self.ident = self.native = 0


class _OnlyHere:
    """Marks a check that does not go on in forked children."""


class Pulse:
    """The thread that runs checks. It is not there while there are none, nor while the process forks.

    No lock is waited for: ``add`` may be called wherever the garbage collector runs.
    """

    def __init__(self) -> None:
        self._checks: dict[object, tuple[Check, Reporter | None]] = {}  # changed in one step, hence no lock
        self._starting = _thread.allocate_lock()
        self._running: _Run | None = None
        self._excuse = Excuse()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._pause_for_fork,
                after_in_parent=self._resume_in_parent,
                after_in_child=self._resume_in_child,
            )

    def add(self, check: Check, reporter: Reporter | None = None, *, in_children: bool = True) -> Undo:
        """Run *check* from now on, until the undo, and in forked children if it is to go on there.

        What it raises is the reporter's to count. Without a reporter it must not raise.
        """
        key = object() if in_children else _OnlyHere()
        self._checks[key] = (check, reporter)
        self.wake()

        def undo() -> None:
            self._checks.pop(key, None)
            if not self._checks:
                self._pause()
                if self._checks:  # added meanwhile
                    self.wake()

        return undo

    def _pause_for_fork(self) -> None:
        self._excuse.end()
        self._pause()

    def _resume_in_parent(self) -> None:
        if self._checks:
            self._excuse.begin()
        self.wake()

    def _resume_in_child(self) -> None:
        self._starting = _thread.allocate_lock()  # another thread may have held it
        self._running = None
        self._checks = {key: one for key, one in self._checks.items() if not isinstance(key, _OnlyHere)}
        self.wake()

    def wake(self) -> None:
        """See that the thread is there if there is a check."""
        if self._running is not None or not self._checks or not self._starting.acquire(blocking=False):
            return
        try:
            if self._running is None:
                run = _Run()
                aside.start(self._go, run)
                self._running = run
        except RuntimeError as error:  # no more threads: the program is in trouble of its own
            self._complain(error)
        finally:
            self._starting.release()

    def _complain(self, error: RuntimeError) -> None:
        for _, reporter in list(self._checks.values()):
            if reporter is not None:
                reporter.broke("watchdog", error)
                return

    def _pause(self) -> None:
        """End the thread, and wait for that a moment: a process that forks should have no other threads."""
        run, self._running = self._running, None
        if run is None:
            return
        run.stop.release()
        if run.ident == _thread.get_ident():
            return
        if run.ended.acquire(timeout=PERIOD):
            _wait_until_gone(run.native)

    def _go(self, run: _Run) -> None:
        run.ident, run.native = _thread.get_ident(), _thread.get_native_id()
        try:
            while not run.stop.acquire(timeout=PERIOD):
                now = time.monotonic()
                self._excuse.end()
                for check, reporter in list(self._checks.values()):
                    try:
                        check(now)
                    except Exception as error:  # noqa: BLE001 - the edge of the thread
                        if reporter is not None:
                            reporter.broke("watchdog", error)
                aside.unname()
        finally:
            run.ended.release()


class Excuse:
    """Keeps Python from warning of a fork with threads when only ours has come back after it.

    Python 3.13 and 3.14.0 count threads after ``after_in_parent`` has run (gh-137109), and so find one where
    there was none at the fork. A filter ignores that warning until the next look.
    """

    def __init__(self) -> None:
        self._filter: Any = None

    def begin(self) -> None:
        if COUNTED_LATE and threads() == 1:
            self._filter = ("ignore", FORK, DeprecationWarning, None, 0)
            warnings.filters.insert(0, self._filter)  # type: ignore[attr-defined]  # a list, whatever it says

    def end(self) -> None:
        ours, self._filter = self._filter, None
        filters: Any = warnings.filters
        if ours is not None:
            filters[:] = [found for found in filters if found is not ours]


def threads() -> int:
    """Return how many threads the system knows of, 0 where it does not say."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _wait_until_gone(native: int) -> None:
    """Wait for the last steps of a thread that has let go of all: Python counts threads by the system's."""
    place, end = f"/proc/self/task/{native}", time.monotonic() + GONE_WITHIN
    while os.path.exists(place) and time.monotonic() < end:
        time.sleep(0.0001)


pulse = Pulse()
