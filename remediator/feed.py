"""One line for people per thing that happens: alert, decision, run, outcome."""

import queue
import sys
import threading
from datetime import datetime
from functools import cache
from typing import Protocol

from soulfra_monitor.redaction import harmless, redact

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
            _write(f"({dropped} lines were dropped)\n{line}" if dropped else line)
            if self._lines.empty():
                self._idle.set()


@cache
def _printer() -> _Printer:
    return _Printer()


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):
        # Nobody reads the feed any more, or it cannot be kept; the store has all of it.
        return
