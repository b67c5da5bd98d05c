"""How many calls for people go out in a while: a storm of errors must not make a storm of messages.

In memory; at a start it is made up for from the errors in the store (``escalation.recall_calls``).
"""

from collections import deque
from threading import Lock

WINDOW = 600.0
"""Seconds that the limits are about."""

CALLS = 20
"""Calls in a window, whatever they are about."""

CALLS_BUT_CRITICAL = 15
"""Those of them that may be about less than critical errors of configured services."""

CALLS_OF_STRANGERS = 3
"""Those of them that may be about services nobody has configured, all of these together."""

SUMMARY_AFTER = 30.0
"""Seconds from the first call that was withheld to the summary, so that it has a number to tell."""


class CallLimit:
    """Says whether a call may go out, and counts those that may not. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: deque[tuple[float, bool]] = deque()  # when, and whether of a stranger
        self._withheld = 0
        self._summary_at = 0.0  # the earliest moment for the next

    def take(self, now: float, *, configured: bool, critical: bool) -> bool:
        """Return whether this call may go out; one that may not is counted for the summary."""
        with self._lock:
            while self._calls and self._calls[0][0] <= now - WINDOW:
                self._calls.popleft()
            strangers = sum(stranger for _, stranger in self._calls)
            most = CALLS if configured and critical else CALLS_BUT_CRITICAL
            if len(self._calls) < most and (configured or strangers < CALLS_OF_STRANGERS):
                self._calls.append((now, not configured))
                return True
            if not self._withheld:
                self._summary_at = max(self._summary_at, now + SUMMARY_AFTER)
            self._withheld += 1
            return False

    def withheld(self, now: float) -> int:
        """Return how many calls the summary that is due now has to tell of; 0 when none is due."""
        with self._lock:
            return self._withheld if now >= self._summary_at else 0

    def told(self, count: int, now: float) -> None:
        """Note that a summary of so many went out; the next one comes a window later."""
        with self._lock:
            self._withheld -= count
            self._summary_at = now + WINDOW
