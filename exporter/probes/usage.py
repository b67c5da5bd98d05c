"""What a container uses: by the kernel where its files can be read here, else by the engine.

The kernel's files come first because engines before 23 measure once a second and let who asks
wait for it; a wait of ours would look like a slow service.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.probes.engine import mapping, number

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the processes of a container use together; None is not told."""

    working_set: float | None = None  # bytes, without the page cache that the kernel would reclaim first
    cpu_seconds: float | None = None
    pids: float | None = None
    oom_kills: int | None = None  # since it started


def kernel_usage(pid: int, identity: str) -> Usage | None:
    """Return what the kernel says of the container with the process *pid*; None when it cannot be read.

    Only control groups that carry the container's id are its own: the engine may be on another
    machine, and *pid* be somebody else's here.
    """
    groups = dict(_groups(pid, identity))
    unified = groups.get("")
    try:
        if "memory" in groups:
            return _version_1(groups)
        return None if unified is None else _version_2(unified)
    except (OSError, ValueError, KeyError):  # not here, or not as we know it: the engine is asked instead
        return None


def _groups(pid: int, identity: str) -> Iterator[tuple[str, Path]]:
    """Yield controller and folder of the control groups of *pid*; version 2 has one, without a name."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:  # not of this machine, or it ended
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if identity in path and ".." not in path:
            for controller in controllers.split(","):
                yield controller, _ROOT / controllers / path.lstrip("/")


def _version_1(groups: Mapping[str, Path]) -> Usage:
    memory = groups["memory"]
    used, cached = _value(memory / "memory.usage_in_bytes"), _table(memory / "memory.stat")
    return Usage(
        working_set=max(0, used - cached["total_inactive_file"]),
        cpu_seconds=_value(groups["cpuacct"] / "cpuacct.usage") / 1e9,
        pids=_value(groups["pids"] / "pids.current"),
        oom_kills=_table(memory / "memory.oom_control").get("oom_kill"),
    )


def _version_2(folder: Path) -> Usage:
    used, cached = _value(folder / "memory.current"), _table(folder / "memory.stat")
    return Usage(
        working_set=max(0, used - cached["inactive_file"]),
        cpu_seconds=_table(folder / "cpu.stat")["usage_usec"] / 1e6,
        pids=_value(folder / "pids.current"),
        oom_kills=_table(folder / "memory.events").get("oom_kill"),
    )


def _value(file: Path) -> int:
    return int(file.read_text())


def _table(file: Path) -> dict[str, int]:
    rows = (line.split() for line in file.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows}


def engine_usage(stats: Mapping[str, Any]) -> Usage:
    """Read the engine's answer about a container's use."""
    memory = mapping(stats.get("memory_stats"))
    parts = mapping(memory.get("stats"))
    used = number(memory.get("usage"))
    # The first is cgroup v1's, the second v2's.
    cached = number(parts.get("total_inactive_file", parts.get("inactive_file"))) or 0
    nanoseconds = number(mapping(mapping(stats.get("cpu_stats")).get("cpu_usage")).get("total_usage"))
    return Usage(
        working_set=None if used is None else max(0.0, used - cached),
        cpu_seconds=None if nanoseconds is None else nanoseconds / 1e9,
        pids=number(mapping(stats.get("pids_stats")).get("current")),
    )
