"""How much the library may do without costing more than its limit. Pure: costs and the time come in."""

from enum import IntEnum

WINDOW = 5.0
"""Seconds over which the cost is taken."""

CALM_WINDOWS = 3
"""Windows below half of the limit before a step is taken back: a limit must not flap."""


class Level(IntEnum):
    """What is done, most first."""

    FULL = 0
    NO_SWALLOWED = 1  # swallowed errors are counted as dropped, not looked at
    CHEAP = 2  # no causes, no context, no state of the system
    COUNTS = 3  # known errors are only counted; a new one is told cheaply


class Shedding:
    """Takes a step down when the cost of a window is above the limit, and back when it has long been low."""

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit  # share of one core
        self._began = now
        self._cost = 0.0
        self._calm = 0
        self.level = Level.FULL
        self.share = 0.0  # of one core, in the last window

    def spend(self, seconds: float) -> None:
        """Count CPU time that the library used."""
        self._cost += seconds

    def judge(self, now: float) -> Level:
        """Return the level that holds from now on."""
        passed = now - self._began
        if passed < WINDOW:
            return self.level
        self.share = self._cost / passed
        self._began, self._cost = now, 0.0
        if self.share > self._limit:
            self._calm = 0
            self.level = Level(min(self.level + 1, Level.COUNTS))
        elif self.share < self._limit / 2:
            self._calm += 1
            if self._calm >= CALM_WINDOWS and self.level:
                self._calm = 0
                self.level = Level(self.level - 1)
        else:
            self._calm = 0
        return self.level
