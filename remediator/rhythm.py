"""How often events of a fingerprint come in, and usually do: what makes the same error worse today.

In memory and bounded; after a start nothing counts as unusual until there was time to learn what is usual.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from remediator.signals import Admission
from soulfra_monitor.classify import History

KEPT = 2000
"""Fingerprints that are remembered, those that came last."""

RECENT = 5
"""Minutes that count as now."""

BEFORE = 55
"""Minutes before those, in which is seen what is usual."""

LEARNING = 900.0
"""Seconds after a start in which nothing is unusual."""

_MINUTE = 60.0


@dataclass(slots=True)
class _Print:
    """What is known of one fingerprint of one service."""

    minutes: dict[int, int] = field(default_factory=dict)  # events by epoch minute
    recovery_failed: bool = False


class Rhythm:
    """Remembers what came in. Safe for several threads."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._prints: OrderedDict[tuple[str, str], _Print] = OrderedDict()
        self._lock = Lock()

    def history(self, service: str, fingerprint: str, count: int, now: float) -> History:
        """Return what is known of events like these *count* that come in now, themselves among the recent."""
        minute = int(now // _MINUTE)
        with self._lock:
            known = self._prints.get((service, fingerprint)) or _Print()
            if now - self._began < LEARNING:
                return History(recovery_failed=known.recovery_failed)
            recent = sum(times for at, times in known.minutes.items() if at > minute - RECENT)
            before = sum(
                times
                for at, times in known.minutes.items()
                if minute - RECENT - BEFORE < at <= minute - RECENT
            )
            return History(
                recent=recent + count,
                usual=round(before * RECENT / BEFORE, 1),
                recovery_failed=known.recovery_failed,
            )

    def note(self, admission: Admission) -> None:
        """Remember an event that was taken."""
        signal, error = admission.signal, admission.error
        minute = int(signal.received_at // _MINUTE)
        with self._lock:
            known = self._prints.setdefault((signal.target, signal.fingerprint), _Print())
            self._prints.move_to_end((signal.target, signal.fingerprint))
            known.minutes[minute] = known.minutes.get(minute, 0) + signal.count
            for old in [at for at in known.minutes if at <= minute - RECENT - BEFORE]:
                del known.minutes[old]
            known.recovery_failed = error is not None and error.attempts > 0 and error.recovered_by is None
            if len(self._prints) > KEPT:
                self._prints.popitem(last=False)
