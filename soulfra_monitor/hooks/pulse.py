"""The one thread for all that looks at the process from time to time, four times a second."""

import _thread
import os
import threading
import time
from collections.abc import Callable

from soulfra_monitor import aside
from soulfra_monitor.hooks import Reporter, Undo

PERIOD = 0.25
"""Seconds between looks."""

GONE_WITHIN = 0.05
"""Seconds that a fork waits for the system to forget a thread that has ended."""

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


class Pulse:
    """The thread that runs checks. It is not there while there are none, nor while the process forks.

    No lock is waited for: ``add`` may be called wherever the garbage collector runs.
    """

    def __init__(self) -> None:
        self._checks: dict[object, tuple[Check, Reporter | None]] = {}  # changed in one step, hence no lock
        self._starting = _thread.allocate_lock()
        self._running: _Run | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._pause, after_in_parent=self.wake, after_in_child=self._resume_in_child
            )

    def add(self, check: Check, reporter: Reporter | None = None) -> Undo:
        """Run *check* from now on, until the undo. What it raises is the reporter's to count.

        Without a reporter it must not raise.
        """
        key = object()
        self._checks[key] = (check, reporter)
        self.wake()

        def undo() -> None:
            self._checks.pop(key, None)
            if not self._checks:
                self._pause()
                if self._checks:  # added meanwhile
                    self.wake()

        return undo

    def _resume_in_child(self) -> None:
        self._starting = _thread.allocate_lock()  # another thread may have held it
        self._running = None
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
                for check, reporter in list(self._checks.values()):
                    try:
                        check(now)
                    except Exception as error:  # noqa: BLE001 - the edge of the thread
                        if reporter is not None:
                            reporter.broke("watchdog", error)
        finally:
            _forget_dummy(run.ident)
            run.ended.release()


def _forget_dummy(ident: int) -> None:
    """Take out what ``threading`` has made of this thread if anything asked it for the current one."""
    active = threading._active  # type: ignore[attr-defined] # noqa: SLF001 - who forks counts its threads
    found = active.get(ident)
    if isinstance(found, threading._DummyThread):  # noqa: SLF001 - likewise
        active.pop(ident, None)


def _wait_until_gone(native: int) -> None:
    """Wait for the last steps of a thread that has let go of all: Python counts threads by the system's."""
    place, end = f"/proc/self/task/{native}", time.monotonic() + GONE_WITHIN
    while os.path.exists(place) and time.monotonic() < end:
        time.sleep(0.0001)


pulse = Pulse()
