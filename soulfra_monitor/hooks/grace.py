"""Looks again, a while after an error was put aside, whether somebody has asked for it.

The looks are made on the thread of ``pulse``, from the first error until nothing is left to look at: it is
not there while the process forks. What is still waiting when the process ends is looked at then.
"""

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from soulfra_monitor.hooks import Undo
from soulfra_monitor.hooks.pulse import PERIOD, pulse

GRACE = 0.5
"""Seconds in which somebody may still ask."""

LIMIT = 10_000
"""Looks that wait at most; an error above that is told only when it is finalised."""

PAUSE_AT_MOST = 5.0
"""Seconds between looks at what somebody may yet ask for; at first ``GRACE``."""

TICK = PERIOD

Look = Callable[[], float | None]
"""Looks, and says in how many seconds to look again, if at all. Must not raise."""

_waiting: deque[tuple[float, Look]] = deque()
_at_work = threading.Lock()
_settles = _ending = False
_leave: Undo | None = None


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


def next_pause(waited: float) -> float:
    """Return in how many seconds to look again at what has waited for so long: the longer, the less often."""
    return min(max(GRACE, waited / 4), PAUSE_AT_MOST)


def later(look: Look, seconds: float = GRACE) -> bool:
    """Have *look* called in *seconds*, in a thread of ours; false when too many wait for that already.

    Takes no lock that it would wait for.
    """
    global _settles  # noqa: PLW0603 - one process, one list
    if len(_waiting) >= LIMIT:
        return False
    if not _settles:
        _settles = True
        _settle_at_the_end()
    _waiting.append((time.monotonic() + seconds, look))
    _start()
    return True


def is_ending() -> bool:
    """Whether this look is the last: nobody will come to ask any more."""
    return _ending


def settle() -> None:
    """Look at all that waits, now. Called at exit, before what was registered with atexit earlier."""
    global _ending  # noqa: PLW0603 - one process, one end
    _ending = True
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
    """See that looks are made."""
    global _leave  # noqa: PLW0603 - one process, one list
    if sys.is_finalizing():
        return
    if _at_work.acquire(blocking=False):
        _leave = pulse.add(_check, in_children=False)
    else:
        pulse.wake()  # where no thread could be had before


def _check(now: float) -> None:
    global _leave
    _round(now)
    if _waiting:
        return
    leave, _leave = _leave, None
    if leave is None:  # the thread was faster than who has started it
        return
    leave()
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
    """Leave what waits to the parent, whose it is."""
    global _at_work, _leave, _settles  # noqa: PLW0603 - a lock held at the fork stays held
    _waiting.clear()
    _settles = False
    _at_work = threading.Lock()
    _leave = None


os.register_at_fork(after_in_child=_forget)
