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
from soulfra_monitor.secret_keys import (
    NAME_KEYS,
    VALUE_KEYS,
    is_secret_key,
    is_weak_key,
    may_have_keys,
    words_of,
)
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

LENGTH_LIMIT = 1 << 20
"""Characters looked at of one text; the rest is cut off."""

VALUE_LENGTH_LIMIT = 4 << 20
"""Characters looked at of one value in all."""

EVENT_LENGTH_LIMIT = 128 << 10
"""The same for an event: what its texts may cost together, however many there are of them."""

LOOKED_AT = 4
"""Times the length that is kept, of a text of an event, are looked at."""

TEXT_COST = 32
ITEM_COST = 8
"""What a text and an item of a value cost beside their characters, in characters."""

LAST_WORD = 512
"""A word as long as this at most is dropped where a text is cut: half a secret does not look like one."""

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

_BLANKS = r"(?:\s|\\{1,16}[nrt]){0,64}+"
"""Between keys and values: people align them, and JSON escapes tabs and the ends of lines."""

_ASSIGNMENT = re.compile(
    r"(?P<key>[^\W\d](?<!\w.)[\w.-]{0,127}+)(?![\w.-])"
    r"(?:(?P<quoted>\\{0,16}[\"'`])?[\])]?(?P<index>(?:\[[^\[\]\s]{1,64}\]){1,4})?"
    rf"(?P<plain>{_BLANKS}(?:=>|:=|->|[:=|\u2192\u2502]|\\{{1,16}}u2(?:192|502)){_BLANKS})"
    r"|(?P<paired>\\{0,16}[\"'],\s{0,64}+)(?=\\{0,16}[bBrRuU]?[\"']))"
)
"""A key and what leads to its value: k=v, k: v, 'k': v, k => v, ('k', 'v'), (k)=(v), | k | v |."""

_COMPARED = re.compile(
    r"(?P<key>[^\W\d](?<!\w.)[\w.-]{0,127}+)[\"`\]]?\s{1,64}+(?i:i?like|in|by|<>|!=)\s{0,64}+\(?\s{0,64}+(?=')"
)
"""A key and its value in SQL: k LIKE 'v', k IN ('v')."""

_REJECTED = re.compile(
    r"(?:\A|\n|\\n)(?P<key>[^\W\d][\w.-]{0,127}+)(?:\r?\n|\\{1,16}n)[ \t]{1,16}"
    r"(?:(?!input_value=)[^\n\\]){0,1000}+input_value=",
)
"""A field and what was wrong with its value, as pydantic says."""

_INPUT = re.compile(r"(?:(?!, input_type=)[^\n])*+")

_OPTION = re.compile(
    r"-(?<!\w.)(?P<key>[^\W\d][\w.-]{0,127}+)"
    r"(?:[ \t]{1,64}+|\\{0,16}[\"'],\s{0,64}+(?=\\{0,16}[\"']))(?!-)(?:\\{0,16}[\"'])?"
    r"(?P<value>(?:[^\s\"'\\]|\\(?![\"'\\])){1,2000})"
)

_ELEMENT = re.compile(
    r"<(?P<key>[^\W\d][\w:.-]{0,63})(?P<more>\s[^<>]{0,400})?>(?P<value>\s*+<!\[CDATA\[|[^<]*+)"
)
_UNCLOSED_LIMIT = 16
"""Names of elements whose end is looked for in vain; what is in the next one is masked to the end."""

_ATTRIBUTE = re.compile(r"\b(?:name|key|id)\s{0,4}=\s{0,4}[\"'](?P<key>[\w.-]{1,128})")
_INSERT = re.compile(
    r"[Ii](?<!\w.)(?i:nsert\s{1,64}(?:ignore\s{1,64})?into\s{1,64}[\w.\"`\[\]]{1,128}\s{0,64}"
    r"\((?P<columns>[^()]{1,2000})\)\s{0,64}values)\s{0,64}(?=\()"
)
_TUPLE = re.compile(r"\((?P<columns>[^()=]{1,2000})\)\s{0,64}=\s{0,64}(?=\()")
"""Columns and their values, as Postgres tells of a constraint: (a, k)=(1, v)."""

_DUPLICATE = re.compile(
    r"(?P<lead>[Dd]uplicate entry ')(?P<value>(?:[^'\\\n]|\\.)*+)(?P<tail>' for key '(?P<key>[^'\n]{1,128})')"
)
_BOUND = re.compile(
    r"(?:[PpBb](?<!\w.)(?i:arameters|arams|ind(?:s|ings| values)?|ARGS)\b|[Aa](?<!\w.)rgs\b"
    r"|[Dd]uplicate key value is\b|(?P<row>[Ff]ailing row contains))"
    r"\\{0,16}[\"']?\]?\s{0,16}[:=]?\s{0,16}(?=[\[({$])"
)
"""What goes before the values that were bound to a statement."""

_BOUND_HINTS = ("param", "bind", "args", "duplicate")
_STATEMENTS = ("select", "update", "insert", "delete", "where", "constraint")
_NAME = re.compile(r"[^\W\d][\w.]{1,127}+")

_SET = re.compile(
    r"(?P<set>[PSGHM](?<!\w.)(?:SETEX|ET(?:EX|NX)?|ETSET|M?SET)[ \t]{1,64}(?P<key>[^\s=]{1,256})[ \t]{1,64})"
    r"(?![=\s*])[^\r\n\"'`]{1,2000}"
)
_LITERAL = re.compile(r"'(?:[^'\r\n]|'')*'?|\$\$.*?(?:\$\$|\Z)", re.DOTALL)

_COMMAND = re.compile(
    r"(?P<end>[\n|])"
    r"|(?<![\w.-])(?:(?P<tool>docker|podman|helm|az|oc|skopeo|buildah)"
    r"|(?P<command>login|mysql\w{0,10}|mariadb\w{0,10}"
    r"|sshpass|redis-cli|mongo\w{0,10}|sqlcmd|bcp|ldap\w{1,10}|plink|pscp|cqlsh|mosquitto_\w{3}|zip|unzip|7z))"
    r"(?![\w.])"
    r"|(?<=[\s\"'])-(?P<option>pw(?=[\s\"'\\])|[pPaw])"
    r"(?P<apart>[ \t]{1,64}+(?!-)|\\{0,16}[\"'],\s{0,64}+[bu]?(?=\\{0,16}[\"'](?!-)))?"
    r"(?:\\{0,16}(?P<quote>[\"']))?(?!\*\*\*)"
)
"""The parts of command lines, and of lists of arguments, that say whether a value is a password."""

_COMMANDS = (
    "mysql",
    "mariadb",
    "sshpass",
    "redis-cli",
    "login",
    "mongo",
    "sqlcmd",
    "bcp ",
    "ldap",
    "plink",
    "pscp",
    "cqlsh",
    "mosquitto",
    "zip",
    "7z",
)
_GLUED = frozenset({"mysql", "mariadb", "7z"})
"""Their password follows the option at once; what stands apart from it is something else."""

_PASSWORD_OPTIONS = {
    "mysql": "p",
    "mariadb": "p",
    "sshpass": "p",
    "redis-cli": "a",
    "mongo": "p",
    "sqlcmd": "P",
    "bcp": "P",
    "ldap": "w",
    "plink": "pw",
    "pscp": "pw",
    "cqlsh": "p",
    "mosquitto": "P",
    "zip": "P",
    "unzip": "P",
    "7z": "p",
    "login": "p",
}
_QUOTED = {
    '"': re.compile(r"(?:[^\"\\\n]|\\(?![\"\\]))++"),
    "'": re.compile(r"(?:[^'\\\n]|\\(?!['\\]))++"),
}
_ARGUMENT = re.compile(r"(?:[^\s\"'\\]|\\(?![\"'\\])){1,512}")

_ESCAPED = re.compile(
    r"\\{1,16}(?:(?:u00|x)(?P<code>[2-7][0-9a-fA-F])|(?P<letter>[nrt\"']))|&(?:#(?P<number>3[49]|6[0-2]|58)|(?P<name>quot|apos|lt|gt));"
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}
_ENTITIES = {"quot": '"', "apos": "'", "lt": "<", "gt": ">"}

_BLOCKS = frozenset({"-", "|", ">", "|-", ">-", "|+", ">+"})
_APART = re.compile(r"[{}<>]|\n\s{0,64}-")
_NAMED = re.compile(r"\\{0,16}[\"'`]?(?P<name>[\w.-]{1,128}+)")
_ESCAPED_BLOCK = re.compile(r"(?:-|[|>][+-]?)\\{1,16}n|(?:-|[|>][+-]?)$")
_AFTER_ESCAPE = re.compile(r"\\n[ \t]{0,16}$")
_TRIPLE = ('"""', "'''")
_DEEPEST = 80
_NEAR = 400
"""Characters between a name and its value, where they stand apart."""

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
_PERCENT_HINTS = ("%25", "%3A", "%3a", "%3D", "%3d", "%22", "%27", "%40")
_TIMES_ENCODED = 4
ENCODED_LIMIT = 64
"""Encoded words of a text that are looked into; those beyond are masked."""

_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/_-])(?=[a-z0-9+/_-]{0,64}[A-Z])[A-Za-z0-9+/_-]{16,}+={0,2}(?![A-Za-z0-9+/=_-])"
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
    return _Values(also, _Budget(VALUE_LENGTH_LIMIT), LENGTH_LIMIT, LENGTH_LIMIT).any(value, 0)


def redact_command(argv: Sequence[str]) -> str:
    """Return a command line for people, the value after an option such as ``--password`` masked."""
    return " ".join(map(str, redact_value(list(argv))))


def redact_event(event: Event, *, also: frozenset[Personal] = EVENT_PERSONAL) -> Event:
    """Return *event* with every text of it redacted, then cut to what is kept of it. Never raises.

    At most ``EVENT_LENGTH_LIMIT`` characters are looked at in all; what is beyond is cut off unlooked at.
    """
    texts = _Texts(also, _Budget(EVENT_LENGTH_LIMIT))
    return replace(
        event,
        service=texts.name(event.service),
        message=texts.text(event.message, MESSAGE_LIMIT),
        release=texts.name(event.release),
        severity=texts.name(event.severity),
        problem=texts.name(event.problem),
        fingerprint=texts.name(event.fingerprint),
        raised=tuple([_redact_raised(raised, texts) for raised in event.raised]),
        facts={texts.name(key): texts.values.item(key, value, 1) for key, value in event.facts.items()},
        context=texts.object(event.context),
        system=texts.object(event.system),
    )


def harmless(text: str) -> str:
    """Replace what would steer a terminal: messages and labels come from strangers."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


class _Budget:
    """How many characters may still be looked at."""

    def __init__(self, characters: int) -> None:
        self.left = characters

    def take(self, text: str, limit: int) -> str:
        """Return what may be looked at of *text*, with a mark where it was cut."""
        limit = min(limit, self.left)
        self.left = max(self.left - len(text) - TEXT_COST, 0)
        if len(text) <= limit:
            return text
        kept = text[: max(limit - 1, 0)]
        return kept[: max(kept.rfind(blank, -LAST_WORD) for blank in (" ", "\n")) + 1 or -LAST_WORD] + CUT


class _Texts:
    """The texts of one event, within one budget."""

    def __init__(self, also: frozenset[Personal], budget: _Budget) -> None:
        self._also = also
        self._budget = budget
        self.values = _Values(also, budget, LOOKED_AT * TEXT_LIMIT, TEXT_LIMIT)

    def text(self, text: str, limit: int) -> str:
        return _cut(redact(self._budget.take(text, LOOKED_AT * limit), also=self._also), limit)

    def object(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an object redacted; what could not be looked at is one too."""
        found = self.values.any(value, 0)
        return found if isinstance(found, Mapping) else {CUT: found}

    def name(self, text: str) -> str:
        return _name(self._budget.take(text, TEXT_LIMIT), self._also)


def _redact_raised(raised: Raised, texts: _Texts) -> Raised:
    return replace(
        raised,
        type=texts.name(raised.type),
        message=texts.text(raised.message, MESSAGE_LIMIT),
        frames=tuple([_redact_frame(frame, texts) for frame in raised.frames]),
        notes=tuple([texts.text(note, TEXT_LIMIT) for note in raised.notes]),
    )


def _redact_frame(frame: Frame, texts: _Texts) -> Frame:
    return replace(
        frame,
        module=texts.name(frame.module),
        function=texts.name(frame.function),
        file=texts.name(frame.file),
    )


@lru_cache(maxsize=1024)
def _name(text: str, also: frozenset[Personal]) -> str:
    """Redact what repeats from event to event: names of code and files."""
    return redact(text, also=also)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + CUT


class _Values:
    """One walk through a value, within its budget."""

    def __init__(self, also: frozenset[Personal], budget: _Budget, looked_at: int, kept: int) -> None:
        self._also = also
        self._budget = budget
        self._looked_at = looked_at
        self._kept = kept

    def any(self, value: Any, depth: int) -> Any:
        self._budget.left -= ITEM_COST
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return _number(value)
        if depth >= DEPTH_LIMIT or self._budget.left <= 0:
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
        named = _names_a_secret(value)
        for key, item in value.items():
            if len(kept) >= WIDTH_LIMIT:
                kept[CUT] = MASK
                break
            name = self._text(key)
            if named and item not in (None, "") and str(key).lower() in VALUE_KEYS:
                kept[name] = MASK
            else:
                kept[name] = self.item(name if name == FAILED else str(key), item, depth)
        return kept

    def _list(self, items: list[Any], depth: int) -> list[Any]:
        kept = [self._member(items, at, depth) for at in range(min(len(items), WIDTH_LIMIT))]
        kept = self._arguments(kept)
        return [*kept, MASK] if len(items) > WIDTH_LIMIT else kept

    def _arguments(self, items: list[Any]) -> list[Any]:
        """Redact what is a secret on the command line that a list is: by what stands before it."""
        words = [_as_word(item) for item in items]
        if len(items) > ARGUMENTS_LIMIT or not any(word.startswith("-") for word in words):
            return items
        clean = redact(self._budget.take(" ".join(words), LENGTH_LIMIT), also=self._also).split(" ")
        if clean == words:
            return items
        if len(clean) == len(words):
            return [item if word == old else MASK if old == _WORDS else word
                    for item, old, word in zip(items, words, clean, strict=True)]  # fmt: skip
        same = next((at for at, pair in enumerate(zip(words, clean, strict=False)) if pair[0] != pair[1]), 0)
        return [*items[:same], *[MASK] * (len(items) - same)]

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
        return _cut(redact(self._budget.take(text, self._looked_at), also=self._also), self._kept)


_WORDS = "\ue000"
"""Stands for an argument that is no single word: it is redacted by itself, or masked whole."""

ARGUMENTS_LIMIT = 256


def _as_word(item: Any) -> str:
    return item if isinstance(item, str) and item.split() == [item] else _WORDS


def _number(value: float) -> Any:
    """Mask a number that is one of a card."""
    if not CARDS_FROM <= value < CARDS_TO or value != int(value):
        return value
    return value if redact(str(int(value))) == str(int(value)) else MASK


CARDS_FROM, CARDS_TO = 10**11, 10**19


def _names_a_secret(value: Mapping[Any, Any]) -> bool:
    """Whether an object is the name of a secret and its value."""
    for key, name in value.items():
        if (
            isinstance(name, str)
            and str(key).lower() in NAME_KEYS
            and (is_secret_key(name) or is_weak_key(name))
        ):
            return True
    return False


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
    """Redact what is written, then what it says once its escapes are read, those of JSON and of HTML."""
    clean = _redacted_plain(text, also, inner=inner)
    if inner and ("\\" in clean or "&" in clean):
        plain = _ESCAPED.sub(_unescape, clean)
        if plain != clean and (more := _redacted_plain(plain, also, inner=True)) != plain:
            return more
    return clean


def _unescape(found: re.Match[str]) -> str:
    if found["code"]:
        letter = chr(int(found["code"], 16))
        return found[0] if letter == "\\" else letter
    if found["letter"]:
        return _LETTERS.get(found["letter"], found["letter"])
    return chr(int(found["number"])) if found["number"] else _ENTITIES[found["name"]]


def _redacted_plain(text: str, also: frozenset[Personal], *, inner: bool) -> str:
    words = set(text.split())  # each word once: what is looked for is in one word, whatever its order
    vocabulary = " ".join(words)
    lowered = vocabulary.lower()
    long_words = " ".join([word for word in words if len(word) >= TOKEN_LENGTH])
    text = _apply(ADDRESSES, text, lowered)
    if long_words:
        text = _apply(TOKENS, text, long_words.lower())
    if may_have_keys(vocabulary, lowered):
        text = _redact_keyed(_apply(PHRASES, text, lowered), lowered)
    if "ailing row contains" in text:
        text = _redact_bound(text, lowered)
    if inner and long_words:
        text = _redact_encoded(text, long_words)
    text = _apply(NUMBERS, text, lowered)
    return _redact_personal(text, lowered, also) if also else text


def _redact_keyed(text: str, lowered: str) -> str:
    if "<" in text:
        text = _redact_elements(text)
    if "insert" in lowered:
        text = _redact_inserts(text)
    if ")" in text:
        text = _redact_tuples(text)
    if any([hint in lowered for hint in _BOUND_HINTS]):  # noqa: C419 - a list is faster
        text = _redact_bound(text, lowered)
    if "SET" in text:
        text = _SET.sub(_mask_set, text)
    if "'" in text:
        text = _DUPLICATE.sub(_mask_duplicate, _redact_after(_COMPARED, text))
    if "input_value=" in text:
        text = _redact_rejected(text)
    if any([hint in lowered for hint in _COMMANDS]):  # noqa: C419 - a list is faster
        text = _redact_commands(text)
    return _redact_assigned(_OPTION.sub(_mask_option, text))


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


def _redact_assigned(text: str) -> str:
    """Mask the values of secret keys, also where one pair has the name and another the value."""
    edits: list[tuple[int, int, str]] = []
    named = -1  # where the name of a secret ends whose value may follow
    held = -1  # where a value begins whose name may follow
    at = 0
    while found := _ASSIGNMENT.search(text, at):
        at = found.end()
        value = _value_of(text, found)
        word = found["key"].lower() if value is None else ""
        if word in NAME_KEYS:
            name = _NAMED.match(text, at)
            is_named = name is not None and (is_secret_key(name["name"]) or is_weak_key(name["name"]))
            named = name.end() if is_named and name is not None else -1
            if is_named and held >= 0 and found.start() - held <= _NEAR:
                before = text[held : found.start()]
                one = _value_at(before, 0, "value")
                if one is not None and _APART.search(before, one[1]) is None:
                    edits.append((held, held + one[1], one[0]))
            held = -1
        elif word in VALUE_KEYS:
            if named >= 0 and _are_near(text, named, found.start()):
                value = _value_at(text, at, word)
            held = at
        if value is not None:
            edits.append((at, value[1], value[0]))
            at = value[1]
    return _replaced(text, edits) if edits else text


def _are_near(text: str, start: int, end: int) -> bool:
    """Whether what stands between a name and a value leaves them parts of one thing."""
    return end - start <= _NEAR and _APART.search(text, start, end) is None


def _value_of(text: str, found: re.Match[str]) -> tuple[str, int] | None:
    """Return what stands for the value that a key leads to, and where it ends; None if it stays."""
    key, start, told = found["key"], found.end(), found.groupdict()
    is_secret = is_secret_key(key) or _is_secret_otherwise(text[found.start() - 1 : found.start()], key, told)
    if not is_secret and not is_weak_key(key):
        return None
    if is_secret:
        return None if told.get("paired") and not _is_pair(text, found) else _value_at(text, start, key)
    if told.get("quoted") or told.get("plain") == "=":
        value = _value_at(text, start, key)
        return value if value is not None and _may_be_secret(text[start : value[1]]) else None
    return None


def _is_secret_otherwise(before: str, key: str, told: dict[str, str | None]) -> bool:
    """Whether a key is secret without its first letter, as in ``-Dpassword``, or by what it is asked for."""
    if (before == "\\" or (before == "-" and key.startswith("D"))) and is_secret_key(key[1:]):
        return True
    index = told.get("index")
    return index is not None and any([is_secret_key(one) for one in index.split("]")])  # noqa: C419 - faster


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
    if text.startswith(_TRIPLE, start):
        end = text.find(text[start : start + 3], start + 3)
        return MASK, len(text) if end == -1 else end + 3
    if quoted := _QUOTED_VALUE.match(text, start):
        return _quoted_value(quoted)
    if text[start : start + 1] in ("[", "{", "("):
        return MASK, _end_of_bracket(text, start)
    return _bare_value(text, start, key)


def _bare_value(text: str, start: int, key: str) -> tuple[str, int] | None:
    whole_line = not _REST_OF_LINE.isdisjoint(words_of(key))
    bare = (_HEADER_VALUE if whole_line else _BARE_VALUE).match(text, start)
    if bare is None or bare[0].lower() in _PLAIN_VALUES:
        return None
    end = bare.end()
    if bare[0] in _BLOCKS or (bare[0].endswith(":") and _is_first(text, start)):
        return MASK, _end_of_block(text, start)
    if _ESCAPED_BLOCK.match(bare[0]) or (
        bare[0].endswith(":") and _AFTER_ESCAPE.search(text, max(start - 24, 0), start)
    ):
        return MASK, _end_of_line(text, end)
    called = text[end : end + 1] in ("(", "[", "{") and not whole_line and bare[0] != MASK
    return MASK, _end_of_bracket(text, end) if called else end


def _is_first(text: str, start: int) -> bool:
    """Whether what begins at *start* is the first of its line."""
    line = text.rfind("\n", max(start - _DEEPEST, 0), start)
    return line != -1 and not text[line:start].strip()


def _end_of_block(text: str, start: int) -> int:
    """Return where what is indented as deep as the first line from *start* on, or deeper, ends."""
    first = start if _is_first(text, start) else _end_of_line(text, start) + 1
    line = text.rfind("\n", 0, first) + 1
    indent = len(text[line : line + _DEEPEST]) - len(text[line : line + _DEEPEST].lstrip(" \t"))
    end = _end_of_line(text, first)
    while end < len(text):
        next_line = text[end + 1 : end + 1 + indent]
        if next_line.strip(" \t\r") or (indent == 0 and text[end + 1 : end + 2] != "-"):
            break
        end = _end_of_line(text, end + 1)
    return end


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


def _replaced(text: str, edits: list[tuple[int, int, str]]) -> str:
    """Return *text* with (from, to, instead) done, in their order; one inside another is left out."""
    kept: list[str] = []
    done = 0
    for start, end, instead in sorted(edits):
        if start >= done:
            kept += (text[done:start], instead)
            done = end
    return "".join((*kept, text[done:]))


def _redact_elements(text: str) -> str:
    """Mask what secret elements of XML hold, other elements too."""
    edits: list[tuple[int, int, str]] = []
    at = 0
    unclosed: set[str] = set()
    while found := _ELEMENT.search(text, at):
        at = found.end()
        attribute = _ATTRIBUTE.search(found["more"]) if found["more"] else None
        if not is_secret_key(found["key"]) and not (attribute and is_secret_key(attribute["key"])):
            continue
        end = _end_of_element(text, found, unclosed)
        if end is not None and text[found.start("value") : end].strip() not in ("", MASK):
            edits.append((found.start("value"), end, MASK))
            at = end
    return _replaced(text, edits) if edits else text


def _end_of_element(text: str, found: re.Match[str], unclosed: set[str]) -> int | None:
    """Return where what *found* holds ends; None if it is no element but a word between brackets."""
    if found["value"].endswith("CDATA["):
        end = text.find("]]>", found.end())
        return len(text) if end == -1 else end + len("]]>")
    if text.startswith("</", found.end()):
        return found.end()
    if text.startswith("<", found.end()) and not found["value"].strip():
        if len(unclosed) > _UNCLOSED_LIMIT:
            return len(text)
        end = -1 if found["key"] in unclosed else text.find(f"</{found['key']}", found.end())
        if end == -1:
            unclosed.add(found["key"])
        return None if end == -1 else end
    return None


def _redact_tuples(text: str) -> str:
    edits: list[tuple[int, int, str]] = []
    at = 0
    while found := _TUPLE.search(text, at):
        at = found.end()
        if _has_secret_column(found["columns"]):
            at = _end_of_bracket(text, at)
            edits.append((found.end(), at, f"({MASK})"))
    return _replaced(text, edits) if edits else text


def _has_secret_column(columns: str) -> bool:
    return any([is_secret_key(column.strip(' "`[]\n')) for column in columns.split(",")])  # noqa: C419 - faster


def _redact_bound(text: str, lowered: str) -> str:
    """Mask what was bound to a statement that names a secret column, all of it: its places have no names."""
    edits: list[tuple[int, int, str]] = []
    first = -1
    at = 0
    while found := _BOUND.search(text, at):
        at = found.end()
        if not found["row"]:
            if first < 0:
                first = _first_secret_name(text, lowered)
            if first >= found.start():
                continue
        at = _end_of_line(text, at) if text[at] == "$" else _end_of_bracket(text, at)
        edits.append((found.end(), at, MASK))
    return _replaced(text, edits) if edits else text


def _first_secret_name(text: str, lowered: str) -> int:
    """Return where the first secret name of a statement stands, or the end of the text."""
    if any([word in lowered for word in _STATEMENTS]):  # noqa: C419 - a list is faster
        for found in _NAME.finditer(text):
            if is_secret_key(found[0]):
                return found.start()
    return len(text)


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end == -1 else end


def _redact_rejected(text: str) -> str:
    edits: list[tuple[int, int, str]] = []
    for found in _REJECTED.finditer(text):
        value = _INPUT.match(text, found.end()) if is_secret_key(found["key"]) else None
        if value is not None:
            edits.append((value.start(), value.end(), MASK))
    return _replaced(text, edits)


def _mask_duplicate(found: re.Match[str]) -> str:
    return f"{found['lead']}{MASK}{found['tail']}" if is_secret_key(found["key"]) else found[0]


def _redact_commands(text: str) -> str:
    """Mask passwords that programs take by short options, which mean something else to other programs."""
    edits: list[tuple[int, int, str]] = []
    option = command = ""
    has_tool = False
    at = 0
    while found := _COMMAND.search(text, at):
        at = found.end()
        if found["end"]:
            option, has_tool = "", False
        elif found["tool"]:
            has_tool = True
        elif found["command"]:
            if found["command"] != "login" or has_tool:
                command = _family(found["command"])
                option = _PASSWORD_OPTIONS[command]
        elif option and found["option"] == option and (not found["apart"] or command not in _GLUED):
            value = (_QUOTED[found["quote"]] if found["quote"] else _ARGUMENT).match(text, at)
            if value is not None:
                edits.append((at, value.end(), MASK))
                at = value.end()
    return _replaced(text, edits) if edits else text


def _family(command: str) -> str:
    return (
        command
        if command in _PASSWORD_OPTIONS
        else next(name for name in _PASSWORD_OPTIONS if command.startswith(name))
    )


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
        if found.start() < done or not _has_secret_column(found["columns"]):
            continue
        end = text.find(";\n", found.end())
        end = len(text) if end == -1 else end
        kept += (text[done : found.end()], _LITERAL.sub(f"'{MASK}'", text[found.end() : end]))
        done = end
    return "".join((*kept, text[done:]))


def _redact_encoded(text: str, words: str) -> str:
    """Mask what holds a secret once it is decoded."""
    encoded = _Encoded()
    if any(hint in words for hint in _PERCENT_HINTS):
        text = _PERCENT.sub(encoded.percent, text)
    return _BASE64.sub(encoded.base64, text) if _BASE64.search(words) else text


class _Encoded:
    """Looks into the encoded words of one text, and masks those that are too many to look into."""

    def __init__(self) -> None:
        self._left = ENCODED_LIMIT

    def percent(self, found: re.Match[str]) -> str:
        plain = found[0]
        for _ in range(_TIMES_ENCODED if self._left else 0):
            plain = unquote(plain)
            if "%" not in plain:
                break
        return MASK if self._hides(plain) else found[0]

    def base64(self, found: re.Match[str]) -> str:
        text = found[0].replace("-", "+").replace("_", "/").rstrip("=")
        padded = text[: len(text) // 4 * 4] if len(text) % 4 == 1 else text + "=" * (-len(text) % 4)
        try:
            plain = base64.b64decode(padded).decode()
        except (binascii.Error, ValueError):
            return found[0]
        return MASK if self._hides(plain) else found[0]

    def _hides(self, plain: str) -> bool:
        self._left -= 1
        return self._left < 0 or _redacted(plain, NOTHING, inner=False) != plain


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
