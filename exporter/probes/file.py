"""Look at a file: whether it is there, its age, size, owner, group, mode and type."""

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from time import time

from exporter.kinds.file import AtMost, FileProbe
from exporter.observation import Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.patience import in_thread
from soulfra_monitor.durations import format_duration

ENTRIES_LIMIT = 10_000
"""Entries of folders that a pattern may make us look at."""
MTIME = Measure(name="file_mtime_timestamp_seconds", help="When the content of the file was last written.")
SIZE = Measure(name="file_size_bytes", help="Size of the file.")
_TYPES: dict[str, Callable[[int], bool]] = {
    "file": stat.S_ISREG,
    "directory": stat.S_ISDIR,
    "socket": stat.S_ISSOCK,
}
_WILD = frozenset("*?[")

Verdict = tuple[Reason, str] | None


class TooManyError(Exception):
    """A pattern would have us look at more entries than is good."""


async def probe(config: FileProbe, context: Context) -> Outcome:
    """Look once, in a thread of its own. Never raises: a failure is the outcome."""
    progress = context.progress()
    progress.connected = True
    outcome = await guarded(_look(config, context, progress), progress, context.timeout)
    if outcome.reason is Reason.TIMEOUT:
        # The filesystem hangs, which says nothing about what is in it.
        return replace(outcome, reason=Reason.INTERNAL)
    return outcome


async def _look(config: FileProbe, context: Context, progress: Progress) -> Outcome:
    try:
        found = await in_thread(partial(_find, config), context.recall)
    except TooManyError:
        return progress.outcome(
            Reason.INTERNAL, f"the pattern leads to more than {ENTRIES_LIMIT} entries; narrow it"
        )
    except OSError as error:
        return progress.outcome(Reason.INTERNAL, f"the file cannot be looked at: {error.strerror}")
    if found is None:
        progress.note("there is no %s", config.file)
        missing = (Reason.MISSING, "no file matches" if config.newest else "the file is missing")
        return progress.outcome(*(missing if config.exists else (None, "")))
    path, facts = found
    progress.note(
        "%s has %d bytes, mode %04o, written at %d",
        path,
        facts.st_size,
        facts.st_mode & 0o7777,
        facts.st_mtime,
    )
    reason, detail = judge(config, facts, time()) or (None, "")
    if reason is not None and config.newest:
        detail = f"{os.path.basename(path)}: {detail}"  # noqa: PTH119 - a name, nothing is looked at
    readings = (Reading(MTIME, facts.st_mtime), Reading(SIZE, facts.st_size))
    return progress.outcome(reason, detail, readings=readings)


def judge(config: FileProbe, facts: os.stat_result, now: float) -> Verdict:
    """Hold what was found against what is expected."""
    if not config.exists:
        return Reason.LIMIT, "the file is there and must not be"
    if config.type is not None and not _TYPES[config.type](facts.st_mode):
        return Reason.MISSING, f"it is no {config.type}"
    return _judge_owner(config, facts) or _judge_mode(config, facts) or _judge_limits(config, facts, now)


def _judge_owner(config: FileProbe, facts: os.stat_result) -> Verdict:
    owner, group = facts.st_uid, facts.st_gid
    if config.owner is not None and config.owner not in (owner, _name(pwd.getpwuid, owner)):
        return Reason.PERMISSION, f"it belongs to {_name(pwd.getpwuid, owner)}, not to {config.owner}"
    if config.group is not None and config.group not in (group, _name(grp.getgrgid, group)):
        return Reason.PERMISSION, f"its group is {_name(grp.getgrgid, group)}, not {config.group}"
    return None


def _judge_mode(config: FileProbe, facts: os.stat_result) -> Verdict:
    mode = stat.S_IMODE(facts.st_mode)
    if isinstance(config.mode, AtMost) and mode & ~config.mode.at_most:
        return Reason.PERMISSION, f"its mode is {mode:04o}, at most {config.mode.at_most:04o} expected"
    if isinstance(config.mode, int) and mode != config.mode:
        return Reason.PERMISSION, f"its mode is {mode:04o}, not {config.mode:04o}"
    return None


def _judge_limits(config: FileProbe, facts: os.stat_result, now: float) -> Verdict:
    age, size = now - facts.st_mtime, facts.st_size
    written = format_duration(max(0.0, round(age)))
    if config.max_age is not None and age > config.max_age:
        return Reason.LIMIT, f"written {written} ago, at most {format_duration(config.max_age)} expected"
    if config.min_age is not None and age < config.min_age:
        return Reason.LIMIT, f"written {written} ago, at least {format_duration(config.min_age)} expected"
    if config.max_size is not None and size > config.max_size:
        return Reason.LIMIT, f"{size} bytes, at most {config.max_size} expected"
    if config.min_size is not None and size < config.min_size:
        return Reason.LIMIT, f"{size} bytes, at least {config.min_size} expected"
    return None


def _name(lookup: Callable[[int], tuple[object, ...]], number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def _find(config: FileProbe) -> tuple[str, os.stat_result] | None:
    """Return the file and its facts; None when there is none. Raises OSError when we may not look."""
    if not config.newest:
        facts = _stat(config.file)
        return None if facts is None else (config.file, facts)
    found = [(path, facts) for path in expand(config.file) if (facts := _stat(path)) is not None]
    if config.type is not None:
        found = [(path, facts) for path, facts in found if _TYPES[config.type](facts.st_mode)]
    return max(found, key=lambda entry: entry[1].st_mtime, default=None)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - of up to 10,000 paths
    except (FileNotFoundError, NotADirectoryError):  # also a link that leads nowhere
        return None


def expand(pattern: str) -> list[str]:
    """Return the paths that match *pattern*. Raises TooManyError and OSError, where glob passes over it."""
    left = [ENTRIES_LIMIT]
    paths = ["/"]
    for part in PurePosixPath(pattern).parts[1:]:
        if _WILD.isdisjoint(part):
            paths = [os.path.join(path, part) for path in paths]  # noqa: PTH118 - as in _stat
        else:
            paths = [entry for path in paths for entry in _matching(path, part, left)]
    return paths


def _matching(folder: str, part: str, left: list[int]) -> Iterator[str]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            left[0] -= 1
            if left[0] < 0:
                raise TooManyError
            hidden = entry.name.startswith(".") and not part.startswith(".")
            if not hidden and fnmatchcase(entry.name, part):
                yield entry.path
