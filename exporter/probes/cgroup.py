"""Memory limits and OOM kills from the control groups of a process, version 1 and 2."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 62  # version 1 writes the largest number of pages for "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    """A mounted hierarchy of control groups, and the group that is its root here."""

    folder: Path
    root: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The control group that accounts the memory of a process."""

    mount: _Mount
    place: PurePosixPath  # below the mount

    def upwards(self) -> Iterator[Path]:
        """Return its folder and all above it, to that of the mount."""
        for place in (self.place, *self.place.parents):
            yield self.mount.folder / place.relative_to("/")

    @property
    def is_root(self) -> bool:
        """Whether it is the one of the whole machine or container."""
        return self.place == PurePosixPath("/")


def memory_group(pid: int, proc: Path = Path("/proc")) -> Group | None:
    """Return the group of *pid*; None when it has none that we can see."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        mounts = _mounts(proc)
    except OSError:  # it ended, or its group is not for us to see
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version = 1 if "memory" in controllers.split(",") else 2 if not controllers else 0
        place = _below(path, mounts[version].root) if version in mounts else None
        if place is not None and _accounts_memory(mounts[version], place):
            return Group(mount=mounts[version], place=place)
    return None


def memory_limit(group: Group) -> int | None:
    """Return the smallest limit of *group* and those above it."""
    name = "memory.max" if group.mount.version == 2 else "memory.limit_in_bytes"  # noqa: PLR2004 - as in _Mount
    limits = [_number(folder / name) for folder in group.upwards()]
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED), default=None)


def oom_kills(group: Group) -> int | None:
    """Return how many processes of *group* the kernel killed for want of memory."""
    if group.is_root:  # its kills are those of everybody
        return None
    name = "memory.events" if group.mount.version == 2 else "memory.oom_control"  # noqa: PLR2004 - as in _Mount
    for line in _lines(next(group.upwards()) / name):
        key, _, value = line.partition(" ")
        if key == "oom_kill" and value.isdigit():
            return int(value)
    return None


def _accounts_memory(mount: _Mount, place: PurePosixPath) -> bool:
    """Whether the group is one of the hierarchy that has the memory controller."""
    if mount.version == 1:
        return True
    return any("memory" in line.split() for line in _lines(mount.folder / "cgroup.controllers")) and (
        (mount.folder / place.relative_to("/")).is_dir()
    )


def _below(path: str, root: str) -> PurePosixPath | None:
    """Return *path* as seen from a mount whose root is *root*; None when it is outside."""
    place = PurePosixPath(path)
    if ".." in place.parts or not place.is_relative_to(root):
        return None
    return PurePosixPath("/") / place.relative_to(root)


@lru_cache(maxsize=4)
def _mounts(proc: Path) -> dict[int, _Mount]:
    """Find the hierarchies with memory groups, by version. Raises OSError, so that nothing is kept of it."""
    found: dict[int, _Mount] = {}
    for line in _read(proc / "self" / "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options, *_) = left.split(), [*right.split(), "", "", ""]
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "memory" in options.split(",") else 0
        if version:
            found.setdefault(version, _Mount(folder=Path(fields[4]), root=fields[3], version=version))
    return found


def _number(file: Path) -> int | None:
    text = "".join(_lines(file))
    return int(text) if text.isdigit() else None


def _read(file: Path) -> str:
    return file.read_text()


def _lines(file: Path) -> list[str]:
    try:
        return _read(file).splitlines()
    except OSError:  # this hierarchy has no such file, or it is gone: the limit is not known
        return []
