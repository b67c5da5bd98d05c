"""Listens for the Watchdog alert, which always fires: in its silence Prometheus or Alertmanager is dead.

Nobody else can tell, because what is dead tells nothing. Pure but for the times it is given.
"""

import threading
from enum import Enum


class Change(Enum):
    """What a look at the watchdog found new."""

    SILENT = "silent"
    BACK = "back"


class Watchdog:
    """Knows when the alert was last heard. Safe to use from several threads."""

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit  # seconds of silence that are too long
        self._begun = now
        self._told = False
        self._lock = threading.Lock()
        self.heard_at: float | None = None

    def hear(self, now: float) -> None:
        """Note that the alert came in."""
        with self._lock:
            self.heard_at = now

    def silent(self, now: float) -> bool:
        """Whether it has been silent for too long; it gets the same time after our own start."""
        return now - (self.heard_at or self._begun) > self._limit

    def look(self, now: float) -> Change | None:
        """Return what changed since the last look, once."""
        with self._lock:
            silent = self.silent(now)
            if silent is self._told:
                return None
            self._told = silent
            return Change.SILENT if silent else Change.BACK
