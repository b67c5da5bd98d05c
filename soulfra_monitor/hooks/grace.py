"""Looks again, a while after an error was put aside, whether somebody has asked for it.

One thread for all hooks, started by the first error and ended when nothing is left to look at, so that a
process without errors has none. What is still waiting when the process ends is looked at then.
"""

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

GRACE = 0.5
"""Seconds in which somebody may still ask."""

LIMIT = 10_000
"""Looks that wait at most; an error above that is told only when it is finalised."""

TICK = 0.1

Look = Callable[[], float | None]
"""Looks, and says in how many seconds to look again, if at all. Must not raise."""

_waiting: deque[tuple[float, Look]] = deque()
_at_work = threading.Lock()
_settles = False


class Budget:
    """How often a second something costly may be done. In a storm what is left out must not be missed."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._second = -1
        self._left = 0

    def take(self) -> bool:
        """Whether it may be done now. Threads that ask at the same moment may get one too many."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._left = second, self._per_second
        self._left -= 1
        return self._left >= 0


def later(look: Look, seconds: float = GRACE) -> None:
    """Have *look* called in *seconds*, in a thread of ours. Takes no lock that it would wait for."""
    global _settles  # noqa: PLW0603 - one process, one list
    if len(_waiting) >= LIMIT:
        return
    if not _settles:
        _settles = True
        _settle_at_the_end()
    _waiting.append((time.monotonic() + seconds, look))
    _start()


def settle() -> None:
    """Look at all that waits, now. Called at exit, before what was registered with atexit earlier."""
    for _ in range(len(_waiting)):
        try:
            _, look = _waiting.popleft()
        except IndexError:  # the thread has taken it meanwhile
            return
        look()


def _settle_at_the_end() -> None:
    atexit.register(settle)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:  # its children do not run what atexit knows
        util.Finalize(None, settle, exitpriority=0)


def _start() -> None:
    if sys.is_finalizing() or not _at_work.acquire(blocking=False):
        return
    try:
        threading.Thread(target=_run, name="soulfra-grace", daemon=True).start()
    except RuntimeError:  # no thread can be had any more: what waits is settled at exit
        _at_work.release()


def _run() -> None:
    while _waiting:
        time.sleep(TICK)
        _round(time.monotonic())
    _at_work.release()
    if _waiting:
        _start()


def _round(now: float) -> None:
    for _ in range(len(_waiting)):
        try:
            due, look = _waiting.popleft()
        except IndexError:  # the process is ending and settles
            return
        again = due - now if now < due else look()
        if again is not None:
            _waiting.append((now + again, look))


def _forget() -> None:
    """Leave what waits to the parent, whose it is, as is the thread."""
    global _at_work, _settles  # noqa: PLW0603 - a lock held at the fork stays held
    _waiting.clear()
    _settles = False
    _at_work = threading.Lock()


os.register_at_fork(after_in_child=_forget)
