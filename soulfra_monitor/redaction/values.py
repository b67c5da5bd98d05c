"""Masks secrets in JSON-like values, by key and by their shape, within a budget of characters."""

from collections.abc import Mapping, Sequence
from typing import Any

from soulfra_monitor.redaction.keys import NAME_KEYS, VALUE_KEYS, is_secret_key, is_weak_key
from soulfra_monitor.redaction.personal import Personal
from soulfra_monitor.redaction.shapes import MASK
from soulfra_monitor.redaction.texts import CUT, FAILED, FAILURES, LENGTH_LIMIT, NOTHING, cut, redact

DEPTH_LIMIT = 32
"""Deeper values are masked whole: nobody reads them, and a cycle ends here."""

WIDTH_LIMIT = 10_000
"""Items looked at of one list or object; the rest is masked as one."""

VALUE_LENGTH_LIMIT = 4 << 20
"""Characters looked at of one value in all."""

TEXT_COST = 32
ITEM_COST = 8
"""What a text and an item of a value cost beside their characters, in characters."""

LAST_WORD = 512
"""A word as long as this at most is dropped where a text is cut: half a secret does not look like one."""

ARGUMENTS_LIMIT = 256
CARDS_FROM, CARDS_TO = 10**11, 10**19

_WORDS = "\ue000"
"""Stands for an argument that is no single word: it is redacted by itself, or masked whole."""


def redact_value(value: Any, *, also: frozenset[Personal] = NOTHING) -> Any:
    """Return a copy of a JSON-like value with secrets masked, by key and by their shape.

    Whatever is not JSON becomes text. Never raises.
    """
    return Values(also, Budget(VALUE_LENGTH_LIMIT), LENGTH_LIMIT, LENGTH_LIMIT).any(value, 0)


def redact_command(argv: Sequence[str]) -> str:
    """Return a command line for people, the value after an option such as ``--password`` masked."""
    return " ".join(map(str, redact_value(list(argv))))


class Budget:
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


class Values:
    """One walk through a value, within its budget."""

    def __init__(self, also: frozenset[Personal], budget: Budget, looked_at: int, kept: int) -> None:
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
        return cut(redact(self._budget.take(text, self._looked_at), also=self._also), self._kept)


def _as_word(item: Any) -> str:
    return item if isinstance(item, str) and item.split() == [item] else _WORDS


def _number(value: float) -> Any:
    """Mask a number that is one of a card."""
    if not CARDS_FROM <= value < CARDS_TO or value != int(value):
        return value
    return value if redact(str(int(value))) == str(int(value)) else MASK


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
