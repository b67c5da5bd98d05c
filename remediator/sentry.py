"""Reads what Sentry's SDKs send, so that any program with one reports here by another DSN. Pure.

Envelopes: https://develop.sentry.dev/sdk/data-model/envelopes/, event payloads:
https://develop.sentry.dev/sdk/data-model/event-payloads/. Only errors are read; sessions, transactions,
profiles and whatever else comes in an envelope is passed over.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from soulfra_monitor.events import Event, EventError, Kind, Relation
from soulfra_monitor.wire import read_event

HEADER_LIMIT = 8 * 1024
"""Bytes of one header line."""

ITEMS_LIMIT = 100
BREADCRUMBS_LIMIT = 20
DISCARDS_LIMIT = 32

_ERRORS = ("event", "error")
_LEVELS = {"fatal": "critical", "error": "high", "warning": "medium", "info": "low", "debug": "low"}
_CONTEXT = ("environment", "server_name", "transaction", "logger", "platform", "dist", "tags", "extra")

_KINDS = {
    "excepthook": Kind.UNCAUGHT,
    "onuncaughtexception": Kind.UNCAUGHT,
    "uncaughtexception": Kind.UNCAUGHT,
    "onerror": Kind.UNCAUGHT,
    "threading": Kind.THREAD,
    "asyncio": Kind.TASK,
    "unraisablehook": Kind.UNRAISABLE,
    "atexit": Kind.ATEXIT,
    "onunhandledrejection": Kind.REJECTION,
    "unhandledrejection": Kind.REJECTION,
    "logging": Kind.LOGGED,
}
"""From the last word of a mechanism's type, as SDKs of today and before have written it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One part of an envelope."""

    type: str
    payload: bytes

    @property
    def is_error(self) -> bool:
        """Whether it tells of an error."""
        return self.type in _ERRORS


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What was posted at once."""

    event_id: str
    key: str  # the public key of the DSN in its header, if any
    items: tuple[Item, ...]

    def errors(self) -> Iterator[Mapping[str, Any]]:
        """Yield the payload of each error. Raises EventError when one is no JSON object."""
        for index, item in enumerate(self.items):
            if item.is_error:
                yield _object(item.payload, f"item {index}")

    def discarded(self) -> Iterator[tuple[str, int]]:
        """Yield what the SDK says that it never sent: reason and number, of errors only."""
        for item in self.items:
            if item.type == "client_report":
                yield from _discards(_object(item.payload, "client_report"))


def read_envelope(data: bytes) -> Envelope:
    """Take an envelope apart. Raises EventError with the place and what is wrong there."""
    header, at = _line(data, 0, "the envelope's header")
    items: list[Item] = []
    while at < len(data):
        if data[at : at + 1] == b"\n":  # an empty line at the end, or between items
            at += 1
            continue
        if len(items) >= ITEMS_LIMIT:
            raise EventError(f"more than {ITEMS_LIMIT} items in one envelope")
        item, at = _item(data, at, f"item {len(items)}")
        items.append(item)
    return Envelope(event_id=_text(header.get("event_id")), key=_key_of(header), items=tuple(items))


def _item(data: bytes, at: int, place: str) -> tuple[Item, int]:
    header, start = _line(data, at, f"{place}: its header")
    length = header.get("length")
    if length is None:
        found = data.find(b"\n", start)
        end = len(data) if found < 0 else found
    elif isinstance(length, int) and not isinstance(length, bool) and 0 <= length <= len(data) - start:
        end = start + length
    else:
        raise EventError(f"{place}.length: must be the number of bytes that follow")
    if data[end : end + 1] not in (b"", b"\n"):
        raise EventError(f"{place}: its payload is longer than its length")
    return Item(type=_text(header.get("type")), payload=data[start:end]), end + 1


def _line(data: bytes, at: int, place: str) -> tuple[Mapping[str, Any], int]:
    end = data.find(b"\n", at, at + HEADER_LIMIT + 1)
    if end < 0:
        end = len(data)
    if end - at > HEADER_LIMIT:
        raise EventError(f"{place} is longer than {HEADER_LIMIT} bytes")
    return _object(data[at:end], place), min(end + 1, len(data))


def _object(data: bytes, place: str) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EventError(f"{place}: is not JSON") from error
    if not isinstance(value, dict):
        raise EventError(f"{place}: must be an object")
    return value


def _key_of(header: Mapping[str, Any]) -> str:
    """Return the public key in the header's DSN, which tunnels have instead of a header of HTTP."""
    dsn = _text(header.get("dsn"))
    return dsn.partition("://")[2].partition("@")[0] if "@" in dsn else ""


def _discards(report: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    found = report.get("discarded_events")
    for one in found[:DISCARDS_LIMIT] if isinstance(found, list) else ():
        if isinstance(one, dict) and one.get("category") in _ERRORS:
            count = one.get("quantity")
            if isinstance(count, int) and not isinstance(count, bool) and 0 < count < 1 << 32:
                yield _text(one.get("reason")) or "unknown", count


def read_auth(header: str) -> str:
    """Return the public key in an ``X-Sentry-Auth`` header; empty when there is none."""
    kind, _, rest = header.strip().partition(" ")
    if kind.lower() != "sentry":
        return ""
    pairs = (part.partition("=") for part in rest.split(","))
    return next((value.strip() for name, _, value in pairs if name.strip() == "sentry_key"), "")


def service_of(payload: Mapping[str, Any]) -> str:
    """Return the service that an event names itself by its tag ``service``; empty when it does not."""
    tags = payload.get("tags")
    if isinstance(tags, dict):
        return _text(tags.get("service"))
    for pair in tags if isinstance(tags, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and pair[0] == "service":  # noqa: PLR2004 - a pair
            return _text(pair[1])
    return ""


def event_of(payload: Mapping[str, Any], *, service: str, now: float) -> Event:
    """Read the payload of an error as an event of *service*. Raises EventError with the place."""
    chain = [one for one in _values(payload, "exception") if isinstance(one, dict)]
    chain.reverse()  # Sentry tells the cause first, and what was seen last
    mechanism = _mapping(chain[0].get("mechanism")) if chain else {}
    kind = _kind(mechanism, payload, raised=bool(chain))
    return read_event(
        {
            "id": _text(payload.get("event_id")),
            "at": _moment(payload.get("timestamp")),
            "kind": kind,
            "service": service,
            "message": _message(payload, chain),
            "raised": [_raised(one, first=one is chain[0]) for one in chain],
            "handled": mechanism.get("handled") is True or kind is Kind.LOGGED,
            "facts": _facts(payload),
            "context": _context(payload),
            "release": _text(payload.get("release")),
            "severity": _LEVELS.get(_text(payload.get("level")), ""),
            "fingerprint": _fingerprint(payload.get("fingerprint")),
        },
        now=now,
    )


def _kind(mechanism: Mapping[str, Any], payload: Mapping[str, Any], *, raised: bool) -> Kind:
    word = _text(mechanism.get("type")).rpartition(".")[2].lower()
    if word in _KINDS:
        return _KINDS[word]
    if payload.get("logger") and not raised:
        return Kind.LOGGED
    return Kind.REPORTED


def _message(payload: Mapping[str, Any], chain: list[dict[str, Any]]) -> str:
    entry = _mapping(payload.get("logentry"))
    told = entry.get("formatted") or entry.get("message") or payload.get("message")
    if isinstance(told, dict):  # an old form
        told = told.get("formatted") or told.get("message")
    if told:
        return _text(told)
    if not chain:
        return "an event without a message"
    kind, value = _text(chain[0].get("type")), _text(chain[0].get("value"))
    return value or kind or "an exception without a name"


def _raised(one: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
    module, name = _text(one.get("module")), _text(one.get("type")) or "Error"
    frames = _values(_mapping(one.get("stacktrace")), "frames", key=None)
    return {
        "type": name if module in ("", "builtins") else f"{module}.{name}",
        "message": _text(one.get("value")),
        "relation": Relation.RAISED if first else _relation(_mapping(one.get("mechanism"))),
        "frames": [_frame(frame) for frame in frames if isinstance(frame, dict)],
    }


def _relation(mechanism: Mapping[str, Any]) -> Relation:
    source = _text(mechanism.get("source"))
    if source == "__context__":
        return Relation.CONTEXT
    return Relation.MEMBER if source.startswith(("exceptions[", "errors[")) else Relation.CAUSE


def _frame(frame: Mapping[str, Any]) -> dict[str, Any]:
    line = frame.get("lineno")
    file = _text(frame.get("filename")) or _text(frame.get("abs_path"))
    return {
        "module": _text(frame.get("module")) or file,
        "function": _text(frame.get("function")),
        "file": file,
        "line": line if isinstance(line, int) and not isinstance(line, bool) and line > 0 else 0,
        "in_app": frame.get("in_app") is not False,
    }


def _facts(payload: Mapping[str, Any]) -> dict[str, str | int]:
    request = _mapping(payload.get("request"))
    facts: dict[str, str | int] = {}
    if url := _text(request.get("url")):
        facts["url"] = url.partition("?")[0]
    if method := _text(request.get("method")):
        facts["http_method"] = method
    status = _mapping(_mapping(payload.get("contexts")).get("response")).get("status_code")
    if isinstance(status, int) and not isinstance(status, bool):
        facts["status"] = status
    return facts


def _context(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what helps a person; nothing of the user, and no bodies, cookies, headers or locals."""
    found = {key: payload[key] for key in _CONTEXT if payload.get(key)}
    crumbs = [
        {key: crumb[key] for key in ("timestamp", "category", "level", "message") if crumb.get(key)}
        for crumb in _values(payload, "breadcrumbs")[-BREADCRUMBS_LIMIT:]
        if isinstance(crumb, dict)
    ]
    runtime = _mapping(_mapping(payload.get("contexts")).get("runtime"))
    sdk = _mapping(payload.get("sdk"))
    more = {
        "breadcrumbs": crumbs,
        "runtime": " ".join(_text(runtime.get(key)) for key in ("name", "version")).strip(),
        "sdk": " ".join(_text(sdk.get(key)) for key in ("name", "version")).strip(),
    }
    return {**found, **{key: value for key, value in more.items() if value}}


def _fingerprint(value: Any) -> str:
    parts = [_text(part) for part in value] if isinstance(value, list) else []
    return "" if parts in ([], ["{{ default }}"], ["{{default}}"]) else "|".join(parts)


def _moment(value: Any) -> float | None:
    """Return epoch seconds, from a number or ISO 8601, which means UTC where it does not say."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value  # read_event looks whether it can be a time
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _values(holder: Mapping[str, Any], name: str, key: str | None = "values") -> list[Any]:
    """Return a list that stands alone or under *key*, as SDKs write it either way."""
    found = holder.get(name)
    if key is not None and isinstance(found, dict):
        found = found.get(key, [found])
    return found if isinstance(found, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
