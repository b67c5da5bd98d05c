"""Mends files and folders that a service lists: what is missing, its mode, its owner, a stale lock.

The remediator may run as root beside people who may write where it mends, so nothing here goes by a name
twice. Every folder on the way is opened inside the one before it, no link is followed, and what is changed is
what was opened and looked at. A file with a second name is refused: the other may be somebody else's.
"""

import errno
import fcntl
import grp
import os
import pwd
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remediator.actions import ActionContext, ActionError
from remediator.places import entries_over
from soulfra_monitor.problems import Problem

if TYPE_CHECKING:
    from exporter.config import OwnPath
    from remediator.playbook import FileArgs

_LOCK_SIZE = 4096
_PID = re.compile(rb"\s*(?:pid[\s:=]{1,4})?([1-9][0-9]{0,9})(?:\s|$)", re.IGNORECASE)
_NEW_FOLDER = 0o700
_NEW_FILE = 0o600
_PERMISSIONS = 0o7777
_READ_WRITE = 0o6
_TOLD_LATE = 10.0  # seconds that an event may come in after what it tells of

_made: dict[Path, float] = {}  # when which declared folder was made here; at most one time for each


def run(args: "FileArgs", context: ActionContext, timeout: float) -> str:  # noqa: ARG001 - takes no time
    """Bring what is declared over the path into the declared state, and prove it; idempotent.

    Raises ActionError, permanent, where the path is not declared or nothing declared can help.
    """
    service = context.services[args.service]
    entries = entries_over(service, args.path, context.config_folder, context.data_folder)
    if not entries:
        message = f"{args.path!r} is not among services.{args.service}.paths"
        raise ActionError(message, permanent=True)
    done: list[str] = []
    for path, entry in entries:
        try:
            done += _mend(path, entry)
            _prove(path, entry)
        except OSError as error:
            raise _cannot(path, error) from error
    _check_inside(args.path, *entries[-1], context.summary)
    return "; ".join(done) or f"{entries[-1][0]} is as declared"


def _mend(path: Path, entry: "OwnPath") -> list[str]:
    """Change what is not as declared; return what was done."""
    with _parent(path) as parent:
        if entry.kind == "lock":
            return _remove_lock(parent, path)
        done = _make(parent, path, entry)
        with _opened(parent, path.name) as handle:
            found = _looked_at(handle, path, entry)
            if done and found.st_uid != os.geteuid():
                raise ActionError(f"{path} was replaced by somebody else while it was made")
            done += _own(handle, found, path, entry)
            return done + _set_mode(handle, path, entry)


@contextmanager
def _parent(path: Path) -> Iterator[int]:
    """Open the folder that *path* is in, one part after the other; no part may be a link."""
    handle = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts[1:-1]:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _opened(parent: int, name: str, flags: int = os.O_PATH) -> Iterator[int]:
    handle = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield handle
    finally:
        os.close(handle)


def _looked_at(handle: int, path: Path, entry: "OwnPath") -> os.stat_result:
    """Return what was opened, if it is of the declared kind and nobody else's by another name."""
    found = os.fstat(handle)
    is_kind = stat.S_ISDIR if entry.kind == "directory" else stat.S_ISREG
    if stat.S_ISLNK(found.st_mode):
        raise ActionError(f"{path} is a symbolic link, which is not followed", permanent=True)
    if not is_kind(found.st_mode):
        raise ActionError(
            f"{path} is no {'directory' if entry.kind == 'directory' else 'file'}", permanent=True
        )
    if entry.kind != "directory" and found.st_nlink != 1:
        raise ActionError(f"{path} has {found.st_nlink} names; it may belong to others", permanent=True)
    if entry.kind != "directory" and found.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise ActionError(f"{path} runs as somebody else; its owner and mode are left alone", permanent=True)
    return found


def _make(parent: int, path: Path, entry: "OwnPath") -> list[str]:
    try:
        os.stat(path.name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        if not entry.create:
            raise ActionError(f"{path} is missing, and is not declared with create", permanent=True) from None
    else:
        return []
    # FileExistsError: somebody was faster; the next try finds what they made.
    if entry.kind == "directory":
        os.mkdir(path.name, _NEW_FOLDER, dir_fd=parent)
        _made[path] = time.time()
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path.name, flags, _NEW_FILE, dir_fd=parent))
    return [f"made {path}"]


def _own(handle: int, found: os.stat_result, path: Path, entry: "OwnPath") -> list[str]:
    user, group = _ids(entry)
    wanted = (found.st_uid if user is None else user, found.st_gid if group is None else group)
    if wanted == (found.st_uid, found.st_gid):
        return []
    # A handle of O_PATH takes no fchown; its name in /proc is the very thing that was opened.
    os.chown(_by_handle(handle), *wanted)
    return [f"gave {path} to {wanted[0]}:{wanted[1]}"]


def _set_mode(handle: int, path: Path, entry: "OwnPath") -> list[str]:
    if entry.mode is None or stat.S_IMODE(os.fstat(handle).st_mode) == int(entry.mode, 8):
        return []
    _by_handle(handle).chmod(int(entry.mode, 8))
    return [f"set {path} to mode {int(entry.mode, 8):04o}"]


def _by_handle(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}")


def _ids(entry: "OwnPath") -> tuple[int | None, int | None]:
    return (
        None if entry.owner is None else _user(entry.owner),
        None if entry.group is None else _group(entry.group),
    )


def _user(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ActionError(f"there is no user {name!r} here", permanent=True) from None


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ActionError(f"there is no group {name!r} here", permanent=True) from None


def _prove(path: Path, entry: "OwnPath") -> None:
    """Go there once more from the root, and find it as declared."""
    with _parent(path) as parent:
        if entry.kind == "lock":
            with suppress(FileNotFoundError):
                os.stat(path.name, dir_fd=parent, follow_symlinks=False)
                raise ActionError(f"{path} is there again: somebody took the lock")
            return
        with _opened(parent, path.name) as handle:
            found = _looked_at(handle, path, entry)
    user, group = _ids(entry)
    as_declared = (
        (user is None or found.st_uid == user)
        and (group is None or found.st_gid == group)
        and (entry.mode is None or stat.S_IMODE(found.st_mode) == int(entry.mode, 8))
    )
    if not as_declared:
        raise ActionError(f"{path} is not as declared, though it was mended: somebody changes it")


def _check_inside(wanted: str, path: Path, entry: "OwnPath", summary: Mapping[str, Any]) -> None:
    """Claim no mend of what lies inside a declared folder and is still wrong: it is not declared itself.

    A file is missing in a folder that was just made because the folder was: its program writes it next time.
    """
    if Path(wanted) == path:
        return
    problem = summary.get("problem")
    try:
        with _parent(Path(wanted)) as parent:
            found = os.stat(Path(wanted).name, dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        if problem == Problem.MISSING_FILE and not _just_made(path, summary.get("last_seen")):
            message = f"{wanted} is still missing; {path} is as declared, and what is in it is not"
            raise ActionError(message, permanent=True) from None
        return
    except OSError as error:
        raise _cannot(Path(wanted), error) from error
    if problem == Problem.PERMISSION_DENIED and entry.owner is not None and not _may(found, entry):
        message = f"{wanted} is not for {entry.owner} to use; {path} is as declared, and what is in it is not"
        raise ActionError(message, permanent=True)


def _just_made(folder: Path, told_at: float | None) -> bool:
    """Whether what was told then may tell of the time before the folder was made."""
    return told_at is not None and _made.get(folder, 0.0) > told_at - _TOLD_LATE


def _may(found: os.stat_result, entry: "OwnPath") -> bool:
    """Whether the declared owner may read and write it, as far as its mode says."""
    user, group = _ids(entry)
    shift = 6 if found.st_uid == user else 3 if group is not None and found.st_gid == group else 0
    return user == 0 or (found.st_mode >> shift) & _READ_WRITE == _READ_WRITE


def _remove_lock(parent: int, path: Path) -> list[str]:
    """Remove the lock if the process it names is dead; a lock that is gone is a success."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        with _opened(parent, path.name, flags) as handle:
            _check_lock(handle, path)
            _take_away(parent, path, os.fstat(handle))
    except FileNotFoundError:
        return []
    return [f"removed {path}: the process it names is dead"]


def _check_lock(handle: int, path: Path) -> None:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise ActionError(f"{path} is no file with one name", permanent=True)
    named = _PID.match(os.read(handle, _LOCK_SIZE))
    if named is None:
        raise ActionError(f"{path} names no process, so nobody can tell whether it is stale", permanent=True)
    if _lives(int(named[1])):
        raise ActionError(f"{path} is held: process {int(named[1])} lives", permanent=True)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ActionError(f"{path} is held: somebody has locked it", permanent=True) from error


def _lives(pid: int) -> bool:
    """Whether there is such a process; a zombie is dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] not in ("Z", "X")


def _take_away(parent: int, path: Path, seen: os.stat_result) -> None:
    """Unlink exactly the file that was looked at: moved aside first, because a name may be taken again."""
    aside = f".{path.name}.stale-{secrets.token_hex(8)}"
    os.rename(path.name, aside, src_dir_fd=parent, dst_dir_fd=parent)
    moved = os.stat(aside, dir_fd=parent, follow_symlinks=False)
    if (moved.st_dev, moved.st_ino) != (seen.st_dev, seen.st_ino):
        with suppress(FileExistsError):
            os.link(aside, path.name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        os.unlink(aside, dir_fd=parent)
        raise ActionError(f"{path} was taken anew while it was looked at")
    os.unlink(aside, dir_fd=parent)


_TOLD = {
    errno.ELOOP: "a part of it is a symbolic link, which is not followed; declare the real path",
    errno.ENOTDIR: "a part of it is no directory, or a symbolic link, which is not followed",
    errno.ENOENT: "the folder it is in is missing; declare that too, with create",
    errno.EPERM: "the remediator may not; it must run as root, or as the owner",
    errno.EACCES: "the remediator may not; it must run as root, or as the owner",
    errno.EROFS: "the file system is read-only",
}
_PASSES = frozenset({errno.EEXIST, errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ENFILE, errno.EMFILE})


def _cannot(path: Path, error: OSError) -> ActionError:
    told = _TOLD.get(error.errno or 0, error.strerror or str(error))
    return ActionError(f"{path}: {told}", permanent=error.errno not in _PASSES)
