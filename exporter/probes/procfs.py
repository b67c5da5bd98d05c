"""Reads /proc. What ends while we look, or is not ours to look at, is None.

What we lack ourselves, such as open files, is raised as OSError: it must not look like a process that ended.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from time import CLOCK_BOOTTIME, clock_gettime, time

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_READ_AT_ONCE = 65536
COMMAND_LINE_LIMIT = 16384  # bytes; command lines are written by strangers
# Columns of /proc/PID/stat after the name.
_STATE, _PARENT, _USER_TIME, _SYSTEM_TIME, _THREADS, _START, _RESIDENT = 0, 1, 11, 12, 17, 19, 21
_CLOCK_STEP = 1.0

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What reading raises of a process that ended, or that is not ours to look at."""

Identity = tuple[int, int]
"""Number and start, which no two processes share between two boots."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What the kernel tells everybody about a process."""

    pid: int
    state: str
    parent: int
    cpu_seconds: float
    threads: int
    start_ticks: int  # after the boot
    resident_bytes: int

    @property
    def identity(self) -> Identity:
        """What tells it from another process with its number."""
        return self.pid, self.start_ticks

    @property
    def ended(self) -> bool:
        """Whether it is a zombie: it has ended, and nobody has waited for it.

        One whose first thread has ended and others have not is shown as a zombie too.
        """
        return self.state in "ZXx" and self.threads <= 1


def pids() -> Iterator[int]:
    """Return the processes that can be seen."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - as in _read


def read_stat(pid: int) -> Stat | None:
    """Read what a process is and uses."""
    text = _read(f"/proc/{pid}/stat")
    columns = text[text.rfind(b")") + 2 :].split()  # the name before may contain anything
    if len(columns) <= _RESIDENT:
        return None
    return Stat(
        pid,
        columns[_STATE].decode(),
        int(columns[_PARENT]),
        (int(columns[_USER_TIME]) + int(columns[_SYSTEM_TIME])) / _TICKS,
        int(columns[_THREADS]),
        int(columns[_START]),
        int(columns[_RESIDENT]) * _PAGE,
    )


def command_line(pid: int) -> str:
    """Return the command line in one text; empty for a kernel thread, a zombie and one that is hidden."""
    words = _read(f"/proc/{pid}/cmdline")[:COMMAND_LINE_LIMIT].rstrip(b"\0")
    return words.replace(b"\0", b" ").decode(errors="replace")


def user_id(pid: int) -> int | None:
    """Return the effective user of a process."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[2])
    return None


def open_handles(pid: int) -> int | None:
    """Count the open file handles of a process."""
    folder = f"/proc/{pid}/fd"
    try:
        # Linux 6.2 and later tell the number as the folder's size; before, that is 0.
        return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208 - as in _read
    except _GONE:
        return None


def limit(pid: int, name: bytes) -> int | None:
    """Return the soft limit *name*, such as ``Max open files``; None also where it is unlimited."""
    for line in _read(f"/proc/{pid}/limits").splitlines():
        if line.startswith(name):
            soft = line[len(name) :].split()[0]
            return int(soft) if soft.isdigit() else None
    return None


def links(pid: int) -> Iterator[str]:
    """Return what the open handles of a process point to."""
    folder = f"/proc/{pid}/fd"
    try:
        entries = os.listdir(folder)  # noqa: PTH208 - as in _read
    except _GONE:
        return
    for entry in entries:
        try:
            yield os.readlink(f"{folder}/{entry}")  # noqa: PTH115 - as in _read
        except _GONE:  # closed meanwhile
            continue


def others_are_hidden() -> bool:
    """Whether /proc shows us only our own processes (its option hidepid): process 1 is always there."""
    return not os.access("/proc/1/cmdline", os.R_OK)


class BootTime:
    """When the machine was booted, by its clock of now; stays equal until that clock is set anew."""

    def __init__(self) -> None:
        self._known = 0.0

    def __call__(self) -> float:
        """Return it in epoch seconds."""
        now = time() - clock_gettime(CLOCK_BOOTTIME)
        if abs(now - self._known) > _CLOCK_STEP:
            self._known = round(now, 2)
        return self._known


_boot_time = BootTime()


def start_time(start_ticks: int) -> float:
    """Return a start after the boot in epoch seconds."""
    return _boot_time() + start_ticks / _TICKS


def _read(path: str) -> bytes:
    """Read a small file of /proc, without the weight of Path and open: it is done for every process."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except _GONE:
        return b""
    try:
        return os.read(handle, _READ_AT_ONCE)
    except _GONE:  # it ended after the file was opened
        return b""
    finally:
        os.close(handle)
