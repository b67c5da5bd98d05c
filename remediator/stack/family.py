"""The processes below this one: adopted when their parents end, reaped, and ended together.

Works on Linux alone. All of it belongs to the main thread of a program that has no other.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable

import psutil
from psutil import Process

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_TIME = 1.0  # seconds the kernel has to end what was killed

Select = Callable[[], list[Process]]


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphaned processes")


def ending_with(parent: int) -> Callable[[], None]:
    """Return what a child calls before its program starts, so that it gets SIGTERM when *parent* ends."""
    libc = ctypes.CDLL(None, use_errno=True)

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return arrange


def dead_child() -> int | None:
    """Return a child that has ended and whose status nobody has taken yet."""
    # WNOWAIT: only look. Taking the status of a child that has a Popen would leave that without it.
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def kill_group(leader: int) -> None:
    """Kill what is left of the process group of a child whose status is not taken yet."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody was left in it


def descendants() -> list[Process]:
    """Return every process below this one that has not ended, or that is still to be reaped by us."""
    return [process for process in Process().children(recursive=True) if _lives(process)]


def of_sessions(leaders: Iterable[int]) -> list[Process]:
    """Return the descendants that belong to the sessions of *leaders*."""
    wanted = set(leaders)
    return [process for process in descendants() if _session(process.pid) in wanted]


def end(select: Select, grace: float, pause: Callable[[], bool]) -> None:
    """End what *select* finds, and what it leaves behind: SIGTERM from the top down, SIGKILL after *grace*.

    *pause* waits a moment and reaps; it returns True when there is no time for grace any more. What even
    SIGKILL cannot end, because the kernel is busy with it, is left after a second.
    """
    deadline = time.monotonic() + grace
    told: set[Process] = set()
    hurry = False
    while (alive := select()) and time.monotonic() < deadline + _KILL_TIME:
        kill = hurry or time.monotonic() >= deadline
        for process in alive if kill else _tops(alive):
            if kill or _stopped(process):
                _send(process, signal.SIGKILL)
            elif process not in told:
                told.add(process)
                _send(process, signal.SIGTERM)
        hurry = pause() or hurry


def _tops(processes: list[Process]) -> list[Process]:
    """Leave out those whose parent is among them: it is the parent's task to end them."""
    pids = {process.pid for process in processes}
    return [process for process in processes if _parent(process) not in pids]


def _parent(process: Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return 0


def _lives(process: Process) -> bool:
    # A zombie of ours may have threads that are still ending; it is over when its status is taken. Somebody
    # else's zombie becomes ours when its parent ends.
    try:
        ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return not ended or process.ppid() == os.getpid()
    except psutil.NoSuchProcess:
        return False


def _stopped(process: Process) -> bool:
    # A stopped process never gets to see SIGTERM.
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


def _send(process: Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it was faster


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
