"""Look at a queue in Redis: how long, how old, and whether anything moves.

What a queue does not tell is left out rather than guessed: a list keeps no count of what was taken
from it, so how much was done comes from a counter of the workers, or from the group of a stream.
"""

import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from time import monotonic, time
from typing import Any

import hiredis

from exporter.kinds.queue import QueueProbe
from exporter.observation import Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.redis_peer import Peer, TooLargeError, reason_of, talk

ITEM_LIMIT = 256 * 1024
"""Bytes of the oldest item; to read the time in a larger one would hold the event loop."""
_MILLISECONDS_FROM = 1e11  # as seconds it would be the year 5138
_DIGITS = 19  # Redis counts no further
_WATCH = "watch"  # key of what is recalled

_LENGTH = Measure(name="queue_length", help="Items that wait.", labels=("queue",))
_PROCESSED = Measure(
    name="queue_processed", help="Items that were worked off.", type="counter", labels=("queue",)
)
_OLDEST = Measure(
    name="queue_oldest_item_timestamp_seconds",
    help="When the oldest item that waits was made; absent when the queue is empty or does not tell.",
    labels=("queue",),
)

Finding = tuple[Reason, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one look at a queue shows; None is what the queue does not tell."""

    length: int | None = None
    head: bytes | None = None  # tells the oldest item from another; None when nothing waits
    made: float | None = None  # when the oldest item was made
    processed: float | None = None


@dataclass(slots=True, kw_only=True)
class Watch:
    """Since when nothing has moved."""

    sight: Sight
    since: float  # monotonic
    looked: float  # monotonic, the last time


async def probe(config: QueueProbe, context: Context) -> Outcome:
    """Connect and look at the queue, once. Never raises: a failure is the outcome."""
    progress = context.progress()

    async def conversation(peer: Peer) -> Outcome:
        return await _look(peer, config, context, progress)

    started = monotonic()
    outcome = await guarded(talk(config, context, progress, conversation), progress, context.timeout)
    watch = context.recall.get(_WATCH)
    if watch is not None and watch.looked < started:
        # Who could not look cannot say that nothing moved meanwhile.
        del context.recall[_WATCH]
    return outcome


async def _look(peer: Peer, config: QueueProbe, context: Context, progress: Progress) -> Outcome:
    try:
        sight = await _SIGHTS[config.type](peer, config)
        processed = sight.processed if config.processed is None else await _count(peer, config)
    except hiredis.ReplyError as error:
        return progress.outcome(*_refusal(str(error), config))
    except TooLargeError:
        return progress.outcome(
            Reason.INTERNAL, f"the oldest item is larger than {ITEM_LIMIT} bytes, and is not looked at"
        )
    progress.reach("processing")
    sight = Sight(length=sight.length, head=sight.head, made=sight.made, processed=processed)
    progress.note("%s waiting, oldest of %s, %s worked off", sight.length, sight.made, sight.processed)
    idle = _idle(sight, context.recall, monotonic())
    progress.note("watched for %.0f s without a movement", idle)
    reason, detail = judge(config, sight, idle, time()) or (None, _told(sight))
    return progress.outcome(reason, detail, readings=tuple(_readings(config, sight)))


def _told(sight: Sight) -> str:
    if sight.head is None and not sight.length:
        return "is empty"
    return "some are waiting" if sight.length is None else f"{sight.length} waiting"


def _refusal(text: str, config: QueueProbe) -> Finding:
    if text.startswith("WRONGTYPE"):
        return Reason.QUERY, f"the key {config.key}, or that of its counter, is not of type {config.type}"
    return reason_of(text, Reason.QUERY)


def _readings(config: QueueProbe, sight: Sight) -> Iterator[Reading]:
    values = ((_LENGTH, sight.length), (_PROCESSED, sight.processed), (_OLDEST, sight.made))
    return (Reading(measure, value, (config.key,)) for measure, value in values if value is not None)


def judge(config: QueueProbe, sight: Sight, idle: float, now: float) -> Finding | None:
    """Hold a queue in which nothing has moved for *idle* seconds against its limits."""
    return _too_long(config, sight) or (None if sight.head is None else _waits(config, sight, idle, now))


def _too_long(config: QueueProbe, sight: Sight) -> Finding | None:
    if config.max_length is None:
        return None
    if sight.length is None:
        return Reason.INTERNAL, "the server does not tell how many wait, so max_length cannot be judged"
    if sight.length <= config.max_length:
        return None
    return Reason.LIMIT, f"{sight.length} waiting, allowed are {config.max_length}"


def _waits(config: QueueProbe, sight: Sight, idle: float, now: float) -> Finding | None:
    if config.max_age is not None:
        if sight.made is None:
            return Reason.INTERNAL, f"the oldest item has no time at {config.time}"
        if now - sight.made > config.max_age:
            return (
                Reason.LIMIT,
                f"the oldest waits for {now - sight.made:.0f} s, allowed: {config.max_age:g} s",
            )
    due = sight.made is None or sight.made <= now
    if config.stuck_after is not None and due and idle >= config.stuck_after:
        return Reason.STUCK, f"{_told(sight)} and nothing has moved for {idle:.0f} s"
    return None


def _idle(sight: Sight, recall: dict[str, Any], now: float) -> float:
    """Return for how long nothing has moved, of what was watched."""
    watch = recall.get(_WATCH)
    if watch is None or moved(watch.sight, sight):
        recall[_WATCH] = Watch(sight=sight, since=now, looked=now)
        return 0.0
    watch.sight, watch.looked = sight, now
    return float(now - watch.since)


def moved(before: Sight, after: Sight) -> bool:
    """Whether something was taken from the queue, or there was nothing to take."""
    if after.head is None or after.head != before.head or after.processed != before.processed:
        return True
    return before.length is not None and after.length is not None and after.length < before.length


async def _list(peer: Peer, config: QueueProbe) -> Sight:
    length = _whole(await peer.ask("LLEN", config.key))
    item = None
    if length:
        place = "0" if config.taken_from == "left" else "-1"
        item = _text(await peer.ask("LINDEX", config.key, place, limit=ITEM_LIMIT))
    made = None if item is None or config.time is None else time_in(item, config.time)
    return Sight(length=length, head=_mark(item), made=made)


async def _zset(peer: Peer, config: QueueProbe) -> Sight:
    length = _whole(await peer.ask("ZCARD", config.key))
    first = await peer.ask("ZRANGE", config.key, "0", "0", "WITHSCORES", limit=ITEM_LIMIT) if length else []
    if not first:  # taken between the two questions
        return Sight(length=length)
    item, score = (_text(part) for part in _several(first, 2))
    if item is None or score is None:
        raise hiredis.ProtocolError("a member without text or score")
    made = None
    if config.time is not None:
        made = seconds_of(score) if config.time == "score" else time_in(item, config.time)
    return Sight(length=length, head=_mark(item), made=made)


async def _stream(peer: Peer, config: QueueProbe) -> Sight:
    if config.group is None:
        length = _whole(await peer.ask("XLEN", config.key))
        return Sight(length=length, head=b"" if length else None, made=None)
    group = await _group(peer, config.key, config.group)
    if group is None:
        return Sight(length=0)
    pending = _whole(group.get("pending"))
    first = await _oldest_pending(peer, config.key, config.group) if pending else None
    if first is None:
        first = await _undelivered(peer, config.key, str(group.get("last-delivered-id")))
    # Redis 7 tells both; where it cannot know, after a deletion say, it says nil.
    lag, read = group.get("lag"), group.get("entries-read")
    return Sight(
        length=pending + lag if isinstance(lag, int) else None,
        head=first.encode() if first is not None else None,
        made=seconds_of(first.partition("-")[0]) if first is not None else None,
        processed=max(0, read - pending) if isinstance(read, int) else None,
    )


_SIGHTS: Mapping[str, Callable[[Peer, QueueProbe], Awaitable[Sight]]] = {
    "list": _list,
    "zset": _zset,
    "stream": _stream,
}


async def _group(peer: Peer, key: str, name: str) -> dict[Any, Any] | None:
    """Return what is told of the group *name*; None when there is no stream, that is nothing to do."""
    try:
        answer = await peer.ask("XINFO", "GROUPS", key)
    except hiredis.ReplyError as error:
        if "no such key" in str(error):
            return None
        raise
    if not isinstance(answer, list) or not all(isinstance(group, list) for group in answer):
        raise hiredis.ProtocolError("no list of groups")
    for pairs in answer:
        try:
            group = dict(zip(pairs[::2], pairs[1::2], strict=True))
        except (TypeError, ValueError) as error:
            raise hiredis.ProtocolError("a group is no list of names and values") from error
        if group.get("name") == name:
            return group
    raise hiredis.ReplyError(f"NOGROUP the stream has no consumer group {name}")


async def _oldest_pending(peer: Peer, key: str, group: str) -> str | None:
    """Return the id of the oldest entry that was delivered and not acknowledged."""
    summary = _several(await peer.ask("XPENDING", key, group), 4)
    return _text(summary[1])


async def _undelivered(peer: Peer, key: str, last: str) -> str | None:
    """Return the id of the first entry after *last*."""
    entries = await peer.ask("XRANGE", key, f"({last}", "+", "COUNT", "1", limit=ITEM_LIMIT)
    if entries == []:
        return None
    return _text(_several(_several(entries, 1)[0], 2)[0])


async def _count(peer: Peer, config: QueueProbe) -> float | None:
    """Return what the workers have counted; None when they have not begun, or count something else."""
    place = config.processed
    if place is None:
        return None
    words = ("GET", place.key) if place.field is None else ("HGET", place.key, place.field)
    text = _text(await peer.ask(*words))
    countable = text is not None and text.isdecimal() and text.isascii() and len(text) <= _DIGITS
    return float(text) if text is not None and countable else None


def time_in(item: str, path: str) -> float | None:
    """Return the time at the dotted *path* of a JSON item; None when there is none that can be read."""
    try:
        value = json.loads(item)
    except (ValueError, RecursionError):
        return None
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return None if isinstance(value, bool) else seconds_of(value)


def seconds_of(value: object) -> float | None:
    """Read epoch seconds, epoch milliseconds, or an ISO 8601 date (without a zone: UTC)."""
    try:
        number = float(value)  # type: ignore[arg-type] # what it cannot take it raises for
    except TypeError:
        return None
    except (ValueError, OverflowError):
        return _seconds_of_date(str(value)[:40])
    if not math.isfinite(number) or number < 0:
        return None
    return number / 1000 if number >= _MILLISECONDS_FROM else number


def _seconds_of_date(text: str) -> float | None:
    try:
        date = datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _mark(item: str | None) -> bytes | None:
    # What is recalled must be small, and an item is nobody's business.
    return None if item is None else sha256(item.encode(errors="surrogatepass")).digest()


def _whole(answer: object) -> int:
    if not isinstance(answer, int) or answer < 0:
        raise hiredis.ProtocolError("no number")
    return answer


def _text(answer: object) -> str | None:
    if answer is not None and not isinstance(answer, str):
        raise hiredis.ProtocolError("no text")
    return answer


def _several(answer: object, count: int) -> list[Any]:
    if not isinstance(answer, list) or len(answer) != count:
        raise hiredis.ProtocolError("a list of another length")
    return answer
