"""How much somebody may send: token buckets by name, bounded in number. Pure: the clock is an argument."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

NAMES_LIMIT = 10_000
"""Names remembered at once; whoever was silent for longest is forgotten, and begins with a full bucket."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rates:
    """Lets each name have so much a second on average, and so much at once. Safe for several threads."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = Lock()

    def take(self, name: str, amount: int, now: float) -> float:
        """Take *amount* for *name* at *now* (seconds, of a clock that never goes back).

        Return 0.0 when it was taken, else, with nothing taken, the seconds until it can be. More than a
        whole bucket is taken from a full one: what is asked for in one piece can come at some time.
        """
        wanted = min(amount, self.burst)
        with self._lock:
            bucket = self._filled(name, now)
            if bucket.left >= wanted:
                bucket.left -= wanted
                return 0.0
            return (wanted - bucket.left) / self.per_second

    def left(self, name: str, now: float) -> int:
        """Return how much *name* may have at once at *now*."""
        with self._lock:
            return int(self._filled(name, now).left)

    def _filled(self, name: str, now: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self.burst, now)
            if len(self._buckets) > NAMES_LIMIT:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        bucket.left = min(self.burst, bucket.left + max(0.0, now - bucket.at) * self.per_second)
        bucket.at = now
        return bucket
