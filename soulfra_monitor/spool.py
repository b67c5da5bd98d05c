"""What could not be sent: parcels on disk, in order, until the remediator takes them.

    FOLDER/SERVICE/BOOT/lock              held while the process lives
    FOLDER/SERVICE/BOOT/000000000001.seg  one parcel: a line of JSON about it, then its body
    FOLDER/SERVICE/corrupt/               segments that could not be read; they are never deleted

A segment is written beside its place, synced, and moved there, so that it is whole or absent. A parcel is
known by (boot, seq), and the remediator takes it once: sending it again after a crash is safe. Of one boot
parcels go out in the order of their seq.
"""

# os.path is loaded in every program, pathlib is not:

import errno
import json
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType

from soulfra_monitor.loading import pythons

fcntl: ModuleType | None
try:
    import fcntl  # early: at the very end of a program nothing can be imported
except ImportError:  # not everywhere
    fcntl = None

_open = open  # likewise: Python takes it out of the builtins by then

LOCK = "lock"
CORRUPT = "corrupt"
SUFFIX = ".seg"
UNFINISHED = ".tmp"
MEMORY_LIMIT = 4_000_000
"""Bytes of parcels kept in memory where the disk takes nothing."""

HEADER_LIMIT = 4096
FOLDER_MODE = 0o700
_OTHERS = 0o077

Broke = Callable[[str, BaseException], None]


class SpoolError(Exception):
    """The disk did not take or give a parcel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A batch as it is posted, and what it stands for."""

    boot: str
    seq: int
    body: bytes
    packed: bool = False  # with gzip
    weight: int = 0  # errors in it, counts included
    dropped: Mapping[str, int] = field(default_factory=dict)  # told in it; told again if it is refused


@dataclass(slots=True, kw_only=True)
class Stub:
    """A parcel of this process that waits: in memory, or on disk."""

    seq: int
    size: int
    weight: int
    at: float  # epoch seconds
    dropped: Mapping[str, int]
    parcel: Parcel | None  # None: on disk


@dataclass(frozen=True, slots=True)
class Lost:
    """A parcel that was given up."""

    weight: int
    reason: str
    dropped: Mapping[str, int] = field(default_factory=dict)


class Backlog:
    """The parcels of this process that wait, oldest first: on disk, else in memory."""

    def __init__(self, spool: "Spool", boot: str) -> None:
        self._spool = spool
        self._boot = boot
        self._stubs: deque[Stub] = deque()
        self.failure = ""  # why the disk does not take parcels, "" while it does

    def __len__(self) -> int:
        return len(self._stubs)

    @property
    def weight(self) -> int:
        """Errors that wait."""
        return sum(stub.weight for stub in self._stubs)

    def add(self, parcel: Parcel) -> list[Lost]:
        """Keep *parcel* as the newest; return what had to go for it."""
        size = len(parcel.body)
        lost = self._make_room(size)
        stub = Stub(
            seq=parcel.seq,
            size=size,
            weight=parcel.weight,
            at=time.time(),
            dropped=parcel.dropped,
            parcel=parcel,
        )
        try:
            self._spool.write(parcel)
        except SpoolError as error:
            self.failure = str(error)
        else:
            self.failure = ""
            stub.parcel = None
        self._stubs.append(stub)
        return lost + self._bound_memory()

    def first(self) -> tuple[Parcel | None, list[Lost]]:
        """Return the oldest parcel, and what could not be read or is too old on the way to it."""
        lost: list[Lost] = []
        while self._stubs:
            stub = self._stubs[0]
            if time.time() - stub.at > self._spool.age:
                lost.append(self._give_up("spool_age"))
                continue
            if stub.parcel is not None:
                return stub.parcel, lost
            try:
                return self._spool.read(self._boot, stub.seq), lost
            except SpoolError as error:
                self._spool.broke("spool", error)
                lost.append(self._give_up("spool_unreadable"))
        return None, lost

    def remove(self, seq: int) -> bool:
        """Forget the parcel *seq*: it was taken or refused. False if it does not wait here."""
        for stub in self._stubs:
            if stub.seq == seq:
                self._stubs.remove(stub)
                if stub.parcel is None:
                    self._spool.remove(self._boot, seq)
                return True
        return False

    def _give_up(self, reason: str) -> Lost:
        stub = self._stubs.popleft()
        if stub.parcel is None:
            self._spool.remove(self._boot, stub.seq)
        return Lost(stub.weight, reason, stub.dropped)

    def _make_room(self, size: int) -> list[Lost]:
        lost: list[Lost] = []
        excess = self._spool.used() + size - self._spool.limit
        while excess > 0 and self._stubs:
            excess -= self._stubs[0].size
            lost.append(self._give_up("spool_full"))
        return lost

    def _bound_memory(self) -> list[Lost]:
        lost: list[Lost] = []
        used = sum(stub.size for stub in self._stubs if stub.parcel is not None)
        while used > MEMORY_LIMIT and len(self._stubs) > 1:
            used -= self._stubs[0].size if self._stubs[0].parcel is not None else 0
            lost.append(self._give_up("spool_full"))
        return lost


class Spool:
    """The folder of one service.

    ``write`` and ``read`` raise SpoolError when the disk refuses; *broke* is told of failures that nobody
    else has to deal with.
    """

    def __init__(self, folder: str, service: str, *, limit: int, age: float, broke: Broke) -> None:
        self._folder = folder
        self._service = service
        self._root = ""
        self._lock: int | None = None
        self.limit = limit
        self.age = age
        self.broke = broke

    def write(self, parcel: Parcel) -> None:
        """Store a parcel of this process; it is whole and safe on disk when this returns."""
        head = {
            "boot": parcel.boot,
            "seq": parcel.seq,
            "packed": parcel.packed,
            "weight": parcel.weight,
            "at": time.time(),
            "length": len(parcel.body),
            "crc": zlib.crc32(parcel.body),
        }
        try:
            folder = self._own_folder(parcel.boot)
            place = os.path.join(folder, _name(parcel.seq))
            _write_whole(place, json.dumps(head).encode() + b"\n" + parcel.body)
            _sync_folder(folder)
        except OSError as error:
            raise SpoolError(f"{type(error).__name__}: {error.strerror}") from error

    def read(self, boot: str, seq: int) -> Parcel:
        """Return a parcel. One that is not as it was written is moved aside."""
        return self._read(os.path.join(self._find_root(), boot, _name(seq)), boot)

    def remove(self, boot: str, seq: int) -> None:
        """Delete a parcel. One that cannot be deleted is sent again by a later life, and taken once."""
        try:
            os.unlink(os.path.join(self._find_root(), boot, _name(seq)))
        except FileNotFoundError:  # somebody has removed it: that was the aim
            return
        except (OSError, SpoolError) as error:
            self.broke("spool", error)

    def used(self) -> int:
        """Return the bytes of all parcels of the service, of other processes too; 0 when nobody can say."""
        try:
            with os.scandir(self._find_root()) as boots:
                folders = [entry.path for entry in boots if entry.is_dir(follow_symlinks=False)]
            return sum(map(_size_of, folders))
        except SpoolError:  # the disk takes nothing, and ``write`` says so
            return 0
        except OSError as error:
            self.broke("spool", error)
            return 0

    def has_orphans(self, boot: str) -> bool:
        """Whether other processes, dead or alive, have a folder here. Cheap; creates nothing."""
        return bool(self._others(boot))

    def orphans(self, boot: str) -> Iterator["Orphan"]:
        """Give the folders of dead processes, locked for us. Raises nothing."""
        for name in self._others(boot):
            folder = os.path.join(self._root, name)
            lock = _lock(os.path.join(folder, LOCK))
            if lock is not None:
                yield Orphan(self, name, folder, lock)

    def _others(self, boot: str) -> list[str]:
        """Return the names of all folders but our own."""
        try:
            names = os.listdir(self._find_root(create=False))
        except (FileNotFoundError, SpoolError):  # nothing was ever spooled here
            return []
        except OSError as error:
            self.broke("spool", error)
            return []
        return sorted(name for name in names if _is_boot(name) and name != boot)

    def close(self) -> None:
        """Let go of the own folder: whoever comes next may send what is in it. Safe in a forked child."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def leave(self, boot: str) -> None:
        """Remove the own folder if nothing is left in it, and let go of it."""
        if self._lock is not None:
            self.remove_folder(os.path.join(self._root, boot))
        self.close()

    def remove_folder(self, folder: str) -> None:
        """Remove a folder in which nothing but its lock, and what was never finished, is left."""
        try:
            names = os.listdir(folder)
            if all(name == LOCK or name.endswith(UNFINISHED) for name in names):
                for name in names:
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)
        except FileNotFoundError:  # gone: that was the aim
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # else somebody has come to use it
                self.broke("spool", error)

    def _read(self, place: str, boot: str) -> Parcel:
        try:
            with _open(place, "rb") as file:
                head = json.loads(file.readline(HEADER_LIMIT))
                body = file.read(int(head["length"]) + 1)
            if len(body) != head["length"] or zlib.crc32(body) != head["crc"] or head["boot"] != boot:
                raise ValueError("not as it was written")  # noqa: TRY301 - one way to deal with all of these
            return Parcel(
                boot=boot,
                seq=int(head["seq"]),
                body=body,
                packed=bool(head["packed"]),
                weight=int(head["weight"]),
            )
        except FileNotFoundError as error:
            raise SpoolError("somebody has removed it") from error
        except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
            self._move_aside(place, boot)
            raise SpoolError(f"corrupt: {error}") from error
        except OSError as error:
            raise SpoolError(f"{type(error).__name__}: {error.strerror}") from error

    def _move_aside(self, place: str, boot: str) -> None:
        aside = os.path.join(self._find_root(), CORRUPT)
        try:
            os.makedirs(aside, FOLDER_MODE, exist_ok=True)
            os.replace(place, os.path.join(aside, f"{boot}-{os.path.basename(place)}"))
        except FileNotFoundError:  # somebody has removed it meanwhile
            return
        except OSError as error:
            self.broke("spool", error)

    def _own_folder(self, boot: str) -> str:
        """Create and lock the folder of this process on first use."""
        folder = os.path.join(self._find_root(), boot)
        if self._lock is None or not os.path.isdir(folder):
            self.close()
            is_new = not os.path.isdir(folder)
            place = os.path.join(self._root, f".{boot}") if is_new else folder  # hidden until it is locked
            os.makedirs(place, FOLDER_MODE, exist_ok=True)
            self._lock = _lock(os.path.join(place, LOCK))
            if self._lock is None:
                raise SpoolError("the folder cannot be locked")
            if is_new:
                os.rename(place, folder)
        return folder

    def _find_root(self, *, create: bool = True) -> str:
        if self._root:
            return self._root
        refused = ""
        for folder in [self._folder] if self._folder else _default_folders():
            root = os.path.join(folder, self._service)
            ours = [root] if self._folder else [os.path.dirname(folder), folder, root]
            try:
                if create:
                    os.makedirs(root, FOLDER_MODE, exist_ok=True)
                if all(map(_is_private, ours)):
                    self._root = root
                    return root
            except OSError as error:
                refused = f": {folder}: {error.strerror}"
        raise SpoolError(f"there is no folder that only this user can read and write{refused}")


class Orphan:
    """The folder of a dead process: its parcels in order, to be sent by us."""

    def __init__(self, spool: Spool, boot: str, folder: str, lock: int) -> None:
        self._spool = spool
        self._boot = boot
        self._folder = folder
        self._lock: int | None = lock
        self._passed: set[str] = set()  # parcels too old, or not to be read

    @property
    def lost(self) -> int:
        """Parcels that were given up."""
        return len(self._passed)

    def first(self) -> Parcel | None:
        """Return the oldest parcel that can be read and is not too old, or None."""
        for name in self._names():
            place = os.path.join(self._folder, name)
            try:
                if time.time() - os.stat(place).st_mtime <= self._spool.age:
                    return self._spool._read(place, self._boot)  # noqa: SLF001 - two halves of one thing
                os.unlink(place)
            except (OSError, SpoolError) as error:  # what is corrupt was moved aside
                self._spool.broke("spool", error)
            self._passed.add(name)
        return None

    def remove(self, seq: int) -> None:
        """Delete a parcel that was taken or refused."""
        self._spool.remove(self._boot, seq)

    def close(self) -> None:
        """Remove the folder if it is empty, and let go of it."""
        self._spool.remove_folder(self._folder)
        self.release()

    def release(self) -> None:
        """Let go of the folder; somebody else may send what is left. Safe in a forked child."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _names(self) -> list[str]:
        try:
            names = [name for name in os.listdir(self._folder) if name.endswith(SUFFIX)]
            return sorted(name for name in names if name not in self._passed)
        except FileNotFoundError:  # somebody has removed it
            return []
        except OSError as error:
            self._spool.broke("spool", error)
            return []


def _name(seq: int) -> str:
    return f"{seq:012d}{SUFFIX}"


def _is_boot(name: str) -> bool:
    return name != CORRUPT and not name.startswith(".")


def _default_folders() -> list[str]:
    """Return where spools go when nobody says: the user's state, else the user's part of the temporary."""
    tempfile = pythons("tempfile")  # only here
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    temporary = os.path.join(tempfile.gettempdir(), f"soulfra-monitor-{user}")
    return [os.path.join(state, "soulfra-monitor", "spool"), os.path.join(temporary, "spool")]


def _is_private(folder: str) -> bool:
    """Whether a folder is ours and closed to others: in a shared place somebody may have put theirs there."""
    found = os.lstat(folder)
    if not os.path.isdir(folder) or os.path.islink(folder):
        return False
    if not hasattr(os, "geteuid"):
        return True
    if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
        os.chmod(folder, FOLDER_MODE)
    return found.st_uid == os.geteuid()


def _lock(place: str) -> int | None:
    """Return a descriptor that holds the lock, or None when somebody has it. Death lets go of it."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except OSError:  # held by who lives
        pass
    os.close(descriptor)
    return None


def _write_whole(place: str, content: bytes) -> None:
    beside = f"{place}{UNFINISHED}"
    try:
        with _open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    except OSError:
        with suppress(OSError):  # what is told is why it was not written
            os.unlink(beside)
        raise


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_of(folder: str) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.name.endswith(SUFFIX))
    except FileNotFoundError:  # gone meanwhile
        return 0
