"""What goes out, and in which order: parcels, then signs of life, then what dead processes left.

Parcels of one process go out in the order of their seq, one at a time. One that was not taken goes to the
backlog, and everything newer behind it. Not locked: the worker's desk is. Only ``post`` waits.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from soulfra_monitor.intake import Intake
from soulfra_monitor.sender import Answer, Backoff, NoAnswerError, Sender
from soulfra_monitor.spool import Backlog, Lost, Orphan, Parcel, Spool

ERRORS = "/api/monitoring/errors"
BEATS_LIMIT = 100
COMPLAIN_EVERY = 60.0

MENDS = {
    401: "the token is wrong or missing: set SOULFRA_TOKEN",
    403: "the token may not send events: it needs the role ingest",
    404: "there is no remediator at this address: check SOULFRA_URL",
}
"""What people have to mend, by the status that says so. Until then everything is kept."""

UNKNOWN_BEAT = "it knows no such heartbeat: write it into heartbeats of its configuration"
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Beat:
    """One sign of life of a job."""

    path: str
    body: bytes


@dataclass(slots=True)
class Counts:
    """What became of requests."""

    batches: int = 0  # taken
    failures: int = 0  # requests that got no answer, or were asked to come again
    refused: int = 0  # batches
    adopted: int = 0  # batches of dead processes that were taken
    adopted_lost: int = 0
    beats_lost: int = 0
    last_failure: str = ""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What is under way: a parcel, of this process or of a dead one, or a sign of life."""

    path: str
    body: bytes
    packed: bool = False
    parcel: Parcel | None = None
    orphan: Orphan | None = None


Say = Callable[[str, str], None]
"""Logs: a level and a text."""


class Dispatch:
    """Holds everything that waits to be taken by the remediator."""

    def __init__(self, intake: Intake, sender: Sender, spool: Spool, say: Say, counts: Counts) -> None:
        self.backlog = Backlog(spool, intake.boot)
        self.counts = counts
        self.connected = True  # as far as is known
        self.retry_at = 0.0  # time.monotonic()
        self._intake = intake
        self._sender = sender
        self._spool = spool
        self._say = say
        self._backoff = Backoff()
        self._complained: dict[str, float] = {}
        self._fresh: Parcel | None = None
        self._beats: deque[Beat] = deque()
        self._orphans: deque[Orphan] = deque()

    @property
    def weight(self) -> int:
        """Errors that wait or are under way."""
        return self.backlog.weight + (self._fresh.weight if self._fresh else 0)

    @property
    def has_own(self) -> bool:
        """Whether something of this process waits."""
        return bool(self._fresh or self.backlog or self._beats)

    @property
    def has_any(self) -> bool:
        """Whether something waits, of whomever."""
        return self.has_own or bool(self._orphans)

    @property
    def takes_fresh(self) -> bool:
        """Whether a parcel made now would be sent now."""
        return self._fresh is None and not self.backlog and (self.connected or not self.has_any)

    def offer(self, parcel: Parcel) -> None:
        """Take a new parcel: to be sent next, or behind what waits."""
        if self.takes_fresh:
            self._fresh = parcel
        else:
            self._keep(parcel)

    def beat(self, beat: Beat) -> None:
        """Take a sign of life; the oldest has to go when there are too many."""
        if len(self._beats) >= BEATS_LIMIT:
            self._beats.popleft()
            self.counts.beats_lost += 1
        self._beats.append(beat)

    def adopt(self) -> None:
        """Look for what dead processes of this service left."""
        if not self._orphans:
            self._orphans.extend(self._spool.orphans(self._intake.boot))

    def next(self) -> Shipment | None:
        """Return what is to be sent next."""
        parcel, lost = self.backlog.first()
        self._count(lost)
        if parcel is not None:
            return _shipment(parcel)
        if self._fresh is not None:
            return _shipment(self._fresh)
        if self._beats:
            return Shipment(self._beats[0].path, self._beats[0].body)
        return self._next_orphan()

    def post(self, shipment: Shipment) -> Answer | NoAnswerError:
        """Send it and wait for the answer. Changes nothing here: ``settle`` does."""
        try:
            return self._sender.post(shipment.path, shipment.body, packed=shipment.packed)
        except NoAnswerError as error:
            return error

    def settle(self, shipment: Shipment, answer: Answer | NoAnswerError) -> bool:
        """Note what became of it. True when that is final: taken or refused."""
        if isinstance(answer, NoAnswerError):
            self._fail(str(answer), None)
            return False
        is_unknown = shipment.parcel is None and answer.status == _NOT_FOUND
        is_refused = answer.is_refused or is_unknown
        if not answer.is_taken and not is_refused:
            self._fail(MENDS.get(answer.status, f"status {answer.status}"), answer.retry_after)
            return False
        self._reached()
        if is_refused:
            why = UNKNOWN_BEAT if is_unknown else f"status {answer.status}"
            self._complain(f"the remediator refused what was sent: {why}")
        if shipment.parcel is None:
            self._beats.popleft()
            self.counts.beats_lost += is_refused
        elif shipment.orphan is not None:
            shipment.orphan.remove(shipment.parcel.seq)
            self.counts.adopted += answer.is_taken
            self.counts.adopted_lost += answer.is_refused
        else:
            self._settle_own(shipment.parcel, answer)
        return True

    def put_by(self) -> None:
        """Spool what was to be sent next: nobody may come to send it."""
        if self._fresh is not None:
            parcel, self._fresh = self._fresh, None
            self._keep(parcel)

    def release(self) -> None:
        """Let go of what dead processes left: somebody else may send it. Safe in a forked child."""
        for orphan in self._orphans:
            orphan.release()
        self._orphans.clear()

    def _next_orphan(self) -> Shipment | None:
        while self._orphans:
            parcel = self._orphans[0].first()
            if parcel is not None:
                return _shipment(parcel, self._orphans[0])
            orphan = self._orphans.popleft()
            self.counts.adopted_lost += orphan.lost
            orphan.close()
        return None

    def _settle_own(self, parcel: Parcel, answer: Answer) -> None:
        self._forget(parcel)
        if answer.is_taken:
            self.counts.batches += 1
            with self._intake.lock:
                self._intake.sent += parcel.weight
        else:
            self.counts.refused += 1
            self._count([Lost(parcel.weight, "refused", parcel.dropped)])

    def _forget(self, parcel: Parcel) -> None:
        if self._fresh is not None and self._fresh.seq == parcel.seq:
            self._fresh = None
        else:
            self.backlog.remove(parcel.seq)

    def _fail(self, why: str, retry_after: float | None) -> None:
        self.counts.failures += 1
        self.counts.last_failure = why
        is_mendable = why in MENDS.values()
        pause = self._backoff.pause(long=is_mendable)
        self.retry_at = time.monotonic() + max(pause, retry_after or 0.0)
        if self.connected or is_mendable:
            self.connected = False
            self._complain(f"errors are kept until they can be sent: {why}")
        self.put_by()

    def _complain(self, text: str) -> None:
        """Tell why something is not taken, once a minute for each reason: it may be so every time."""
        now = time.monotonic()
        if now - self._complained.get(text, float("-inf")) >= COMPLAIN_EVERY:
            self._complained[text] = now
            self._say("warning", text)

    def _reached(self) -> None:
        self._backoff.reset()
        self.retry_at = 0.0
        if not self.connected:
            self.connected = True
            self._say("info", "errors can be sent again")

    def _keep(self, parcel: Parcel) -> None:
        before = self.backlog.failure
        self._count(self.backlog.add(parcel))
        if self.backlog.failure and not before:
            self._say("warning", f"errors are kept in memory, not on disk: {self.backlog.failure}")

    def _count(self, lost: list[Lost]) -> None:
        """Count what was given up; what it would have told of drops is told again."""
        if lost:
            with self._intake.lock:
                for one in lost:
                    self._intake.drop(one.reason, one.weight)
                    self._intake.untold.update(one.dropped)


def _shipment(parcel: Parcel, orphan: Orphan | None = None) -> Shipment:
    return Shipment(ERRORS, parcel.body, parcel.packed, parcel, orphan)
