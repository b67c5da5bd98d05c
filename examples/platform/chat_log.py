"""Chat logs in four formats, read into messages."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

MOST_MESSAGES = 50_000


class LogError(ValueError):
    """A chat log cannot be read; the text says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a chat."""

    at: datetime  # aware, UTC
    author: str
    text: str


# The names other programs give to the three fields.
FIELDS = {
    "time": ("time", "timestamp", "date", "at"),
    "author": ("author", "user", "sender", "from", "name", "nick"),
    "text": ("text", "message", "content", "body"),
}

_TEXT_LINE = re.compile(
    r"^\[?(?P<day>\d{4}-\d\d-\d\d)[ T,]{1,2}(?P<clock>\d\d:\d\d(?::\d\d)?)\]?(?: -)? "
    r"(?:<(?P<nick>[^>]{1,64})>|(?P<author>[^:]{1,64}):) ?(?P<text>.*)$"
)
_MARKDOWN_DAY = re.compile(r"^#{1,6} +(?P<day>\d{4}-\d\d-\d\d)\b")
_MARKDOWN_LINE = re.compile(
    r"^(?:[-*] )?\*\*(?P<author>[^*]{1,64})\*\* *"
    r"\(?(?:(?P<day>\d{4}-\d\d-\d\d) )?(?P<clock>\d\d:\d\d(?::\d\d)?)\)? *:? *(?P<text>.*)$"
)


def parse(text: str, content_type: str) -> list[Message]:
    """Return the messages of a log, oldest first. Raises LogError if it cannot be read or is empty."""
    reader = FORMATS.get(content_type)
    if reader is None:
        raise LogError(f"{content_type or 'no Content-Type'} is not one of {', '.join(FORMATS)}")
    messages: list[Message] = []
    for message in reader(text):
        if len(messages) == MOST_MESSAGES:
            raise LogError(f"more than {MOST_MESSAGES} messages")
        messages.append(message)
    if not messages:
        raise LogError("there are no messages in it")
    return sorted(messages, key=lambda message: message.at)


def _read_json(text: str) -> Iterator[Message]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LogError(f"not JSON: {error}") from error
    if isinstance(data, dict):
        data = data.get("messages")
    if not isinstance(data, list):
        raise LogError("must be a list of messages, or an object with such a list under 'messages'")
    for number, item in enumerate(data, 1):
        if not isinstance(item, dict):
            raise LogError(f"message {number}: must be an object")
        yield _message(item, f"message {number}")


def _read_csv(text: str) -> Iterator[Message]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name.strip().lower() for name in rows.fieldnames or []]
        rows.fieldnames = columns
        for field, names in FIELDS.items():
            if not set(names) & set(columns):
                raise LogError(f"line 1: there is no column {field!r} (or {', '.join(names[1:])})")
        for row in rows:
            yield _message(row, f"line {rows.line_num}")
    except csv.Error as error:
        raise LogError(f"line {rows.line_num}: not CSV: {error}") from error


def _read_text(text: str) -> Iterator[Message]:
    message: Message | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if found := _TEXT_LINE.match(line):
            if message:
                yield message
            at = _time(f"{found['day']}T{found['clock']}", f"line {number}")
            author = (found["nick"] or found["author"]).strip()
            message = Message(at=at, author=author, text=found["text"])
        elif message:
            message = _continued(message, line)
        elif line.strip():
            raise LogError(f"line {number}: expected '[2024-05-01 10:22] ann: hello'")
    if message:
        yield message


def _read_markdown(text: str) -> Iterator[Message]:
    message: Message | None = None
    day: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if heading := _MARKDOWN_DAY.match(line):
            day = heading["day"]
        elif found := _MARKDOWN_LINE.match(line):
            if message:
                yield message
            message = _markdown_message(found, day, f"line {number}")
        elif message and not line.startswith("#"):
            message = _continued(message, line.lstrip("> "))
    if message:
        yield message


def _markdown_message(found: re.Match[str], day: str | None, place: str) -> Message:
    day = found["day"] or day
    if day is None:
        raise LogError(f"{place}: a time without a day: put a heading such as '## 2024-05-01' above it")
    at = _time(f"{day}T{found['clock']}", place)
    return Message(at=at, author=found["author"].strip().rstrip(":"), text=found["text"])


FORMATS: dict[str, Callable[[str], Iterator[Message]]] = {
    "application/json": _read_json,
    "text/csv": _read_csv,
    "text/plain": _read_text,
    "text/markdown": _read_markdown,
}


def _continued(message: Message, line: str) -> Message:
    return replace(message, text=f"{message.text}\n{line}") if line.strip() else message


def _message(fields: Mapping[str, Any], place: str) -> Message:
    values = {field: _first(fields, names, place) for field, names in FIELDS.items()}
    author = str(values["author"]).strip()
    if not author:
        raise LogError(f"{place}: the author is empty")
    return Message(at=_time(values["time"], place), author=author, text=str(values["text"]))


def _first(fields: Mapping[str, Any], names: tuple[str, ...], place: str) -> object:
    for name in names:
        if fields.get(name) is not None:
            return fields[name]
    raise LogError(f"{place}: there is no {names[0]!r} (or {', '.join(names[1:])})")


def _time(value: object, place: str) -> datetime:
    """Read ISO 8601 or seconds since 1970; a time without a zone is taken as UTC."""
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(str(value).strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise LogError(f"{place}: {value!r} is not a time such as 2024-05-01 10:22") from error
