"""What is left of a process that ended without saying goodbye, for its parent or its next start to read.

A life has one small file: who it is, and what ``faulthandler`` writes into it when the process dies of a
fatal signal. The file is locked while the process, or one forked from it, lives, and removed when it says
goodbye. So a file that nobody locks is a life that ended otherwise: killed, crashed, or gone with the
machine. Whoever locks it then tells of it, once.

A request to stop (SIGTERM, SIGHUP) that ends the process is no such end: the dump says that it came, and
nobody is told.
"""

import atexit
import faulthandler
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from soulfra_monitor import spool
from soulfra_monitor.descriptors import move_up
from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact, Reporter, Undo
from soulfra_monitor.hooks.pulse import pulse
from soulfra_monitor.settings import Settings, read

FOLDER = ".lives"
SUFFIX = ".life"
FILES_LIMIT = 100
"""Lives whose files are kept in a folder; above it the oldest dead ones go."""

TAIL = 16_384
"""Bytes of a dump that are told."""

FORGET_AFTER = 7 * 86400.0
"""Seconds after which nobody wants to know."""

BYE, BACK = "bye", "back"
"""Notes: this life has come to its end; it has not, after all."""

LEFT = "left"
"""A note: errors of this life are in the spool, and it has no means to send them any more."""

FATAL = "Fatal Python error: "
_STOPPED = "Stack (most recent call first)"  # how a dump begins that is not of a fatal error
_NOTE = "soulfra: "
_STOPS = ("SIGTERM", "SIGHUP")
_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
}
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_PLACE = "crashes"

Broke = spool.Broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What a file says of one process."""

    pid: int = 0
    service: str = ""
    started: float = 0.0  # epoch seconds
    machine: str = ""  # which start of the machine
    notes: tuple[str, ...] = ()
    dump: str = ""  # what faulthandler wrote

    @property
    def said_goodbye(self) -> bool:
        """Whether the program ran to its end, whatever its exit status, or became another."""
        last = [note for note in self.notes if note in (BYE, BACK)][-1:]
        return last == [BYE]

    @property
    def told(self) -> bool:
        """Whether the process itself has told why it ended."""
        return "told" in self.notes

    @property
    def left_errors(self) -> bool:
        """Whether it has left errors in the spool for others to send."""
        return LEFT in self.notes

    @property
    def crash(self) -> str:
        """What kind of crash it was, as faulthandler names it; nothing if it was none."""
        _, found, rest = self.dump.partition(FATAL)
        return rest.splitlines()[0] if found and rest else ""

    @property
    def was_stopped(self) -> bool:
        """Whether somebody asked it to stop, by a signal that it did not handle."""
        return not self.crash and _STOPPED in self.dump


@dataclass(slots=True)
class Record:
    """The file of this process. It stays open to the end: faulthandler may write until then."""

    path: str
    fd: int
    owner: int  # the process that made it; those forked from it share it
    read: int  # bytes of it that have been looked at
    broke: Broke  # is told of what fails
    kept: bool = False  # a parent reads and removes it
    ended: bool = False
    closed: bool = False  # it can be read no more

    def note(self, text: str) -> None:
        """Add a line for whoever reads the file. Never raises."""
        try:
            os.write(self.fd, f"{_NOTE}{text}\n".encode())
        except OSError as error:
            self.broke(_PLACE, error)

    def leave_errors(self) -> None:
        """Say that somebody else has to send what is in the spool, if it is this process's."""
        if self.kept and os.getpid() == self.owner:
            self.note(LEFT)

    def step_aside(self) -> None:
        """Say that this process is about to become another program."""
        if not self.ended and self._is_mine():
            self.note(BYE)

    def come_back(self) -> None:
        """Say that it has not become one."""
        if not self.ended and self._is_mine():
            self.note(BACK)

    def goodbye(self) -> None:
        """Say that this process has run to its end. Twice is once."""
        if self.ended or not self._is_mine():
            return
        self.ended = True
        self.leave_stops()
        if self.kept or not self._remove():
            self.note(BYE)

    def _remove(self) -> bool:
        """Remove the file; False when this process may not, as one that has given up its rights."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:  # that was the aim
            return True
        except OSError:
            return False
        return True

    def news(self) -> str:
        """Return what has been written since the last look: a forked process has crashed."""
        if self.ended or self.closed or os.getpid() != self.owner:
            return ""
        try:
            size = os.fstat(self.fd).st_size
            if size > self.read:
                text = os.pread(self.fd, min(size - self.read, TAIL), self.read).decode(errors="replace")
                self.read = size
                return text
        except OSError as error:  # the program closes all files that it does not know
            self.closed = True
            self.broke(_PLACE, error)
        return ""

    def enable(self) -> None:
        """Have fatal errors written into the file, unless the program has them written elsewhere."""
        global _enabled  # noqa: PLW0603 - of the process, as faulthandler itself
        if _enabled or not faulthandler.is_enabled():
            faulthandler.enable(file=self.fd, all_threads=True)
            _enabled = True

    def take_stops(self) -> None:
        """Have requests to stop that nobody handles written into the file."""
        if self.ended or os.getpid() != self.owner:
            return
        for number in _unhandled():
            faulthandler.register(number, file=self.fd, all_threads=False, chain=True)

    def leave_stops(self) -> None:
        """Have them no longer written. Those that the program handles by now are its own."""
        for number in _unhandled():
            faulthandler.unregister(number)

    def _is_mine(self) -> bool:
        """Whether this process made the file, or outlives the one that did: a daemon."""
        return os.getpid() == self.owner or not _is_alive(self.owner)


def _unhandled() -> list[int]:
    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]


_enabled = False  # faulthandler was enabled by us
_current: Record | None = None


def install(reporter: Reporter) -> Undo:
    """Tell of lives of this service that ended without goodbye, and begin the file of this one.

    Returns what says goodbye; the program's end does so as well. A second time does nothing.
    """
    global _current  # noqa: PLW0603 - one life per process
    if _current is not None and not _current.ended:
        return _nothing
    settings = getattr(reporter, "settings", None) or read({})
    before = _current
    try:
        folder = place(settings)
        for life in sweep(folder, reporter.broke):
            _tell(reporter, life)
        record = _current = begin(folder, settings.service, reporter.broke)
    except (OSError, RuntimeError, ValueError) as error:  # the last two are faulthandler's
        reporter.broke(_PLACE, error)
        return _nothing
    if before is not None and before.owner == record.owner:
        os.close(before.fd)  # faulthandler writes to the new one now
    atexit.register(record.goodbye)
    stop_looking = pulse.add(lambda _: look(reporter), reporter)

    def undo() -> None:
        stop_looking()
        atexit.unregister(record.goodbye)
        record.goodbye()

    return undo


def place(settings: Settings) -> str:
    """Return the folder of the lives of a service, beside its spool. Raises OSError where none can be."""
    refused: OSError | None = None
    for folder in [settings.spool] if settings.spool else spool._default_folders():  # noqa: SLF001
        root = os.path.join(folder, settings.service)
        try:
            os.makedirs(root, _FOLDER_MODE, exist_ok=True)
            if spool._is_private(root):  # noqa: SLF001
                return os.path.join(root, FOLDER)
        except OSError as error:
            refused = error
    raise refused or PermissionError("there is no folder that only this user can read and write")


def current() -> Record | None:
    """Return the file of this process, if it has one."""
    return _current


def look(reporter: Reporter) -> None:
    """Tell of a process that was forked from this one and has crashed since the last look."""
    news = _current.news() if _current is not None else ""
    if FATAL in news:
        life = Life(dump=news)
        reporter.noted(
            Kind.CHILD,
            f"a forked process crashed: {life.crash}",
            facts=_facts(life),
            context={"crash": life.dump},
        )


def begin(folder: str, service: str, broke: Broke) -> Record:
    """Make the file of this process. Raises OSError where the disk takes none, and what faulthandler does."""
    path = os.path.join(folder, f"{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}")
    head = f"pid {os.getpid()}\nservice {service}\nstarted {time.time():.3f}\nmachine {machine()}\n\n"
    os.makedirs(folder, _FOLDER_MODE, exist_ok=True)
    _bound(folder)
    fd = move_up(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _FILE_MODE))
    record = Record(path, fd, os.getpid(), 0, broke)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        record.read = os.write(fd, head.encode())
        record.enable()
        record.take_stops()
    except (OSError, RuntimeError, ValueError):
        record.goodbye()
        os.close(fd)
        raise
    return record


def sweep(folder: str, broke: Broke) -> Iterator[Life]:
    """Take away what dead processes left, and give what is worth telling. What fails leaves the others."""
    for path in _files(folder):
        try:
            life = _claim(path)
        except OSError as error:
            broke(_PLACE, error)
            continue
        if life is not None and _is_news(life):
            yield life


def take(path: str) -> Life | None:
    """Take away and return what a dead process left, whatever it says; None if nothing. Raises OSError."""
    return _claim(path, even_locked=True)


def machine() -> str:
    """Return which start of the machine this is; nothing where nobody knows."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def parse(text: str) -> Life:
    """Read a file. What it does not say is empty."""
    head, _, rest = text.partition("\n\n")
    says = dict(line.split(" ", 1) for line in head.splitlines() if " " in line)
    lines = rest.splitlines()
    return Life(
        pid=int(says.get("pid", "0")) if says.get("pid", "0").isdigit() else 0,
        service=says.get("service", ""),
        started=_number(says.get("started", "")),
        machine=says.get("machine", ""),
        notes=tuple(line.removeprefix(_NOTE) for line in lines if line.startswith(_NOTE)),
        dump="\n".join(line for line in lines if not line.startswith(_NOTE)).strip()[:TAIL],
    )


def _nothing() -> None:
    """Undo nothing."""


def _before_fork() -> None:
    if _current is not None:
        _current.leave_stops()


def _after_fork_in_parent() -> None:
    if _current is not None:
        _current.take_stops()


if hasattr(os, "register_at_fork"):
    # A forked process that is asked to stop must not write it here: that is not the end of this life.
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)


def _tell(reporter: Reporter, life: Life) -> None:
    here = machine()
    if life.crash:
        why = f"crashed: {life.crash}"
    elif life.machine and here and life.machine != here:
        why = "ended when the machine stopped"
    else:
        why = "ended without saying goodbye: killed, or left by os._exit"
    reporter.noted(
        Kind.EXIT,
        f"an earlier process {why}",
        facts=_facts(life),
        context={"pid": life.pid, "started": life.started, "crash": life.dump},
    )


def _facts(life: Life) -> dict[str, Fact]:
    name = next((name for text, name in _SIGNALS.items() if life.crash.startswith(text)), "")
    return {"signal": name} if name else {}


def _is_news(life: Life) -> bool:
    if life.said_goodbye or life.told or life.was_stopped:
        return False
    return 0.0 <= time.time() - life.started < FORGET_AFTER


def _claim(path: str, *, even_locked: bool = False) -> Life | None:
    """Read and remove the file of a dead process; None if it lives, or somebody else was faster."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if not _lock(fd) and not even_locked:
            return None
        if os.fstat(fd).st_nlink == 0:
            return None
        text = os.pread(fd, TAIL * 4, 0).decode(errors="replace")
        os.unlink(path)
        return parse(text)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # held by who lives
        return False
    return True


def _files(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:  # nobody lived here yet
        return []
    return [os.path.join(folder, name) for name in names if name.endswith(SUFFIX)]


def _bound(folder: str) -> None:
    """Remove the oldest files of the dead above the limit."""
    excess = len(_files(folder)) - FILES_LIMIT + 1
    if excess <= 0:
        return
    for path in sorted(_files(folder), key=_age):
        if excess > 0 and _claim(path) is not None:
            excess -= 1


def _age(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:  # gone meanwhile
        return 0.0


def _is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):  # gone, or gone while it was read
        return False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
