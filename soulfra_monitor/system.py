"""The state of this process and its host, from /proc. What cannot be read is left out."""

# os.path is loaded in every program, pathlib is not:

import os
import time
from collections.abc import Callable
from typing import Any

from soulfra_monitor.loading import pythons

FRESH = 1.0
"""Seconds for which a state is told again instead of looked at again."""

_open = open  # at the very end of a program Python takes it out of the builtins

_ELSEWHERE = (FileNotFoundError, PermissionError, AttributeError, ImportError)
"""What reading raises on other systems, and where a sandbox hides it."""

_UNREADABLE = (OSError, ValueError, LookupError)


class SystemState:
    """Reads the state at most once a second."""

    def __init__(
        self, broke: Callable[[str, BaseException], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._broke = broke
        self._clock = clock
        self._read_at = float("-inf")
        self._state: dict[str, Any] = {}
        self._cpu: tuple[float, float] | None = None

    def read(self) -> dict[str, Any]:
        """Return the state, sizes in bytes, times in seconds, shares from 0 to 1."""
        now = self._clock()
        if now - self._read_at >= FRESH:
            self._state = self._look(now)
            self._read_at = now
        return self._state

    def _look(self, now: float) -> dict[str, Any]:
        state: dict[str, Any] = {"pid": os.getpid()}
        for read in _READERS:
            try:
                state.update(read())
            except _ELSEWHERE:
                continue
            except _UNREADABLE as error:  # not as we know it, or no file may be opened: told without it
                self._broke("system", error)
        self._add_cpu(state, now)
        return state

    def _add_cpu(self, state: dict[str, Any], now: float) -> None:
        """Add the cores that this process used since the last look, or since it began."""
        used = time.process_time()
        if self._cpu is not None:
            before, at = self._cpu
            state["cpu"] = round((used - before) / max(now - at, 1e-6), 3)
        elif state.get("uptime"):
            state["cpu"] = round(used / state["uptime"], 3)
        self._cpu = (used, now)


def _read(path: str) -> str:
    with _open(path, encoding="utf-8", errors="replace") as file:
        return file.read(65536)


def _process() -> dict[str, Any]:
    fields = _read("/proc/self/stat").rpartition(")")[2].split()
    page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    started = int(fields[19]) / ticks
    uptime = float(_read("/proc/uptime").split()[0]) - started
    return {"rss": int(fields[21]) * page, "threads": int(fields[17]), "uptime": round(uptime, 1)}


def _files() -> dict[str, Any]:
    resource = pythons("resource")  # not everywhere
    state: dict[str, Any] = {"files": len(os.listdir("/proc/self/fd")) - 1}
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY:
        state["files_limit"] = limit
    return state


def _memory() -> dict[str, Any]:
    lines = (line.split() for line in _read("/proc/meminfo").splitlines()[:3])
    sizes = {words[0]: int(words[1]) * 1024 for words in lines}
    return {"memory_total": sizes["MemTotal:"], "memory_available": sizes["MemAvailable:"]}


def _load() -> dict[str, Any]:
    return {"load": round(os.getloadavg()[0], 2), "cores": os.cpu_count() or 1}


def _disk() -> dict[str, Any]:
    folder = os.getcwd()
    disk = os.statvfs(folder)
    return {"disk_total": disk.f_blocks * disk.f_frsize, "disk_free": disk.f_bavail * disk.f_frsize}


_READERS: tuple[Callable[[], dict[str, Any]], ...] = (_process, _files, _memory, _load, _disk)
