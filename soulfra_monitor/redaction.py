"""Masks what looks like a secret in text and values, before they leave the process.

Layers, in this order: what is secret by its shape (``secret_shapes``), what stands under a secret key
(``secret_keys``) in whatever notation, and texts inside texts (percent-encoded, base64). When in doubt the
value goes: what cannot be read to its end is masked to its end, what is too deep, too wide or too long is
masked whole, and a failure of our own replaces the text by ``[redaction failed]``.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from soulfra_monitor.events import MESSAGE_LIMIT, TEXT_LIMIT, Event, Frame, Raised
from soulfra_monitor.secret_keys import is_secret_key, is_weak_key, may_have_keys, words_of
from soulfra_monitor.secret_shapes import (
    ADDRESSES,
    EMAIL,
    HOME,
    MASK,
    NUMBERS,
    PHRASES,
    TOKEN_LENGTH,
    TOKENS,
    Shape,
)

__all__ = [
    "FAILED",
    "FAILURES",
    "MASK",
    "Personal",
    "harmless",
    "is_secret_key",
    "redact",
    "redact_command",
    "redact_event",
    "redact_value",
]

FAILED = "[redaction failed]"
FAILURES: Counter[str] = Counter()
"""How often redaction itself failed, by exception type. For a metric; no text is kept."""

DEPTH_LIMIT = 32
"""Deeper values are masked whole: nobody reads them, and a cycle ends here."""

WIDTH_LIMIT = 10_000
"""Items looked at of one list or object; the rest is masked as one."""

ITEMS_LIMIT = 100_000
"""Values looked at of one call; the rest is masked."""

LENGTH_LIMIT = 1 << 20
"""Characters looked at of one text; the rest is cut off."""

EVENT_LENGTH_LIMIT = 16_384
"""The same for each text of an event."""

PASSES = 6
"""Times that a text is gone through; what still changes then is masked whole."""

CUT = "…"


class Personal(StrEnum):
    """What is no secret and may yet be nobody's business; masked when asked for."""

    EMAIL = "email"
    ADDRESS = "address"  # public IP addresses; private and loopback ones stay, operators need them
    HOME = "home"  # the user's name in the path of a home folder


EVENT_PERSONAL = frozenset({Personal.EMAIL})
"""What is masked in events beside secrets unless told otherwise."""

NOTHING: frozenset[Personal] = frozenset()

_ASSIGNMENT = re.compile(
    r"(?P<key>[^\W\d](?<!\w.)[\w.-]{0,127}+)(?![\w.-])"
    r"(?:(?P<quoted>\\{0,16}[\"'`])?\]?(?P<plain>\s{0,4}(?:=>|:=|[:=])\s{0,4})"
    r"|(?P<paired>\\{0,16}[\"'],\s{0,4})(?=\\{0,16}[bBrRuU]?[\"']))"
)
"""A key and what leads to its value: k=v, k: v, 'k': v, k => v, ('k', 'v')."""

_COMPARED = re.compile(
    r"(?P<key>[^\W\d](?<!\w.)[\w.-]{0,127}+)[\"`\]]?\s{1,4}(?i:i?like|in|by|<>|!=)\s{0,4}\(?\s{0,4}(?=')"
)
"""A key and its value in SQL: k LIKE 'v', k IN ('v')."""

_OPTION = re.compile(
    r"-(?<!\w.)(?P<key>[^\W\d][\w.-]{0,127}+)[ \t]{1,4}(?!-)(?P<quote>[\"']?)(?P<value>[^\s\"']{1,2000})"
)

_ELEMENT = re.compile(r"<(?P<key>[^\W\d][\w:.-]{0,63})(?:\s[^<>]{0,200})?>(?P<value>[^<]{1,2000})(?=</)")
_INSERT = re.compile(
    r"[Ii](?<!\w.)(?i:nsert\s{1,4}(?:ignore\s{1,4})?into\s{1,4}[\w.\"`\[\]]{1,128}\s{0,4}\((?P<columns>[^()]{1,2000})\)"
    r"\s{0,4}values)\s{0,4}(?=\()"
)
_SET = re.compile(
    r"(?P<set>[PSGHM](?<!\w.)(?:SETEX|ET(?:EX|NX)?|ETSET|M?SET)[ \t]{1,4}(?P<key>[^\s=]{1,256})[ \t]{1,4})"
    r"(?![=\s*])[^\r\n\"'`]{1,2000}"
)
_LITERAL = re.compile(r"'(?:[^'\r\n]|'')*'?|\$\$.*?(?:\$\$|\Z)", re.DOTALL)
_REST_OF_LINE = frozenset({"authorization", "cookie"})
_HEADER_VALUE = re.compile(r"(?:=\"[^\"\r\n]*\"|[^\r\n\"'\\])+")
_QUOTED_VALUE = re.compile(
    r"(?P<open>[bBrRuU]{0,2}\"|[bBrRuU]{0,2}'|`)(?:(?<=\")(?:[^\"\\\r\n]|\\.)*+\"?"
    r"|(?<=')(?:[^'\\\r\n]|\\.|''(?=\w))*+'?|(?<=`)[^`\r\n]*+`?)"
)
_ESCAPED_QUOTE = re.compile(r"\\{1,16}[\"']")
_BARE_VALUE = re.compile(
    r"(?:[^\s,;&\"'<>(){}\[\]\\]++|[,;&](?![\s\"'&;,]|[\w.-]{1,64}+[=:]|$)"
    r"|[\"'<>\])}\\](?=\w))+"
)
_BRACKET = re.compile(r"\"(?:[^\"\\\r\n]|\\.)*+\"|'(?:[^'\\\r\n]|\\.)*+'|[\[\](){}]")
_PLAIN_VALUES = frozenset({"none", "null", "true", "false", "undefined", "nil"})
_NO_SECRETS = frozenset(
    {
        "success",
        "failed",
        "failure",
        "enabled",
        "disabled",
        "required",
        "missing",
        "invalid",
        "expired",
        "closed",
    }
)
_WEAK_LENGTH = 6

_PERCENT = re.compile(r"(?<![^\s\"'<>])[^\s\"'<>%]*+%[^\s\"'<>]*+")
_PERCENT_HINTS = ("%3A", "%3a", "%3D", "%3d", "%22", "%27", "%40")
_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/=_-])(?=[a-z0-9+/_-]{0,64}[A-Z])[A-Za-z0-9+/_-]{16,}+={0,2}(?![A-Za-z0-9+/=_-])"
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-fA-F:]{3,39}(?:\.\d{1,3}){0,3}(?![\w:.]*\w)")


def redact(text: str, *, also: frozenset[Personal] = NOTHING) -> str:
    """Return *text* with what looks like a secret replaced by ``***``. Doing it twice changes nothing.

    Never raises: a text that cannot be redacted is replaced by ``[redaction failed]``.
    """
    try:
        return _settled(_cut(text, LENGTH_LIMIT), also)
    except Exception as error:  # noqa: BLE001 - whatever it is, the text must not leave
        FAILURES[type(error).__name__] += 1
        return FAILED


def redact_value(value: Any, *, also: frozenset[Personal] = NOTHING) -> Any:
    """Return a copy of a JSON-like value with secrets masked, by key and by their shape.

    Whatever is not JSON becomes text. Never raises.
    """
    return _Values(also, LENGTH_LIMIT, LENGTH_LIMIT).any(value, 0)


def redact_command(argv: Sequence[str]) -> str:
    """Return a command line for people, the value after an option such as ``--password`` masked."""
    return " ".join(map(str, redact_value(list(argv))))


def redact_event(event: Event, *, also: frozenset[Personal] = EVENT_PERSONAL) -> Event:
    """Return *event* with every text of it redacted, then cut to what is kept of it. Never raises."""

    def text(value: str, limit: int = TEXT_LIMIT) -> str:
        return _cut(redact(_cut(value, EVENT_LENGTH_LIMIT), also=also), limit)

    values = _Values(also, EVENT_LENGTH_LIMIT, TEXT_LIMIT)
    return replace(
        event,
        service=_name(event.service, also),
        message=text(event.message, MESSAGE_LIMIT),
        raised=tuple(
            _redact_raised(raised, also, text(raised.message, MESSAGE_LIMIT)) for raised in event.raised
        ),
        facts={_name(key, also): values.item(key, value, 1) for key, value in event.facts.items()},
        context=values.any(event.context, 0),
        system=values.any(event.system, 0),
        release=_name(event.release, also),
        severity=_name(event.severity, also),
        problem=_name(event.problem, also),
        fingerprint=_name(event.fingerprint, also),
    )


def harmless(text: str) -> str:
    """Replace what would steer a terminal: messages and labels come from strangers."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def _redact_raised(raised: Raised, also: frozenset[Personal], message: str) -> Raised:
    return replace(
        raised,
        type=_name(raised.type, also),
        message=message,
        frames=tuple(_redact_frame(frame, also) for frame in raised.frames),
        notes=tuple(
            _cut(redact(_cut(note, EVENT_LENGTH_LIMIT), also=also), TEXT_LIMIT) for note in raised.notes
        ),
    )


def _redact_frame(frame: Frame, also: frozenset[Personal]) -> Frame:
    return replace(
        frame,
        module=_name(frame.module, also),
        function=_name(frame.function, also),
        file=_name(frame.file, also),
    )


@lru_cache(maxsize=1024)
def _name(text: str, also: frozenset[Personal]) -> str:
    """Redact what repeats from event to event: names of code and files."""
    return redact(_cut(text, TEXT_LIMIT), also=also)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + CUT


class _Values:
    """One walk through a value, with what is left of its budget."""

    def __init__(self, also: frozenset[Personal], looked_at: int, kept: int) -> None:
        self._also = also
        self._looked_at = looked_at
        self._kept = kept
        self._left = ITEMS_LIMIT

    def any(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= DEPTH_LIMIT or self._left <= 0:
            return MASK
        if isinstance(value, Mapping):
            return self._object(value, depth + 1)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(list(value), depth + 1)
        return self._text(value)

    def item(self, key: str, value: Any, depth: int) -> Any:
        """Redact the value under *key*."""
        empty = value is None or value is True or value is False or (isinstance(value, str) and not value)
        if not empty and (is_secret_key(key) or (is_weak_key(key) and not isinstance(value, int | float))):
            return MASK
        return self.any(value, depth)

    def _object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if len(kept) >= WIDTH_LIMIT:
                kept[CUT] = MASK
                break
            name = self._text(key)
            kept[name] = self.item(name if name == FAILED else str(key), item, depth)
        return kept

    def _list(self, items: list[Any], depth: int) -> list[Any]:
        kept = [self._member(items, at, depth) for at in range(min(len(items), WIDTH_LIMIT))]
        return [*kept, MASK] if len(items) > WIDTH_LIMIT else kept

    def _member(self, items: list[Any], at: int, depth: int) -> Any:
        """Redact one of a list: the arguments of a command, a key and its value, or anything else."""
        item = items[at]
        if isinstance(item, str | bytes) and item and _is_secret_member(items, at):
            return MASK
        before = items[at - 1] if at else None
        if isinstance(item, str) and before in ("-u", "-U", "--user", "--proxy-user"):
            return self._text(f"{before} {item}").removeprefix(f"{before} ")
        return self.any(item, depth)

    def _text(self, value: Any) -> str:
        try:
            text = value.decode(errors="replace") if isinstance(value, bytes | bytearray) else str(value)
        except Exception as error:  # noqa: BLE001 - str() of a stranger's object may do anything
            FAILURES[type(error).__name__] += 1
            return FAILED
        return _cut(redact(_cut(text, self._looked_at), also=self._also), self._kept)


def _is_secret_member(items: list[Any], at: int) -> bool:
    words = [item if isinstance(item, str) else "" for item in items[max(at - 2, 0) : at]]
    if words and words[-1].startswith("-") and not str(items[at]).startswith("-"):
        return is_secret_key(words[-1])
    if "AUTH" in (word.upper() for word in words) or (
        words and words[-1].lower() in ("requirepass", "masterauth")
    ):
        return True
    first = items[0].upper() if isinstance(items[0], str) else ""
    if first.endswith(("SET", "SETEX", "SETNX")) and at > 1 and isinstance(items[1], str):
        return is_secret_key(items[1]) or (first == "HSET" and bool(words) and is_secret_key(words[-1]))
    return len(items) == 2 and at == 1 and bool(words[0]) and is_secret_key(words[0])  # noqa: PLR2004 - a pair


def _settled(text: str, also: frozenset[Personal]) -> str:
    """Redact until nothing changes any more: what was masked may bare what leads to another secret."""
    for _ in range(PASSES):
        clean = _redacted(text, also, inner=True)
        if clean == text:
            return clean
        text = clean
    return MASK


def _redacted(text: str, also: frozenset[Personal], *, inner: bool) -> str:
    words = set(text.split())  # each word once: what is looked for is in one word, whatever its order
    vocabulary = " ".join(words)
    lowered = vocabulary.lower()
    long_words = " ".join([word for word in words if len(word) >= TOKEN_LENGTH])
    text = _apply(ADDRESSES, text, lowered)
    if long_words:
        text = _apply(TOKENS, text, long_words.lower())
    if may_have_keys(vocabulary, lowered):
        text = _redact_keyed(_apply(PHRASES, text, lowered), lowered)
    if inner and long_words:
        text = _redact_encoded(text, long_words)
    text = _apply(NUMBERS, text, lowered)
    return _redact_personal(text, lowered, also) if also else text


def _redact_keyed(text: str, lowered: str) -> str:
    if "</" in text:
        text = _ELEMENT.sub(_mask_element, text)
    if "insert" in lowered:
        text = _redact_inserts(text)
    if "SET" in text:
        text = _SET.sub(_mask_set, text)
    if "'" in lowered:
        text = _redact_after(_COMPARED, text)
    return _redact_after(_ASSIGNMENT, _OPTION.sub(_mask_option, text))


def _apply(shapes: tuple[Shape, ...], text: str, lowered: str) -> str:
    for shape in shapes:
        if not shape.hints or any([hint in lowered for hint in shape.hints]):  # noqa: C419 - faster than a generator
            text = shape.pattern.sub(shape.replacement, text)
    return text


def _redact_after(lead: re.Pattern[str], text: str) -> str:
    """Mask the values of secret keys; *lead* finds a key and ends where its value begins."""
    kept: list[str] = []
    done = at = 0
    while found := lead.search(text, at):
        at = found.end()
        value = _value_of(text, found)
        if value is not None:
            kept += (text[done:at], value[0])
            done = at = value[1]
    return "".join((*kept, text[done:]))


def _value_of(text: str, found: re.Match[str]) -> tuple[str, int] | None:
    """Return what stands for the value that a key leads to, and where it ends; None if it stays."""
    key, start = found["key"], found.end()
    is_secret = is_secret_key(key)
    if not is_secret and not is_weak_key(key):
        return None
    told = found.groupdict()
    if is_secret:
        return None if told.get("paired") and not _is_pair(text, found) else _value_at(text, start, key)
    if told.get("quoted") or told.get("plain") == "=":
        value = _value_at(text, start, key)
        return value if value is not None and _may_be_secret(text[start : value[1]]) else None
    return None


def _is_pair(text: str, found: re.Match[str]) -> bool:
    """Whether the key is the first of a list or tuple, and what follows it no key itself."""
    opened = re.search(r"[(\[]\s{0,4}[bu]?\\{0,16}[\"']$", text[max(found.start() - 24, 0) : found.start()])
    value = _QUOTED_VALUE.match(text, found.end())
    return opened is not None and (value is None or text[value.end() : value.end() + 1] != ":")


def _may_be_secret(value: str) -> bool:
    bare = value.strip("\\\"'`")
    return len(bare) >= _WEAK_LENGTH and bare.lower() not in _NO_SECRETS


def _value_at(text: str, start: int, key: str) -> tuple[str, int] | None:
    if escaped := _ESCAPED_QUOTE.match(text, start):
        return _escaped_value(text, escaped)
    if quoted := _QUOTED_VALUE.match(text, start):
        return _quoted_value(quoted)
    if text[start : start + 1] in ("[", "{", "("):
        return MASK, _end_of_bracket(text, start)
    whole_line = not _REST_OF_LINE.isdisjoint(words_of(key))
    bare = (_HEADER_VALUE if whole_line else _BARE_VALUE).match(text, start)
    if bare is None or bare[0].lower() in _PLAIN_VALUES:
        return None
    end = bare.end()
    called = text[end : end + 1] in ("(", "[", "{") and not whole_line and bare[0] != MASK
    return MASK, _end_of_bracket(text, end) if called else end


def _quoted_value(found: re.Match[str]) -> tuple[str, int] | None:
    opened = found["open"]
    closed = opened[-1] if len(found[0]) > len(opened) and found[0].endswith(opened[-1]) else ""
    if len(found[0]) == len(opened) + len(closed):
        return None
    return f"{opened}{MASK}{closed}", found.end()


def _escaped_value(text: str, opened: re.Match[str]) -> tuple[str, int] | None:
    """Mask up to the same quote with as many backslashes before it, else to the end of the line."""
    at = opened.end()
    while (at := text.find(opened[0], at)) != -1 and text[at - 1] == "\\":
        at += 1
    end = len(text) if at == -1 else at
    line = text.find("\n", opened.end(), end)
    if at == -1 or line != -1:
        return f"{opened[0]}{MASK}", end if line == -1 else line
    return None if at == opened.end() else (f"{opened[0]}{MASK}{opened[0]}", at + len(opened[0]))


def _end_of_bracket(text: str, start: int) -> int:
    """Return where the bracket that opens at *start* is closed; the end of the text if it is not."""
    depth = 0
    for found in _BRACKET.finditer(text, start):
        if found[0] in ("[", "{", "("):
            depth += 1
        elif found[0] in ("]", "}", ")"):
            depth -= 1
        if depth == 0:
            return found.end()
    return len(text)


def _mask_element(found: re.Match[str]) -> str:
    if not is_secret_key(found["key"]) or not found["value"].strip():
        return found[0]
    return found[0].removesuffix(found["value"]) + MASK


def _mask_option(found: re.Match[str]) -> str:
    if not is_secret_key(found["key"]) or found["value"].lower() in _PLAIN_VALUES:
        return found[0]
    return found[0].removesuffix(found["value"]) + MASK


def _mask_set(found: re.Match[str]) -> str:
    return f"{found['set']}{MASK}" if is_secret_key(found["key"]) else found[0]


def _redact_inserts(text: str) -> str:
    """Mask the literals of a statement that fills a secret column: which is which is not worth a parser."""
    kept: list[str] = []
    done = 0
    for found in _INSERT.finditer(text):
        columns = found["columns"].split(",")
        if found.start() < done or not any(is_secret_key(column.strip(' "`[]')) for column in columns):
            continue
        end = text.find(";\n", found.end())
        end = len(text) if end == -1 else end
        kept += (text[done : found.end()], _LITERAL.sub(f"'{MASK}'", text[found.end() : end]))
        done = end
    return "".join((*kept, text[done:]))


def _redact_encoded(text: str, words: str) -> str:
    """Mask what holds a secret once it is decoded."""
    if any(hint in words for hint in _PERCENT_HINTS):
        text = _PERCENT.sub(_mask_percent, text)
    return _BASE64.sub(_mask_base64, text) if _BASE64.search(words) else text


def _mask_percent(found: re.Match[str]) -> str:
    plain = unquote(found[0])
    return MASK if _redacted(plain, NOTHING, inner=False) != plain else found[0]


def _mask_base64(found: re.Match[str]) -> str:
    text = found[0].replace("-", "+").replace("_", "/").rstrip("=")
    try:
        plain = base64.b64decode(
            text[: len(text) // 4 * 4] if len(text) % 4 == 1 else text + "=" * (-len(text) % 4)
        )
        decoded = plain.decode()
    except (binascii.Error, ValueError):
        return found[0]
    return MASK if _redacted(decoded, NOTHING, inner=False) != decoded else found[0]


def _redact_personal(text: str, lowered: str, also: frozenset[Personal]) -> str:
    if Personal.EMAIL in also:
        text = _apply((EMAIL,), text, lowered)
    if Personal.HOME in also:
        text = _apply((HOME,), text, lowered)
    if Personal.ADDRESS in also:
        text = _IPV6.sub(_mask_address, _IPV4.sub(_mask_address, text))
    return text


def _mask_address(found: re.Match[str]) -> str:
    import ipaddress  # noqa: PLC0415 - heavy for a library in other people's processes, and rarely asked for

    try:
        return MASK if ipaddress.ip_address(found[0]).is_global else found[0]
    except ValueError:
        return found[0]
