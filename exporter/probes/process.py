"""Find the processes of a service and add up what they use. Linux only: it reads /proc."""

import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from exporter.kinds.process import Count, ProcessProbe
from exporter.observation import Outcome, ProcessFacts, ProcessStatus, Reason
from exporter.probes import cgroup, procfs
from exporter.probes.context import Context, ProcessMemory, Progress, guarded
from exporter.probes.listening import listening_inodes
from exporter.probes.patience import in_thread
from exporter.probes.procfs import Stat, read_stat

RECOUNT_AFTER = 12
"""Looks at known processes until the service's are searched anew: that walks through all of /proc."""
_HANDLES = b"Max open files"
_ADDRESS_SPACE = b"Max address space"


class UnclearError(Exception):
    """What is to be found cannot be looked for, which is no evidence either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """What a look found: the processes of the service, the main one first, or why there are none."""

    members: Sequence[Stat] = ()
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handles:
    """File handles of all processes; None where one of them does not let us look."""

    opened: int | None
    limits: int | None
    worst: float | None


async def probe(config: ProcessProbe, context: Context) -> Outcome:
    """Look for the processes once, off the event loop. Never raises: a failure is the outcome."""
    progress = context.progress()
    progress.connected = True
    outcome = await guarded(_look(config, context, progress), progress, context.timeout)
    if outcome.reason is Reason.TIMEOUT:
        # Reading /proc is our own work; that it takes long says nothing about the service.
        return replace(outcome, reason=Reason.INTERNAL)
    return outcome


async def _look(config: ProcessProbe, context: Context, progress: Progress) -> Outcome:
    try:
        sight, facts = await in_thread(partial(look, config, context.memory), context.recall)
    except UnclearError as error:
        return progress.outcome(Reason.INTERNAL, str(error))
    except OSError as error:
        return progress.outcome(Reason.INTERNAL, f"processes cannot be looked for: {error.strerror}")
    progress.note("found the processes %s", ", ".join(str(stat.pid) for stat in sight.members) or "none")
    reason, detail = sight.reason, sight.detail
    if reason is None and facts is not None:
        reason, detail = _judge(config, facts, context) or (None, detail)
    return progress.outcome(reason, detail, process=facts)


def _judge(config: ProcessProbe, facts: ProcessFacts, context: Context) -> tuple[Reason, str] | None:
    if facts.status is ProcessStatus.STOPPED and context.stopped_fails:
        return Reason.STOPPED, "the process is stopped"
    count = config.count or Count.model_construct()
    if count.at_least is not None and facts.group_size < count.at_least:
        return Reason.LIMIT, f"{facts.group_size} processes, at least {count.at_least} expected"
    if count.at_most is not None and facts.group_size > count.at_most:
        return Reason.LIMIT, f"{facts.group_size} processes, at most {count.at_most} expected"
    return None


def look(config: ProcessProbe, memory: ProcessMemory) -> tuple[_Sight, ProcessFacts | None]:
    """Find the processes as *config* says, by what *memory* knows first, and read what they use."""
    memory.looks += 1
    if config.port is not None:
        sight = _by_port(config, config.port, memory)
    elif config.pid_file is not None:
        sight = _by_pid_file(config, Path(config.pid_file), memory)
    else:
        sight = _by_match(config, config.match or "", memory)
    if not sight.members:
        memory.members = ()
        return sight, None
    return sight, _facts_of(sight.members, memory)


def _by_port(config: ProcessProbe, port: int, memory: ProcessMemory) -> _Sight:
    inodes = listening_inodes(port)
    if not inodes:
        return _nothing_listens(port, memory)
    hidden = _Sight(detail=f"port {port} is served by a process that cannot be looked at")
    if inodes == memory.hidden and memory.looks < RECOUNT_AFTER:
        return hidden
    known = _known(config, memory) if inodes == memory.inodes else ()
    members = known or _search(config, memory, partial(_holders, inodes))
    if members:
        memory.inodes = inodes
        return _Sight(members=members)
    # Its owner's handles are closed to us, or it ended while we looked; the next look tells.
    if not listening_inodes(port):
        return _nothing_listens(port, memory)
    if config.user is not None and _is_held(inodes):
        return _Sight(reason=Reason.GONE, detail=f"port {port} is served by a process of another user")
    memory.hidden, memory.looks = inodes, 0
    return hidden


def _nothing_listens(port: int, memory: ProcessMemory) -> _Sight:
    members = _still_there(memory)
    if members:
        detail = f"process {members[0].pid} is there, but nothing listens on port {port}"
        return _Sight(members=members, reason=Reason.NOT_LISTENING, detail=detail)
    return _Sight(reason=Reason.GONE, detail=f"nothing listens on port {port}")


def _by_pid_file(config: ProcessProbe, file: Path, memory: ProcessMemory) -> _Sight:
    named = _read_pid_file(file)
    if isinstance(named, _Sight):
        return _without_pid_file(named, memory)
    pid, written = named
    main = read_stat(pid) if pid > 0 else None
    if main is None or main.ended:
        _refuse_to_guess(pid)
        ended = (main,) if main else ()
        return _Sight(members=ended, reason=Reason.GONE, detail=f"process {pid} of the pid file has ended")
    is_younger = procfs.start_time(main.start_ticks) > written + 1
    if is_younger and main.identity != memory.main:  # one that we know looks younger once a clock is set anew
        # The number went to another process after the file was written.
        return _Sight(reason=Reason.GONE, detail=f"process {pid} of the pid file is a younger one")
    if not _is_of(config, pid):
        return _Sight(reason=Reason.GONE, detail=f"process {pid} of the pid file is another user's")
    known = _known(config, memory)
    if known and known[0].identity == main.identity:
        return _Sight(members=known)
    return _Sight(members=_search(config, memory, partial(_family, main), main))


def _without_pid_file(sight: _Sight, memory: ProcessMemory) -> _Sight:
    """Return *sight* of a file that is of no use; while it is written anew the known process is not gone."""
    members = _still_there(memory)
    if sight.reason is not Reason.GONE or not members:
        return sight
    detail = f"process {members[0].pid} is there, but the pid file is missing"
    return _Sight(members=members, reason=Reason.PID_FILE, detail=detail)


def _read_pid_file(file: Path) -> tuple[int, float] | _Sight:
    """Return the number in the file and when it was written, or what is wrong with it."""
    try:
        text = file.read_text(encoding="ascii")
        return int(text.split(maxsplit=1)[0]), file.stat().st_mtime
    except FileNotFoundError:
        return _Sight(reason=Reason.GONE, detail="the pid file is missing")
    except OSError as error:
        raise UnclearError(f"the pid file cannot be read: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        return _Sight(reason=Reason.PID_FILE, detail=f"the pid file cannot be read: {type(error).__name__}")


def _by_match(config: ProcessProbe, pattern: str, memory: ProcessMemory) -> _Sight:
    members = _known(config, memory) or _search(config, memory, partial(_matching, _compiled(pattern)))
    if members:
        return _Sight(members=members)
    if procfs.others_are_hidden():
        raise UnclearError("no process matches, but those of other users are hidden from the exporter")
    owner = f" of the user {config.user}" if config.user is not None else ""
    return _Sight(reason=Reason.GONE, detail=f"no process{owner} matches")


def _refuse_to_guess(pid: int) -> None:
    """Raise UnclearError when process *pid* is there and only hidden."""
    if pid <= 0 or read_stat(pid) is not None:
        return
    try:
        os.kill(pid, 0)
    except PermissionError as error:
        raise UnclearError(f"process {pid} of the pid file is hidden from the exporter") from error
    except (ProcessLookupError, OverflowError):
        return
    raise UnclearError(f"process {pid} of the pid file is there, and cannot be looked at")


def _known(config: ProcessProbe, memory: ProcessMemory) -> Sequence[Stat]:
    """Return the processes in *memory* as they are now; none when it is time to search."""
    at_least = config.count.at_least if config.count else None
    members = _still_there(memory)
    if memory.looks >= RECOUNT_AFTER or len(members) < (at_least or 0):
        return ()
    return members


def _still_there(memory: ProcessMemory) -> Sequence[Stat]:
    """Return those in *memory* that live; none when the main one ended, its number used again or not."""
    members = _living(memory.members)
    return members if members and members[0].identity == memory.members[0] else ()


def _living(identities: Iterable[procfs.Identity]) -> list[Stat]:
    stats = [(identity, read_stat(identity[0])) for identity in identities]
    return [stat for identity, stat in stats if stat and stat.identity == identity and not stat.ended]


def _search(
    config: ProcessProbe,
    memory: ProcessMemory,
    choose: Callable[[Sequence[Stat]], Iterable[Stat]],
    main: Stat | None = None,
) -> Sequence[Stat]:
    """Choose the service's from all processes; the main one is that of before, or else the oldest."""
    stats = [stat for stat in map(read_stat, procfs.pids()) if stat is not None]
    found = [stat for stat in choose(stats) if not stat.ended and _is_of(config, stat.pid)]
    before = _still_there(memory)
    if not found and not main:
        found = list(before[:1])  # its handles may be closed to us by now
    if not found:
        return ()
    first = main or _same(before, found) or min(found, key=lambda stat: (stat.start_ticks, stat.pid))
    members = [first, *(stat for stat in found if stat.identity != first.identity)]
    _remember(memory, members, stats)
    return members


def _same(before: Sequence[Stat], found: Sequence[Stat]) -> Stat | None:
    """Return the main process of *before* if it is among those *found*."""
    return next((stat for stat in found if before and stat.identity == before[0].identity), None)


def _remember(memory: ProcessMemory, members: Sequence[Stat], stats: Iterable[Stat]) -> None:
    """Keep what need not be read with every look."""
    pids = {stat.pid for stat in members}
    main = members[0]
    group = cgroup.memory_group(main.pid)
    limits = [cgroup.memory_limit(group) if group else None]
    if len(members) == 1:  # a limit of each cannot be held against the sum of several
        limits.append(procfs.limit(main.pid, _ADDRESS_SPACE))
    memory.looks = 0
    memory.members = tuple(stat.identity for stat in members)
    memory.max_fds = {stat.identity: procfs.limit(stat.pid, _HANDLES) for stat in members}
    memory.memory_limit = min((limit for limit in limits if limit is not None), default=None)
    memory.oom_kills = cgroup.oom_kills(group) if group else None
    memory.zombies = sum(stat.ended and stat.parent in pids for stat in stats)


def _matching(pattern: Any, stats: Sequence[Stat]) -> Iterator[Stat]:
    own = os.getpid()
    return (s for s in stats if s.pid != own and pattern.search(procfs.command_line(s.pid)))


def _holders(inodes: frozenset[str], stats: Sequence[Stat]) -> Iterator[Stat]:
    """Return the processes that hold one of the sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return (stat for stat in stats if not wanted.isdisjoint(procfs.links(stat.pid)))


def _is_held(inodes: frozenset[str]) -> bool:
    return any(_holders(inodes, [stat for stat in map(read_stat, procfs.pids()) if stat is not None]))


def _family(main: Stat, stats: Sequence[Stat]) -> list[Stat]:
    """Return *main* and its descendants."""
    children: dict[int, list[Stat]] = {}
    for stat in stats:
        children.setdefault(stat.parent, []).append(stat)
    family = [main]
    for stat in family:  # grows while it is walked
        family += children.pop(stat.pid, [])
    return family


def _is_of(config: ProcessProbe, pid: int) -> bool:
    return config.user is None or procfs.user_id(pid) == _user_number(config.user)


def _user_number(user: str | int) -> int:
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise UnclearError(f"there is no user {user!r} on this machine") from error


def _facts_of(members: Sequence[Stat], memory: ProcessMemory) -> ProcessFacts:
    main = members[0]
    if memory.main not in (None, main.identity) and not main.ended:
        memory.restarts += 1
    if not main.ended:
        memory.main = main.identity
    handles = _handles(members, memory)
    return ProcessFacts(
        pid=main.pid,
        start_time=procfs.start_time(main.start_ticks),
        start_ticks=main.start_ticks,
        status=_status(main),
        cpu_seconds=_cpu_seconds(members, memory),
        resident_bytes=sum(stat.resident_bytes for stat in members),
        memory_limit_bytes=memory.memory_limit,
        open_fds=handles.opened,
        max_fds=handles.limits,
        worst_fd_ratio=handles.worst,
        threads=sum(stat.threads for stat in members),
        group_size=len(members),
        zombies=memory.zombies,
        restarts=memory.restarts,
        oom_kills=memory.oom_kills,
    )


def _cpu_seconds(members: Sequence[Stat], memory: ProcessMemory) -> float:
    """Add what the processes used since the last look, so that the end of one takes nothing away."""
    now = {stat.identity: stat.cpu_seconds for stat in members}
    used = sum(max(0.0, seconds - memory.cpu.get(identity, 0.0)) for identity, seconds in now.items())
    memory.cpu = now
    memory.cpu_seconds += used
    return memory.cpu_seconds


def _handles(members: Sequence[Stat], memory: ProcessMemory) -> _Handles:
    """Count open handles against their limits; nothing where one process does not let us look."""
    opened = [procfs.open_handles(stat.pid) for stat in members]
    limits = [memory.max_fds.get(stat.identity) for stat in members]
    ratios = [
        count / limit for count, limit in zip(opened, limits, strict=True) if count is not None and limit
    ]
    return _Handles(
        opened=_sum(opened), limits=_sum(limits), worst=max(ratios) if len(ratios) == len(members) else None
    )


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _status(main: Stat) -> ProcessStatus:
    if main.ended:
        return ProcessStatus.ZOMBIE
    return ProcessStatus.STOPPED if main.state == "T" else ProcessStatus.RUNNING


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """Return the pattern compiled by RE2: Python's own could take hours for a stranger's command line."""
    import re2  # noqa: PLC0415 - 3 MB, needed by configurations with such patterns only

    return re2.compile(pattern)
