"""What the control groups of a process say about memory: the limit, and kills for want of it."""

import os
from collections.abc import Iterator

ROOT = "/sys/fs/cgroup"
_UNLIMITED = 1 << 60  # what version 1 writes where there is no limit is above this


def memory_limit(pid: int | str = "self", root: str = ROOT) -> int:
    """Return the smallest limit in bytes on the way up; 0 where there is none."""
    texts = (
        _read(os.path.join(folder, name))
        for folder in folders(pid, root)
        for name in ("memory.max", "memory.limit_in_bytes")
    )
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < _UNLIMITED), default=0)


def oom_kills(pid: int | str = "self", root: str = ROOT) -> int:
    """Return how often the kernel has killed in the group of a process for want of memory."""
    folder = next(folders(pid, root), "")
    for name in ("memory.events.local", "memory.events", "memory.oom_control"):
        for line in _read(os.path.join(folder, name)).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.isdigit():
                return int(value)
    return 0


def folders(pid: int | str, root: str = ROOT) -> Iterator[str]:
    """Give the folders of the memory groups of a process, its own first, up to the root."""
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        base = {"": root, "memory": os.path.join(root, "memory")}.get(controllers)
        if base is None or not _has_memory(base):
            continue
        folder = base + path.rstrip("/")
        while len(folder) >= len(base):
            if os.path.isdir(folder):
                yield folder
            folder = os.path.dirname(folder)


def _has_memory(base: str) -> bool:
    """Tell whether a hierarchy is one of memory: version 2 with that controller, or version 1's own."""
    if os.path.basename(base) == "memory":
        return os.path.isdir(base)
    return "memory" in _read(os.path.join(base, "cgroup.controllers")).split()


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # there is none, or not for us: nothing is known of the group
        return ""
