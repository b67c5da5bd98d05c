"""Failures of our own on the log. A store that is full fails at every look, and says so once a minute."""

import logging
import sys
import time
from threading import Lock

from remediator.store import StoreError

EVERY = 60.0
"""Seconds between two lines about the store from one place."""


class Complaints:
    """Writes what failed. Safe for several threads."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = Lock()
        self._silent_until: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def say(self, place: str, message: str) -> None:
        """Write a failure of *place*, from its handler: with a traceback, but shortly for the store."""
        failure = sys.exc_info()[1]
        if not isinstance(failure, StoreError):
            self._log.error(message, exc_info=True)
            return
        now = time.monotonic()
        with self._lock:
            if now < self._silent_until.get(place, 0.0):
                self._left_out[place] = self._left_out.get(place, 0) + 1
                return
            self._silent_until[place] = now + EVERY
            left_out = self._left_out.pop(place, 0)
        more = f" ({left_out} more like this in the last minute)" if left_out else ""
        self._log.error("%s: %s%s", message, failure, more)
