"""One line for people per thing that happens: alert, decision, run, outcome."""

import logging
import queue
import sys
import threading
from datetime import datetime
from functools import cache
from typing import Protocol

from soulfra_monitor.redaction import harmless, redact

log = logging.getLogger(__name__)

_WAITING = 1000  # lines that wait for a slow reader before new ones are dropped


class Feed(Protocol):
    """Say one thing; never raises, never waits."""

    def __call__(self, kind: str, text: str) -> None: ...


def print_line(kind: str, text: str) -> None:
    """Print one line to standard output, by a thread of its own.

    A terminal that is stopped, a full disk or a closed pipe holds up nothing: what nobody reads is
    dropped, and the number of dropped lines is said when somebody reads again.
    """
    line = harmless(redact(" ".join(text.split())))
    _printer().put(f"{datetime.now().astimezone():%H:%M:%S}  {kind:<9} {line}\n")


def print_raw(text: str) -> None:
    """Pass on lines that another part of ours has made."""
    _printer().put(text)


def flush(seconds: float = 1.0) -> None:
    """Give what waits a last chance to be printed."""
    _printer().drain(seconds)


class _Printer:
    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue(_WAITING)
        self._dropped = 0
        self._idle = threading.Event()
        self._fails = False
        threading.Thread(target=self._work, name="feed", daemon=True).start()

    def put(self, line: str) -> None:
        self._idle.clear()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def drain(self, seconds: float) -> None:
        self._idle.wait(seconds)

    def _work(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            if not self._write(f"({dropped} lines were dropped)\n{line}" if dropped else line):
                self._dropped += dropped + 1
            if self._lines.empty():
                self._idle.set()

    def _write(self, text: str) -> bool:
        """Print it, and tell whether it is out; the store has all of it in any case."""
        before, self._fails = self._fails, True
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (BrokenPipeError, ValueError):  # nobody reads it any more, or it was closed
            return False
        except OSError as error:
            if not before:
                log.error("the feed cannot be printed, its lines are dropped: %s", error.strerror)  # noqa: TRY400
            return False
        self._fails = False
        return True


@cache
def _printer() -> _Printer:
    return _Printer()
