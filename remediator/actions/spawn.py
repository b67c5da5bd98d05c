"""Starts the process of a service, the same way for ``soulfra up`` and for a restart, and reaps it."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from remediator.actions import ActionError
from remediator.places import expand, log_of, place, record_of

if TYPE_CHECKING:
    from exporter.config import Restart, Service
    from remediator.config import RemediatorSection

log = logging.getLogger(__name__)

LOG_LIMIT = 10 * 1024 * 1024
"""A log larger than this is set aside as ``NAME.log.1`` when its service starts."""

_OUR_SECRETS = ("SOULFRA_TOKEN", "ERROR_WEBHOOK_URL")


class Children:
    """The processes we started, so that each is reaped and none stays a zombie. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._ended: dict[str, tuple[int, int]] = {}  # pid and return code of the last, by service

    def add(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Remember a process until it has ended."""
        with self._lock:
            self._started.append((name, process))

    def name_of(self, pid: int) -> str | None:
        """Return the service that the process was started for, if it is one of ours and not reaped."""
        with self._lock:
            return next((name for name, process in self._started if process.pid == pid), None)

    def code_of(self, name: str, pid: int) -> int | None:
        """Return how the process that was started for the service ended; None while nobody knows."""
        with self._lock:
            for started, process in self._started:
                if started == name and process.pid == pid:
                    return process.poll()
            last, code = self._ended.get(name, (None, None))
            return code if last == pid else None

    def reap(self) -> list[tuple[str, int, int]]:
        """Collect the processes that have ended: name, pid and return code. Never waits."""
        with self._lock:
            ended = [(name, process) for name, process in self._started if process.poll() is not None]
            self._started = [item for item in self._started if item not in ended]
            self._ended |= {name: (process.pid, process.returncode) for name, process in ended}
        return [(name, process.pid, process.returncode) for name, process in ended]


CHILDREN = Children()


def reap() -> list[tuple[str, int, int]]:
    """Collect the started processes that have ended: name, pid and return code. Call it often."""
    return CHILDREN.reap()


def start_service(
    name: str,
    service: "Service",
    *,
    config_folder: Path,
    data_folder: Path,
    withheld: frozenset[str] = frozenset(),
) -> subprocess.Popen[bytes]:
    """Start the service in a session of its own; it outlives us. It is registered for ``reap``.

    Raises ActionError with the place in the configuration and what to do about it.
    """
    restart = service.restart
    if restart is None:
        raise ActionError(f"services.{name} has no restart section", permanent=True)
    argv = program([expand(part, data_folder) for part in restart.command])
    folder = place(restart.cwd, config_folder, data_folder) if restart.cwd else config_folder.absolute()
    environment = child_environment(_expanded(restart, data_folder), withheld)
    log = log_of(name, service, config_folder, data_folder)
    with _opened(log, name) as output, _unblocked_signals():
        try:
            process = subprocess.Popen(
                argv,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise cannot_start(f"services.{name}.restart", argv[0], folder, error) from error
    CHILDREN.add(name, process)
    _record(name, process.pid, data_folder)
    return process


PYTHON = "{python}"


def program(argv: Sequence[str]) -> list[str]:
    """Return the argument list with ``{python}`` as its program meaning the Python that runs us."""
    return [sys.executable if argv[0] == PYTHON else argv[0], *argv[1:]]


def child_environment(more: Mapping[str, str], withheld: frozenset[str]) -> dict[str, str]:
    """Return our environment without our own secrets, and with what the configuration adds."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in withheld and not key.startswith(_OUR_SECRETS)
    }
    return {**kept, **more}


def secret_variables(section: "RemediatorSection") -> frozenset[str]:
    """Return the variables whose values are secrets of ours, as the configuration names them."""
    tokens = {token.env for token in section.tokens if token.env}
    return frozenset(tokens | {one.webhook_env for one in section.channels.values() if one.webhook_env})


def cannot_start(where: str, command: str, folder: Path, error: OSError) -> ActionError:
    """Explain why a program did not start, with its place in the configuration and the mend."""
    if not folder.is_dir():
        return ActionError(f"{where}.cwd: the folder {folder} does not exist; create it", permanent=True)
    if error.errno == errno.ENOENT:
        mend = "install it or write its full path"
        return ActionError(f"{where}.command: {command!r} was not found; {mend}", permanent=True)
    if error.errno == errno.EACCES:
        mend = "give it the right to execute (chmod +x)"
        return ActionError(f"{where}.command: {command!r} is not executable; {mend}", permanent=True)
    for_now = error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)
    return ActionError(f"{where}.command: {command!r}: {error.strerror}", permanent=not for_now)


def recorded_process(name: str, data_folder: Path) -> dict[str, float] | None:
    """Return pid and start time of the process last started for the service, if that is known.

    Raises ActionError when it cannot be read now: what nobody stops would run beside the next one.
    """
    record = record_of(name, data_folder)
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return {"pid": int(found["pid"]), "start_time": float(found["start_time"])}
    except FileNotFoundError:  # none was started from here
        return None
    except OSError as error:
        raise ActionError(f"{record} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        log.warning("%s is no record of a process, and is not gone by: %s", record, type(error).__name__)
        return None


def _expanded(restart: "Restart", data_folder: Path) -> dict[str, str]:
    return {key: expand(value, data_folder) for key, value in restart.env.items()}


@contextmanager
def _opened(log: Path, name: str) -> Iterator[int]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.is_file() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(f"{log.name}.1"))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ActionError(
            f"services.{name}.restart.log: {log} cannot be written: {error.strerror}", permanent=True
        ) from error
    try:
        yield output
    finally:
        os.close(output)


@contextmanager
def _unblocked_signals() -> Iterator[None]:
    """Start with no signal blocked: a child inherits the mask of the thread that starts it."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _record(name: str, pid: int, data_folder: Path) -> None:
    record = record_of(name, data_folder)
    with suppress(psutil.NoSuchProcess):
        known = {"pid": pid, "start_time": psutil.Process(pid).create_time()}
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            draft = record.with_name(f"{record.name}.new")
            draft.write_text(json.dumps(known), encoding="utf-8")
            draft.replace(record)  # whole or not at all
        except OSError as error:
            raise ActionError(f"{record} cannot be written: {error.strerror}") from error
