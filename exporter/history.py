"""What on-demand probes saw last; failures are kept when successes have long pushed them out."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One on-demand probe."""

    number: int
    at: float
    seconds: float
    module: str  # empty for a configured service
    target: str
    reason: str  # empty: it succeeded
    tell: Callable[[], str]  # writes its debug output, which few want to see


@dataclass(slots=True)
class History:
    """The last ``KEPT`` probes, and the last failures before those."""

    recent: deque[Past] = field(default_factory=deque)
    failed: deque[Past] = field(default_factory=lambda: deque(maxlen=KEPT))
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def add(
        self, *, at: float, seconds: float, module: str, target: str, reason: str, tell: Callable[[], str]
    ) -> None:
        """Keep a probe; the oldest success is forgotten, the oldest failure stays a while."""
        past = Past(
            number=next(self._numbers),
            at=at,
            seconds=seconds,
            module=module,
            target=target,
            reason=reason,
            tell=tell,
        )
        self.recent.append(past)
        if len(self.recent) > KEPT:
            oldest = self.recent.popleft()
            if oldest.reason:
                self.failed.append(oldest)

    def newest_first(self) -> list[Past]:
        """Return everything that is kept."""
        return [*reversed(self.recent), *reversed(self.failed)]

    def find(self, number: int) -> Past | None:
        """Return the probe of that number, if it is still kept."""
        return next((past for past in self.newest_first() if past.number == number), None)
