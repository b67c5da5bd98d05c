"""Which errors are told one by one, and which are only counted. Pure: the time comes in as an argument.

An error's *key* says what it is alike to. The first of a key is told at once; of the others a few, as its
bucket allows, and the rest is counted and comes out as ``count`` of a later one. Swallowed errors are normal
in many programs: of a site that swallows, the first is told, and then only that it does so more often than
it is used to.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from soulfra_monitor.events import Event

BURST = 5.0
REFILL = 0.1  # a second
"""Of one key: errors told at once, and after that."""

OVERALL_BURST = 100.0
OVERALL_REFILL = 10.0
NEW_BURST = 200.0
NEW_REFILL = 20.0
"""Of first ones of a key; above it they count as alike to others of their kind and type."""

KEYS_LIMIT = 500
IDLE_AFTER = 600.0  # seconds after which a key is forgotten, unless it is a site that swallows

WINDOW = 10.0  # seconds over which a site's rate is taken
LEARNING = 3  # windows before a rate is judged
WEIGHT = 0.2  # of the newest window in the usual rate
LEAST = 10.0  # swallowed errors in a window that may be unusual at all
FACTOR = 3.0  # times the usual rate


class Bucket:
    """Tokens that come back with time."""

    __slots__ = ("at", "burst", "refill", "tokens")

    def __init__(self, burst: float, refill: float, now: float) -> None:
        self.burst = self.tokens = burst
        self.refill = refill
        self.at = now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.refill)
        self.at = now
        if tokens < 1.0:
            self.tokens = tokens
            return False
        self.tokens = tokens - 1.0
        return True


class Site:
    """How often one place swallows errors, and how often it usually does."""

    __slots__ = ("count", "threshold", "told", "usual", "window", "windows")

    def __init__(self, now: float) -> None:
        self.window = int(now // WINDOW)
        self.windows = 0  # that are over
        self.count = 0  # in this window
        self.told = 0  # of those
        self.usual = 0.0  # errors in a window
        self.threshold = float("inf")

    def roll(self, now: float) -> int:
        """Begin a new window if it is time; return how many errors were in the old one and not told."""
        window = int(now // WINDOW)
        passed = window - self.window
        if passed <= 0:
            return 0
        untold = self.count - self.told
        weight = max(WEIGHT, 1.0 / (self.windows + 1))
        self.usual += weight * (self.count - self.usual)
        self.usual *= (1.0 - WEIGHT) ** min(passed - 1, 100)
        self.windows += passed
        self.window, self.count, self.told = window, 0, 0
        if self.windows >= LEARNING:
            self.threshold = max(LEAST, FACTOR * self.usual, self.usual + 6.0 * self.usual**0.5)
        return untold

    def is_unusual(self) -> bool:
        """Count one error; true when now is the time to tell. The next time is at twice as many."""
        self.count += 1
        if self.count <= self.threshold:
            return False
        self.threshold = 2.0 * self.count
        return True


class Entry:
    """What is known of the errors of one key."""

    __slots__ = ("bucket", "event", "last", "pending", "site", "waiting")

    def __init__(self, bucket: Bucket, site: Site | None, now: float) -> None:
        self.bucket = bucket
        self.site = site
        self.last = now
        self.pending = 0  # counted and not told
        self.waiting = 0  # sketches of it on their way to the worker
        self.event: Event | None = None  # the newest in full, which counts are told with


@dataclass(frozen=True, slots=True)
class Told:
    """Errors of one key that are to be told with the newest of them in full."""

    event: Event | None  # None: the only one was lost, and there is nothing to tell them with
    last: float
    count: int


class Admission:
    """Decides for each error. Not locked: callers are."""

    def __init__(self, now: float) -> None:
        self._entries: dict[Hashable, Entry] = {}
        self._overall = Bucket(OVERALL_BURST, OVERALL_REFILL, now)
        self._new = Bucket(NEW_BURST, NEW_REFILL, now)
        self._left: list[Entry] = []  # forgotten with errors that are still to be told
        self.usual = 0  # swallowed errors that nobody needs to hear of, since this was last read

    @property
    def pending(self) -> int:
        """Errors that are counted and not yet told."""
        return sum(entry.pending for entry in (*self._entries.values(), *self._left))

    def admit(
        self, key: Hashable, others: Hashable, now: float, *, swallowed: bool = False
    ) -> tuple[Entry, int]:
        """Take one error in; return its entry and how many are to be told with it, 0 for not now.

        *others* is the key that it counts under when there are too many new ones.
        """
        entry = self._entries.get(key)
        if entry is None:
            if self._new.take(now):
                return self._enter(key, now, swallowed=swallowed), 1
            entry = self._entries.get(others)
            if entry is None:
                return self._enter(others, now, swallowed=swallowed), 1
        entry.last = now
        if entry.site is not None:
            return entry, self._swallowed(entry, entry.site, now)
        entry.pending += 1
        if not (entry.bucket.take(now) and self._overall.take(now)):
            return entry, 0
        count, entry.pending = entry.pending, 0
        return entry, count

    def count(self, key: Hashable, others: Hashable, now: float) -> bool:
        """Take one error in if others of its key were told; false, and nothing changes, if none was."""
        entry = self._entries.get(key) or self._entries.get(others)
        if entry is None:
            return False
        entry.last = now
        entry.pending += 1
        return True

    def sweep(self, now: float) -> Iterator[Told]:
        """Give all that is counted, with the event that is to be told with it; forget what is long gone."""
        for entry in (*self._left, *self._entries.values()):
            if entry.site is not None:
                self._roll(entry, entry.site, now)
            elif entry.pending and not entry.waiting:
                yield Told(entry.event, entry.last, entry.pending)
                entry.pending = 0
        self._left = [entry for entry in self._left if entry.pending]
        idle = [
            key
            for key, entry in self._entries.items()
            if entry.site is None and not entry.pending and now - entry.last > IDLE_AFTER
        ]
        for key in idle:
            del self._entries[key]

    def _enter(self, key: Hashable, now: float, *, swallowed: bool) -> Entry:
        if len(self._entries) >= KEYS_LIMIT:
            gone = self._entries.pop(next(iter(self._entries)))
            if gone.site is not None:
                self.usual += gone.pending
                gone.pending = 0
            if gone.pending:
                self._left.append(gone)
        site = Site(now) if swallowed else None
        if site is not None:
            site.count = site.told = 1
        entry = self._entries[key] = Entry(Bucket(BURST - 1, REFILL, now), site, now)
        return entry

    def _swallowed(self, entry: Entry, site: Site, now: float) -> int:
        self._roll(entry, site, now)
        entry.pending += 1
        if not site.is_unusual():
            return 0
        site.told = site.count
        count, entry.pending = entry.pending, 0
        return count

    def _roll(self, entry: Entry, site: Site, now: float) -> None:
        untold = site.roll(now)
        if untold:
            self.usual += untold
            entry.pending = 0
