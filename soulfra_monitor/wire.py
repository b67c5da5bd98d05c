"""Events and batches as JSON-able values, and back.

What is read comes from strangers. A wrong type is refused with its place and the mend; what is merely too
long is cut; unknown keys are ignored. Every part is bounded, so that reading takes a time that the size of
the body bounds. Texts are cut far above what is kept of them, because a secret cut in two is known by
nothing: ``redaction.redact_event`` masks first and cuts to what is kept afterwards.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from hashlib import blake2b
from typing import Any, TypeVar

from soulfra_monitor.events import (
    BOUNDS,
    CHAIN_LIMIT,
    FRAMES_LIMIT,
    Batch,
    Calls,
    Declared,
    Event,
    EventError,
    Frame,
    Kind,
    Raised,
    Relation,
    Sender,
)

READ_LIMIT = 16384
"""Characters read of a message or of a text in context, system, facts and notes."""

NAME_LIMIT = 512
"""Characters read of names: services, types, functions, files, releases."""

EVENTS_LIMIT = 1000
CALLS_LIMIT = 10_000
DECLARED_LIMIT = 1000
FACTS_LIMIT = 32
NOTES_LIMIT = 8
REASONS_LIMIT = 32
DEPTH_LIMIT = 8
WIDTH_LIMIT = 100
ITEMS_LIMIT = 2000
"""Values of any kind read of one context or system."""

COUNT_LIMIT = 10**12
ALIKE_LIMIT = 10**9
"""Alike errors that one event may stand for: a storm of hours. More is no count but a mistake."""

LATEST = 32_503_680_000.0  # the year 3000: what is later is in milliseconds
LARGEST = 2**63 - 1
CUT = "…"

_ID_DIGITS = 32
_HEXADECIMAL = frozenset("0123456789abcdef")

Choice = TypeVar("Choice", bound=StrEnum)
Part = TypeVar("Part")


def write_event(event: Event) -> dict[str, Any]:
    """Return *event* key by key, without what is as it is by default."""
    return _object(event)


def write_batch(batch: Batch) -> dict[str, Any]:
    """Return *batch* key by key, without what is as it is by default."""
    return _object(batch)


def read_event(value: Any, *, now: float, place: str = "event") -> Event:
    """Read one event from parsed JSON. ``{"service": ..., "message": ...}`` is enough.

    *now* (epoch seconds) stands for a missing ``at``. A missing id is made; one in another form than ours
    becomes the same one of our form each time. Raises EventError, and nothing else.
    """
    read = _Reader.of(value, place)
    raised = read.several("raised", _raised, CHAIN_LIMIT)
    message = read.text("message", READ_LIMIT)
    if not message and raised:
        message = ": ".join(part for part in (raised[0].type, raised[0].message) if part)
    if not message:
        raise EventError(f"{read.at('message')}: is missing; say what went wrong")
    return Event(
        id=_id(read, "id"),
        at=_time(read, now),
        kind=read.choice("kind", Kind, Kind.REPORTED),
        service=read.name("service"),
        message=message,
        raised=raised,
        handled=read.flag("handled"),
        count=min(ALIKE_LIMIT, read.count("count", least=1, default=1)),
        facts=_facts(read),
        context=read.json("context"),
        system=read.json("system"),
        release=read.text("release"),
        severity=read.text("severity"),
        problem=read.text("problem"),
        fingerprint=read.text("fingerprint"),
    )


def read_batch(value: Any, *, now: float, place: str = "") -> Batch:
    """Read a batch from parsed JSON.

    Without a ``sender`` it is from a process of its own, and no repetition of it is recognised. Raises
    EventError, and nothing else; more parts than the limits allow are refused, never dropped.
    """
    read = _Reader.of(value, place)
    sender = _sender(read.inner("sender"))
    return Batch(
        sender=sender,
        seq=read.count("seq", least=1, default=1 if "sender" not in read.value else None),
        events=read.every(
            "events", lambda item: read_event(item.value, now=now, place=item.place), EVENTS_LIMIT
        ),
        calls=read.every("calls", _calls, CALLS_LIMIT),
        declared=read.every("declared", _declared, DECLARED_LIMIT),
        dropped=_dropped(read),
        shedding=read.flag("shedding"),
    )


def read_body(value: Any, *, now: float) -> Event | Batch:
    """Read what a client posted: a batch if it has a batch's parts, else one event."""
    if isinstance(value, Mapping) and not _BATCH_PARTS.isdisjoint(value):
        return read_batch(value, now=now)
    return read_event(value, now=now)


_BATCH_PARTS = frozenset({"events", "calls", "declared", "sender"})


@dataclass(frozen=True, slots=True)
class _Reader:
    """An object of the JSON and the place where it stands."""

    value: Mapping[Any, Any]
    place: str

    @classmethod
    def of(cls, value: Any, place: str) -> "_Reader":
        if not isinstance(value, Mapping):
            raise EventError(f"{place or 'body'}: must be an object")
        return cls(value, place)

    def at(self, key: str) -> str:
        key = _clean(key, NAME_LIMIT)
        return f"{self.place}.{key}" if self.place else key

    def text(self, key: str, limit: int = NAME_LIMIT) -> str:
        value = self.value.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise EventError(f"{self.at(key)}: must be a text")
        return _clean(value, limit)

    def name(self, key: str) -> str:
        text = self.text(key).strip()
        if not text:
            raise EventError(f"{self.at(key)}: is missing; give a text")
        return text

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise EventError(f"{self.at(key)}: must be true or false")
        return value

    def count(self, key: str, *, least: int = 0, default: int | None = 0) -> int:
        value = self.value.get(key)
        return _whole(default if value is None else value, self.at(key), least)

    def number(self, key: str) -> float | None:
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise EventError(f"{self.at(key)}: must be a finite number")
        return float(value)

    def choice(self, key: str, choices: type[Choice], default: Choice) -> Choice:
        text = self.text(key)
        if not text:
            return default
        if text not in choices._value2member_map_:
            raise EventError(f"{self.at(key)}: must be one of {', '.join(choices)}")
        return choices(text)

    def inner(self, key: str) -> "_Reader":
        value = self.value.get(key)
        return _Reader.of({} if value is None else value, self.at(key))

    def items(self, key: str) -> list[Any] | tuple[Any, ...]:
        value = self.value.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise EventError(f"{self.at(key)}: must be a list")
        return value

    def several(self, key: str, read: Callable[["_Reader"], Part], limit: int) -> tuple[Part, ...]:
        """Read a list of objects; above *limit* half of them from each end."""
        items = self.items(key)
        kept = list(range(len(items)))
        if len(items) > limit:
            kept = kept[: limit - limit // 2] + kept[len(items) - limit // 2 :]
        return tuple(read(_Reader.of(items[index], f"{self.at(key)}[{index}]")) for index in kept)

    def every(self, key: str, read: Callable[["_Reader"], Part], limit: int) -> tuple[Part, ...]:
        """Read a list of objects, all of them."""
        if len(self.items(key)) > limit:
            raise EventError(f"{self.at(key)}: has more than {limit} parts; send several batches")
        return self.several(key, read, limit)

    def json(self, key: str) -> dict[str, Any]:
        """Read an object of whatever JSON, cut where it is too deep, too wide or too much."""
        return dict(_Json(ITEMS_LIMIT).object(self.inner(key).value, 1))


class _Json:
    """Copies JSON within bounds of depth, width and number of values."""

    def __init__(self, left: int) -> None:
        self._left = left

    def object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if len(kept) >= WIDTH_LIMIT or self._left <= 0:
                kept[CUT] = f"{len(value) - len(kept)} more"
                break
            kept[_clean(key if isinstance(key, str) else str(_scalar(key)), NAME_LIMIT)] = self._any(
                item, depth
            )
        return kept

    def _list(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        kept: list[Any] = []
        for item in value:
            if len(kept) >= WIDTH_LIMIT or self._left <= 0:
                kept.append(f"{CUT} {len(value) - len(kept)} more")
                break
            kept.append(self._any(item, depth))
        return kept

    def _any(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if isinstance(value, Mapping | list | tuple) and depth >= DEPTH_LIMIT:
            return CUT
        if isinstance(value, Mapping):
            return self.object(value, depth + 1)
        if isinstance(value, list | tuple):
            return self._list(value, depth + 1)
        return _scalar(value)


def _scalar(value: Any) -> str | int | float | bool | None:
    """Return a value of JSON that is no container; what JSON cannot say becomes a text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean(value, READ_LIMIT)
    if isinstance(value, int):
        return int(value) if -LARGEST <= value <= LARGEST else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return f"a {type(value).__name__}"


def _clean(text: str, limit: int) -> str:
    """Cut *text*, and replace halves of surrogate pairs, which no encoding takes."""
    if len(text) > limit:
        text = text[: limit - 1] + CUT
    text = str(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _whole(value: Any, place: str, least: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise EventError(f"{place}: must be a whole number of at least {least}")
    return min(value, COUNT_LIMIT)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _time(read: _Reader, now: float) -> float:
    value = read.number("at")
    if value is None:
        return now
    if not 0 <= value <= LATEST:
        raise EventError(f"{read.at('at')}: must be seconds since 1970 (not milliseconds)")
    return value


def _id(read: _Reader, key: str) -> str:
    """Return an id of our form: a given one, a UUID without dashes, the hash of any other, or a new one."""
    text = read.text(key).strip().lower()
    if not text:
        return os.urandom(_ID_DIGITS // 2).hex()
    digits = text.replace("-", "")
    if len(digits) == _ID_DIGITS and _HEXADECIMAL.issuperset(digits):
        return digits
    return blake2b(text.encode(), digest_size=_ID_DIGITS // 2).hexdigest()


def _facts(read: _Reader) -> dict[str, str | int | float]:
    given = read.inner("facts")
    kept: dict[str, str | int | float] = {}
    for key in [key for key in given.value if isinstance(key, str)][:FACTS_LIMIT]:
        value = given.value[key]
        if value is None:
            continue
        if not isinstance(value, str | int | float) or (not isinstance(value, str) and not _is_finite(value)):
            raise EventError(f"{given.at(key)}: must be a text or a finite number")
        scalar = _scalar(int(value) if isinstance(value, bool) else value)
        kept[_clean(key, NAME_LIMIT)] = scalar if scalar is not None else ""
    return kept


def _raised(read: _Reader) -> Raised:
    return Raised(
        type=read.text("type"),
        message=read.text("message", READ_LIMIT),
        relation=read.choice("relation", Relation, Relation.RAISED),
        frames=read.several("frames", _frame, FRAMES_LIMIT),
        notes=_notes(read),
    )


def _notes(read: _Reader) -> tuple[str, ...]:
    notes = read.items("notes")[:NOTES_LIMIT]
    for index, note in enumerate(notes):
        if not isinstance(note, str):
            raise EventError(f"{read.at('notes')}[{index}]: must be a text")
    return tuple(_clean(note, READ_LIMIT) for note in notes)


def _frame(read: _Reader) -> Frame:
    return Frame(
        module=read.text("module"),
        function=read.text("function"),
        file=read.text("file"),
        line=read.count("line"),
        in_app=read.flag("in_app", default=True),
    )


def _calls(read: _Reader) -> Calls:
    buckets = read.items("buckets")
    if len(buckets) not in (0, len(BOUNDS) + 1):
        raise EventError(f"{read.at('buckets')}: must have {len(BOUNDS) + 1} numbers or none")
    return Calls(
        service=read.name("service"),
        method=read.name("method"),
        caller=read.text("caller"),
        count=read.count("count"),
        failures=read.count("failures"),
        seconds=_positive(read, "seconds"),
        buckets=tuple(_whole(item, f"{read.at('buckets')}[{at}]", 0) for at, item in enumerate(buckets)),
    )


def _positive(read: _Reader, key: str) -> float:
    value = read.number(key) or 0.0
    if value < 0:
        raise EventError(f"{read.at(key)}: must not be negative")
    return value


def _declared(read: _Reader) -> Declared:
    value = read.number("value")
    if value is None:
        raise EventError(f"{read.at('value')}: is missing; give a number")
    if read.flag("counter") and value < 0:
        raise EventError(f"{read.at('value')}: must not be negative; a counter only grows")
    return Declared(
        service=read.name("service"),
        name=read.name("name"),
        value=value,
        counter=read.flag("counter"),
        low=read.number("low"),
        high=read.number("high"),
        help=read.text("help"),
    )


def _sender(read: _Reader) -> Sender:
    return Sender(
        boot=_id(read, "boot"),
        service=read.text("service"),
        name=read.text("name"),
        host=read.text("host"),
        pid=read.count("pid"),
    )


def _dropped(read: _Reader) -> dict[str, int]:
    given = read.inner("dropped")
    reasons = [key for key in given.value if isinstance(key, str)][:REASONS_LIMIT]
    return {_clean(reason, NAME_LIMIT): given.count(reason) for reason in reasons}


def _defaults(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (item.name, item.default if item.default_factory is MISSING else item.default_factory())
        for item in fields(kind)
    )


_DEFAULTS = {kind: _defaults(kind) for kind in (Batch, Event, Raised, Frame, Calls, Declared, Sender)}
"""The fields of each value with what they are by default, which is left out."""


def _object(value: Any) -> dict[str, Any]:
    kept = ((name, getattr(value, name), default) for name, default in _DEFAULTS[type(value)])
    return {name: _written(item) for name, item, default in kept if item != default}


def _written(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, StrEnum):
        return value.value
    return _object(value) if type(value) in _DEFAULTS else value
