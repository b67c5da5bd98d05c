"""Starts the parts, keeps them running, and ends everything below this process."""

import http.client
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from psutil import Process

from remediator.feed import print_line
from remediator.stack import family
from remediator.stack.plan import Part
from remediator.stack.ports import host_and_port, reachable
from remediator.stack.waiting import Waiting

_FIRST_PAUSE = 0.5  # seconds before a part that ended is started again, doubled each time
_LONGEST_PAUSE = 30.0
_STEADY_AFTER = 60.0  # a part that ran this long starts again with the first pause
_TICK = 0.05


@dataclass(slots=True, kw_only=True)
class _Running:
    part: Part
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    pause: float = _FIRST_PAUSE
    start_at: float = field(default=0.0)  # when it ended: the time to start it again


class Supervisor:
    """Owns every process of a stack. Used by the main thread alone."""

    def __init__(self, *, waiting: Waiting, logs: Path, feed: Callable[[str], None]) -> None:
        self._waiting = waiting
        self._logs = logs
        self._feed = feed  # gets what parts say to people
        self._parts: dict[str, _Running] = {}
        self.once: dict[int, str] = {}  # what ``run_once`` started: process and name
        self._others: dict[int, subprocess.Popen[bytes]] = {}

    def keep(self, part: Part) -> None:
        """Start a part, and start it again whenever it ends. Raises OSError when it cannot be started."""
        self._parts[part.name] = running = _Running(part=part)
        self._start(running)

    def run_once(self, name: str, argv: Sequence[str], folder: Path) -> None:
        """Start something that ends with this process and is not started again. Raises OSError."""
        process = self._spawn(name, argv, stdout=None, folder=folder)
        self.watch(process)
        self.once[process.pid] = name

    def watch(self, process: "subprocess.Popen[bytes]") -> None:
        """Reap a process that somebody else started; nothing else is done about its end."""
        self._others[process.pid] = process

    def tick(self, seconds: float = _TICK) -> None:
        """Wait at most so long, take note of what ended, and start again what is due."""
        self._waiting.wait(min(seconds, self._next_start()))
        self._reap()
        if self._waiting.end_asked:
            return
        for running in self._parts.values():
            if running.process is None and time.monotonic() >= running.start_at:
                self._start_again(running)

    def until(self, ready: Callable[[], bool], deadline: float) -> bool:
        """Tick until *ready*; False when that takes until *deadline* or the end is asked for."""
        while not ready():
            if time.monotonic() >= deadline or self._waiting.end_asked:
                return False
            self.tick()
        return True

    def is_ready(self, part: Part) -> bool:
        """Whether the part runs and says that it can work."""
        running = self._parts[part.name]
        return running.process is not None and answers(part)

    def end(self, leaders: Iterable[int], grace: float) -> None:
        """End these and what belongs to their sessions."""
        wanted = list(leaders)
        family.end(lambda: family.of_sessions(wanted), grace, self._pause)

    def end_all_but(self, leaders: Iterable[int], grace: float) -> None:
        """End every process below this one, restarted services too, except the sessions of *leaders*."""
        spared = list(leaders)

        def others() -> list[Process]:
            kept = set(family.of_sessions(spared))
            return [process for process in family.descendants() if process not in kept]

        family.end(others, grace, self._pause)

    def pids(self, *parts: Part) -> list[int]:
        """Return the processes of those of these parts that run."""
        kept = [self._parts[part.name].process for part in parts if part.name in self._parts]
        return [process.pid for process in kept if process is not None]

    def _pause(self) -> bool:
        self._waiting.wait(_TICK)
        self._reap()
        return self._waiting.hurry

    def _next_start(self) -> float:
        waits = [r.start_at - time.monotonic() for r in self._parts.values() if r.process is None]
        return max(0.0, min(waits, default=_LONGEST_PAUSE))

    def _start(self, running: _Running) -> None:
        part = running.part
        stdout = subprocess.PIPE if part.feed else None
        running.process = self._spawn(part.name, part.argv, stdout=stdout, folder=None)
        running.started_at = time.monotonic()
        if running.process.stdout is not None:
            self._waiting.relay(running.process.stdout, self._feed)

    def _start_again(self, running: _Running) -> None:
        try:
            self._start(running)
        except OSError as error:
            self._ended(running, f"cannot be started: {error.strerror}")

    def _spawn(
        self, name: str, argv: Sequence[str], *, stdout: int | None, folder: Path | None
    ) -> "subprocess.Popen[bytes]":
        with (self._logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                cwd=folder,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
                preexec_fn=family.ending_with(os.getpid()),  # noqa: PLW1509 - the feed's thread holds nothing that prctl needs
            )

    def _reap(self) -> None:
        while (pid := family.dead_child()) is not None:
            running = next((r for r in self._parts.values() if r.process and r.process.pid == pid), None)
            if running is not None and running.process is not None:
                # A part lives as a whole or not at all: what it leaves behind would keep its port.
                family.kill_group(pid)
                status = running.process.wait()
                running.process = None
                self._ended(running, _how(status))
            elif pid in self._others:
                status = self._others.pop(pid).wait()
                if pid in self.once and not self._waiting.end_asked:
                    print_line("stack", f"{self.once[pid]} {_how(status)} and is not started again")
            else:
                os.waitpid(pid, 0)  # an orphan that we adopted

    def _ended(self, running: _Running, how: str) -> None:
        if self._waiting.end_asked:
            return
        now = time.monotonic()
        if now - running.started_at >= _STEADY_AFTER:
            running.pause = _FIRST_PAUSE
        running.start_at = now + running.pause
        log = self._logs / f"{running.part.name}.log"
        print_line(
            "stack", f"{running.part.name} {how}; starting it again in {running.pause:g} s (see {log})"
        )
        running.pause = min(running.pause * 2, _LONGEST_PAUSE)


def answers(part: Part) -> bool:
    """Whether the part's readiness endpoint answers 200 within a second."""
    host, port = host_and_port(reachable(part.address))
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", part.ready)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _how(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
