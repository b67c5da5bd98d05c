"""Find the process of a service and read what it uses. Linux only: it reads /proc."""

import asyncio
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import psutil

from exporter.kinds.process import ProcessProbe
from exporter.observation import Outcome, ProcessFacts, ProcessStatus, Reason
from exporter.probes.context import Context, ProcessMemory, Progress, guarded

_LISTEN = "0A"
_LOCAL_ADDRESS, _STATE, _INODE = 1, 3, 9  # columns of /proc/net/tcp
RECOUNT_AFTER = 12
"""Looks at a known process until its companions are counted anew: that walks through all of /proc."""
_SAME_START = 0.05  # seconds; psutil computes the start time from clock ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """What a look found: the process, or why there is none."""

    facts: ProcessFacts | None = None
    reason: Reason | None = None
    detail: str = ""
    inodes: frozenset[str] = frozenset()


async def probe(config: ProcessProbe, context: Context) -> Outcome:
    """Look for the process once, off the event loop. Never raises: a failure is the outcome."""
    progress = context.progress()
    progress.connected = True
    outcome = await guarded(_look(config, context, progress), progress, context.timeout)
    if outcome.reason is Reason.TIMEOUT:
        # Reading /proc is our own work; that it takes long says nothing about the service.
        return replace(outcome, reason=Reason.INTERNAL)
    return outcome


async def _look(config: ProcessProbe, context: Context, progress: Progress) -> Outcome:
    memory = context.memory
    sight = await asyncio.to_thread(look, config, memory)
    memory.facts, memory.inodes = sight.facts, sight.inodes
    facts, reason, detail = sight.facts, sight.reason, sight.detail
    if facts is not None and facts.status is ProcessStatus.STOPPED and context.stopped_fails:
        reason, detail = Reason.STOPPED, "the process is stopped"
    return progress.outcome(reason, detail, process=facts)


def look(config: ProcessProbe, memory: ProcessMemory) -> _Sight:
    """Find the process as *config* says, by what *memory* knows first."""
    if config.port is not None:
        return _by_port(config.port, memory)
    if config.pid_file is not None:
        return _by_pid_file(Path(config.pid_file))
    return _by_match(config.match or "", memory)


def _by_port(port: int, memory: ProcessMemory) -> _Sight:
    inodes = listening_inodes(port)
    if not inodes:
        return _nothing_listens(port, memory)
    if inodes == memory.inodes:
        facts = _known(memory, lambda: _holders(inodes))
        if facts is not None:
            return _Sight(facts=facts, inodes=inodes)
    facts = _first_of(_holders(inodes))
    if facts is None:
        # Its owner's handles are closed to us, or it ended while we looked; the next look tells.
        hidden = listening_inodes(port)
        if not hidden:
            return _nothing_listens(port, memory)
        return _Sight(detail=f"port {port} is served by a process that cannot be looked at")
    return _Sight(facts=facts, inodes=inodes)


def _nothing_listens(port: int, memory: ProcessMemory) -> _Sight:
    alive = _still_there(memory.facts) if memory.facts is not None else None
    if alive is not None:
        detail = f"process {alive.pid} is there, but nothing listens on port {port}"
        return _Sight(facts=alive, reason=Reason.NOT_LISTENING, detail=detail)
    return _Sight(reason=Reason.GONE, detail=f"nothing listens on port {port}")


def _by_pid_file(file: Path) -> _Sight:
    try:
        text = file.read_text(encoding="ascii")
        pid = int(text.split(maxsplit=1)[0])
        written = file.stat().st_mtime
    except FileNotFoundError:
        return _Sight(reason=Reason.GONE, detail="the pid file is missing")
    except OSError as error:
        return _Sight(reason=Reason.INTERNAL, detail=f"the pid file cannot be read: {error.strerror}")
    except (ValueError, IndexError) as error:
        return _Sight(reason=Reason.PID_FILE, detail=f"the pid file cannot be read: {type(error).__name__}")
    facts = _facts_of(pid) if pid > 0 else None
    if facts is None or facts.status is ProcessStatus.ZOMBIE:
        return _Sight(facts=facts, reason=Reason.GONE, detail=f"process {pid} of the pid file has ended")
    if facts.start_time > written + 1:
        # The number went to another process after the file was written.
        return _Sight(reason=Reason.GONE, detail=f"process {pid} of the pid file is a younger one")
    return _Sight(facts=facts)


def _by_match(pattern: str, memory: ProcessMemory) -> _Sight:
    known = _known(memory, lambda: _matching(_compiled(pattern)))
    facts = known or _first_of(_matching(_compiled(pattern)))
    if facts is None:
        return _Sight(reason=Reason.GONE, detail="no process matches")
    return _Sight(facts=facts)


def _matching(pattern: re.Pattern[str]) -> list[int]:
    own = os.getpid()
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.pid != own and pattern.search(" ".join(process.info["cmdline"] or ()))
    ]


def listening_inodes(port: int) -> frozenset[str]:
    """Return the socket inodes that listen on *port*, IPv4 and IPv6."""
    suffix = f":{port:04X}"
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            if suffix not in line:
                continue
            columns = line.split()
            if columns[_STATE] == _LISTEN and columns[_LOCAL_ADDRESS].endswith(suffix):
                found.add(columns[_INODE])
    return frozenset(found)


def _holders(inodes: Iterable[str]) -> list[int]:
    """Return the processes that hold one of the sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return [pid for pid in psutil.pids() if not wanted.isdisjoint(_links(pid))]


def _links(pid: int) -> set[str]:
    links: set[str] = set()
    folder = f"/proc/{pid}/fd"
    try:
        for entry in os.listdir(folder):  # noqa: PTH208 - called for every process; a Path each is too much
            links.add(_link(f"{folder}/{entry}"))
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return links  # ended meanwhile, or not ours to look at
    return links


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - as above
    except OSError:  # closed meanwhile
        return ""


def _first_of(pids: list[int]) -> ProcessFacts | None:
    """Return the facts of the process that started the others of a group: the oldest living one."""
    alive = _alive(pids)
    oldest = min(alive, key=lambda facts: (facts.start_time, facts.pid), default=None)
    return replace(oldest, group_size=len(alive)) if oldest else None


def _alive(pids: list[int]) -> list[ProcessFacts]:
    return [facts for facts in map(_facts_of, pids) if facts and facts.status is not ProcessStatus.ZOMBIE]


def _known(memory: ProcessMemory, find: Callable[[], list[int]]) -> ProcessFacts | None:
    """Return fresh facts of the process in *memory*, now and then with the service's processes recounted."""
    facts = _still_there(memory.facts) if memory.facts is not None else None
    memory.looks = 0 if facts is None else memory.looks + 1
    if facts is None or memory.looks < RECOUNT_AFTER:
        return facts
    memory.looks = 0
    return replace(facts, group_size=max(1, len(_alive(find()))))


def _still_there(known: ProcessFacts) -> ProcessFacts | None:
    """Return fresh facts of the same process; None when it ended, also when its number is used again."""
    facts = _facts_of(known.pid)
    if facts is None or facts.status is ProcessStatus.ZOMBIE:
        return None
    if abs(facts.start_time - known.start_time) > _SAME_START:
        return None
    return replace(facts, group_size=known.group_size)


def _facts_of(pid: int) -> ProcessFacts | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            return ProcessFacts(
                pid=pid,
                start_time=process.create_time(),
                status=_status(process.status()),
                cpu_seconds=cpu.user + cpu.system,
                resident_bytes=process.memory_info().rss,
                threads=process.num_threads(),
                **_handles(process),
            )
    except psutil.ZombieProcess:
        return ProcessFacts(pid=pid, start_time=0.0, status=ProcessStatus.ZOMBIE)
    except psutil.NoSuchProcess:
        return None


def _handles(process: psutil.Process) -> dict[str, int]:
    try:
        return {"open_fds": process.num_fds(), "max_fds": process.rlimit(psutil.RLIMIT_NOFILE)[0]}
    except psutil.AccessDenied:  # another user's process
        return {}


def _status(status: str) -> ProcessStatus:
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return ProcessStatus.ZOMBIE
    return ProcessStatus.STOPPED if status == psutil.STATUS_STOPPED else ProcessStatus.RUNNING


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
