"""A SQLite file that many threads use: opened safely, brought up to date, written in turn."""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remediator.store import StoreError
from remediator.store.sqlite_schema import MIGRATIONS

log = logging.getLogger(__name__)

BUSY_SECONDS = 5.0
"""How long a call waits for another writer before it gives up."""

ROOM = 4 * 1024 * 1024
"""Bytes that must be left on the file system: a post of events may need as many."""

WAL_LIMIT = 16 * 1024 * 1024
"""Bytes that the write-ahead log shrinks back to after a large transaction."""

CACHE_KIB = 512
"""Pages that each connection keeps. There is one per thread, and the operating system caches too."""

OnQuarantine = Callable[[Path, str], None]

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class _Handle:
    """A thread's connection. The lock keeps ``close`` from freeing what a read is using."""

    connection: sqlite3.Connection
    lock: threading.Lock


class Database:
    """The connections to one file: one per thread, closed together.

    Reads never wait for writes. Writers of this process wait on a lock, which wakes them at once where
    SQLite's own waiting sleeps and tries again; SQLite waits for other processes. Both at most BUSY_SECONDS.
    """

    def __init__(self, path: Path, on_quarantine: OnQuarantine | None) -> None:
        self.path = path
        self._process = os.getpid()
        self._local = threading.local()
        self._writing = threading.Lock()
        self._registry = threading.Lock()
        self._handles: dict[threading.Thread, _Handle] = {}
        self._closed = False
        _prepare(path, on_quarantine)

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one statement."""
        try:
            handle = self._handle()
            with handle.lock:
                return handle.connection.execute(sql, parameters).fetchall()
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise StoreError(f"{self.path}: cannot read: {error}") from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction that is committed at the end, or rolled back when anything is raised."""
        if not self._writing.acquire(timeout=BUSY_SECONDS):
            raise StoreError(f"{self.path}: another thread has been writing for {BUSY_SECONDS:g} s")
        try:
            with self._transaction() as connection:
                yield connection
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise StoreError(f"{self.path}: cannot write: {error}") from error
        finally:
            self._writing.release()

    def check_room(self) -> None:
        """Raise StoreError when the file system has less than ROOM left: the next large write would fail.

        A small write says nothing: it finds its place in the log that is there.
        """
        try:
            found = os.statvfs(self.path.parent)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be looked at: {error}") from error
        left = found.f_bavail * found.f_frsize
        if left < ROOM:
            raise StoreError(f"{self.path}: only {left // 1024} KiB are left on its file system")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._handle().connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                self._roll_back(connection)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            # Closing rolls back too, and the thread's next call begins with a fresh connection.
            log.warning("%s: rollback failed, the connection is dropped: %s", self.path, error)
            with self._registry:
                self._handles.pop(threading.current_thread(), None)
            del self._local.handle
            connection.close()

    def _handle(self) -> _Handle:
        if os.getpid() != self._process:
            raise StoreError(f"{self.path}: opened before a fork; open the store in the process that uses it")
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None or self._closed:
            handle = self._open_handle()
        return handle

    def _open_handle(self) -> _Handle:
        with self._registry:
            if self._closed:
                raise StoreError(f"{self.path}: the store is closed")
            for thread in [thread for thread in self._handles if not thread.is_alive()]:
                self._handles.pop(thread).connection.close()
            handle = _Handle(_connect(self.path), threading.Lock())
            self._handles[threading.current_thread()] = handle
        self._local.handle = handle
        return handle

    def close(self) -> None:
        """Close the connections of all threads, after what they are doing. Idempotent."""
        with self._writing, self._registry:
            self._closed = True
            for handle in self._handles.values():
                with handle.lock:
                    handle.connection.close()
            self._handles.clear()


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file as every thread uses it; transactions are begun and ended by hand."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(path: Path, on_quarantine: OnQuarantine | None) -> None:
    """Make the file usable: there, sound, private, in WAL mode, and of our version."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opening(path):
            damage = _damage(path)
            if damage:
                _quarantine(path, damage, on_quarantine)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            with closing(_connect(path)) as connection:
                _migrate(connection, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: cannot open the store: {error}") from error


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Keep other processes from opening the file meanwhile: two must not move or migrate it at once."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _damage(path: Path) -> str | None:
    """Say what is wrong with the file, if it is there and no sound database."""
    if not path.exists():
        return None
    # Read-only: closing an ordinary connection would empty the log into a damaged file, or delete it.
    address = path.resolve().as_uri() + "?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
            _refuse_newer(connection, path)
            answer: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        # The low byte is the kind of failure. A file that is locked or unreadable is not damaged.
        if error.sqlite_errorcode & 0xFF in _DAMAGED:
            return str(error)
        raise
    return None if answer == "ok" else answer


def _quarantine(path: Path, damage: str, on_quarantine: OnQuarantine | None) -> None:
    moved = _free_name(path, datetime.now(UTC))
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(moved.with_name(moved.name + suffix))
    log.error("%s is damaged (%s); moved to %s, beginning a new store", path, damage, moved)
    if on_quarantine is not None:
        on_quarantine(moved, damage)


def _free_name(path: Path, now: datetime) -> Path:
    moved = path.with_name(f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}")
    number = 1
    while moved.exists():
        number += 1
        moved = path.with_name(f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}.{number}")
    return moved


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} has schema version {version}, this program knows {len(MIGRATIONS)}: use a newer one"
        )


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Take the missing steps, each in a transaction of its own."""
    version = _version(connection)
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{path} is a database of something else")
    connection.execute("PRAGMA journal_mode = WAL")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error as error:
            raise StoreError(f"{path}: cannot migrate to schema version {number}: {error}") from error
