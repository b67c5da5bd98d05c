"""Look at the filesystem that holds a path: its free space and inodes, whether it can be written."""

import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from exporter.kinds.filesystem import FilesystemProbe
from exporter.observation import Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.patience import in_thread

_POINT = 4  # column of /proc/self/mountinfo
_LABELS = ("mountpoint",)
AVAILABLE = Measure(
    name="filesystem_avail_bytes", help="Space that users without privileges can still use.", labels=_LABELS
)
SIZE = Measure(name="filesystem_size_bytes", help="Size of the filesystem.", labels=_LABELS)
FILES_FREE = Measure(name="filesystem_files_free", help="Files that can still be made.", labels=_LABELS)
FILES = Measure(name="filesystem_files", help="Files that the filesystem can hold.", labels=_LABELS)
READ_ONLY = Measure(
    name="filesystem_readonly", help="Whether the filesystem is mounted read-only.", labels=_LABELS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What the kernel tells of a filesystem."""

    mountpoint: str
    is_mountpoint: bool  # the path that was asked for
    size: int
    available: int
    files: int  # 0 where the filesystem makes them as needed
    files_free: int
    read_only: bool


Verdict = tuple[Reason, str] | None


async def probe(config: FilesystemProbe, context: Context) -> Outcome:
    """Look once, in a thread of its own. Never raises: a failure is the outcome."""
    progress = context.progress()
    progress.connected = True
    outcome = await guarded(_look(config, context, progress), progress, context.timeout)
    if outcome.reason is Reason.TIMEOUT:
        # A filesystem that hangs is not seen to be full.
        return replace(outcome, reason=Reason.INTERNAL)
    return outcome


async def _look(config: FilesystemProbe, context: Context, progress: Progress) -> Outcome:
    try:
        space = await in_thread(partial(measure, config.filesystem), context.recall)
    except (FileNotFoundError, NotADirectoryError):
        return progress.outcome(Reason.MISSING, "the path is missing")
    except OSError as error:
        return progress.outcome(Reason.INTERNAL, f"the filesystem cannot be looked at: {error.strerror}")
    progress.note("%s: %d of %d bytes free", space.mountpoint, space.available, space.size)
    reason, detail = judge(config, space) or (None, "")
    return progress.outcome(reason, detail, readings=_readings(space))


def judge(config: FilesystemProbe, space: Space) -> Verdict:
    """Hold what was found against what is expected."""
    if config.mounted and not space.is_mountpoint:
        return Reason.MISSING, f"nothing is mounted here; the path lies in {space.mountpoint}"
    if config.read_write and space.read_only:
        return Reason.PERMISSION, "the filesystem is read-only"
    if config.min_free is not None and _lacks(space.available, space.size, config.min_free):
        free = _amount(space.available, space.size)
        return Reason.LIMIT, f"{free} bytes free, at least {_written(config.min_free)} expected"
    least = config.min_free_inodes
    if least is not None and space.files and _lacks(space.files_free, space.files, least):
        free = _amount(space.files_free, space.files)
        return Reason.LIMIT, f"{free} inodes free, at least {_written(least)} expected"
    return None


def _lacks(free: int, whole: int, least: float) -> bool:
    return free < (least * whole if isinstance(least, float) else least)


def _amount(free: int, whole: int) -> str:
    return f"{free} of {whole}" + (f" ({free / whole:.1%})" if whole else "")


def _written(limit: float) -> str:
    return f"{limit * 100:g}%" if isinstance(limit, float) else str(limit)


def measure(path: str) -> Space:
    """Ask the kernel about the filesystem that holds *path*. Raises OSError."""
    real = os.path.realpath(path, strict=True)
    numbers = os.statvfs(real)
    mountpoint = _mountpoint(real)
    return Space(
        mountpoint=mountpoint,
        is_mountpoint=mountpoint == real,
        size=numbers.f_blocks * numbers.f_frsize,
        available=numbers.f_bavail * numbers.f_frsize,
        files=numbers.f_files,
        files_free=numbers.f_favail,
        read_only=bool(numbers.f_flag & os.ST_RDONLY),
    )


def _mountpoint(path: str) -> str:
    """Return the mount point above *path*, as the kernel lists them: no folder is touched for it."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    points = {_unescaped(line.split(" ", 5)[_POINT]) for line in lines}
    return next(str(place) for place in (Path(path), *Path(path).parents) if str(place) in points | {"/"})


def _unescaped(text: str) -> str:
    """Undo the octal escapes of blanks in mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _readings(space: Space) -> tuple[Reading, ...]:
    at = (space.mountpoint,)
    values: list[tuple[Measure, float]] = [
        (AVAILABLE, space.available),
        (SIZE, space.size),
        (READ_ONLY, int(space.read_only)),
    ]
    if space.files:
        values += [(FILES_FREE, space.files_free), (FILES, space.files)]
    return tuple(Reading(measure, value, at) for measure, value in values)
