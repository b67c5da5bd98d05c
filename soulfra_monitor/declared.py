"""Numbers that an application knows about itself and declares: gauges and counters (cost, quality, drift)."""

import math
from collections.abc import Callable
from threading import RLock

from soulfra_monitor.events import Declared

# The locks are re-entrant because an object that is finalised meanwhile may count as well.

DECLARED_LIMIT = 100
"""Names of one process. Above it they are not taken: a name is no place for ids."""


class Gauge:
    """A number as it is now. ``set``, ``inc`` and ``dec`` never raise and never wait."""

    __slots__ = ("_changed", "_like", "_lock", "_value", "_wake")

    def __init__(self, like: Declared, wake: Callable[[], None]) -> None:
        self._like = like
        self._wake = wake
        self._value = like.value
        self._changed = False
        self._lock = RLock()

    def set(self, value: float) -> None:
        """Say what it is now. What is no finite number is not taken."""
        number = _finite(value)
        if number is not None:
            self._value = number
            self._changed = True
            self._wake()

    def inc(self, amount: float = 1.0) -> None:
        """Raise it by *amount*."""
        number = _finite(amount)
        if number is not None:
            with self._lock:
                self._value += number
                self._changed = True
            self._wake()

    def dec(self, amount: float = 1.0) -> None:
        """Lower it by *amount*."""
        number = _finite(amount)
        if number is not None:
            self.inc(-number)

    @property
    def value(self) -> float:
        """What it is now."""
        return self._value

    def take(self) -> Declared | None:
        """Return it as it is to be told, or None before it was first set."""
        return _with(self._like, self._value) if self._changed else None

    def after_fork(self) -> None:
        """Begin anew in a child process, which tells nothing until it sets it."""
        self._lock = RLock()
        self._changed = False

    def total(self) -> Declared:
        """Return it with its value since the process began."""
        return _with(self._like, self._value)


class Counter:
    """What only grows. ``inc`` never raises; negative amounts are not taken."""

    __slots__ = ("_like", "_lock", "_told", "_value", "_wake")

    def __init__(self, like: Declared, wake: Callable[[], None]) -> None:
        self._like = like
        self._wake = wake
        self._value = 0.0
        self._told = 0.0
        self._lock = RLock()

    def inc(self, amount: float = 1.0) -> None:
        """Raise it by *amount*."""
        number = _finite(amount)
        if number is not None and number >= 0:
            with self._lock:
                self._value += number
            self._wake()

    @property
    def value(self) -> float:
        """The sum since the process began."""
        return self._value

    def take(self) -> Declared | None:
        """Return what came to it since it was last taken, or None when nothing did."""
        with self._lock:
            added, self._told = self._value - self._told, self._value
        return _with(self._like, added) if added else None

    def after_fork(self) -> None:
        """Begin anew in a child process: what came before is the parent's to tell."""
        self._lock = RLock()
        self._told = self._value

    def total(self) -> Declared:
        """Return it with its sum since the process began."""
        return _with(self._like, self._value)


class Declarations:
    """All gauges and counters of a process. The same service and name give the same object."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._all: dict[tuple[str, str], Gauge | Counter] = {}
        self._lock = RLock()

    def gauge(self, like: Declared) -> Gauge:
        """Return the gauge of that service and name. Raises ValueError when that is a counter."""
        found = self._declare(like)
        if not isinstance(found, Gauge):
            raise ValueError(f"{like.name} is declared as a counter")  # noqa: TRY004 - the name is taken
        return found

    def counter(self, like: Declared) -> Counter:
        """Return the counter of that service and name. Raises ValueError when that is a gauge."""
        found = self._declare(like)
        if not isinstance(found, Counter):
            raise ValueError(f"{like.name} is declared as a gauge")  # noqa: TRY004 - the name is taken
        return found

    def take(self) -> tuple[Declared, ...]:
        """Return what there is to tell."""
        with self._lock:
            every = list(self._all.values())
        return tuple(told for one in every if (told := one.take()) is not None)

    def totals(self) -> tuple[Declared, ...]:
        """Return all of them with their values since the process began."""
        with self._lock:
            return tuple(one.total() for one in self._all.values())

    def after_fork(self) -> None:
        """Begin anew in a child process."""
        self._lock = RLock()
        for one in self._all.values():
            one.after_fork()

    def __len__(self) -> int:
        return len(self._all)

    def _declare(self, like: Declared) -> Gauge | Counter:
        with self._lock:
            found = self._all.get((like.service, like.name))
            if found is None:
                found = (Counter if like.counter else Gauge)(like, self._wake)
                if len(self._all) >= DECLARED_LIMIT:
                    raise ValueError(
                        f"more than {DECLARED_LIMIT} names are declared; a name must not hold ids"
                    )
                self._all[like.service, like.name] = found
            return found


def _with(like: Declared, value: float) -> Declared:
    return Declared(
        service=like.service,
        name=like.name,
        value=value,
        counter=like.counter,
        low=like.low,
        high=like.high,
        help=like.help,
    )


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
