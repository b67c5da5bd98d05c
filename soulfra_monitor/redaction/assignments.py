"""Masks the values of secret keys in whatever notation: ``k=v``, ``k: v``, ``"k": "v"``, ``--k v``."""

import re

from soulfra_monitor.redaction.extents import PLAIN_VALUES, QUOTED_VALUE, value_at
from soulfra_monitor.redaction.keys import (
    KEY_LENGTH,
    NAME_KEYS,
    VALUE_KEYS,
    is_secret_key,
    is_weak_key,
    key_places,
    words_of,
)
from soulfra_monitor.redaction.patterns import Edit, Pattern, Places, edited, replaced
from soulfra_monitor.redaction.randomness import looks_like_a_password, looks_like_a_token
from soulfra_monitor.redaction.shapes import MASK

_SIGNS = 160
"""Characters between the word for a name and the name, at most."""

_BLANKS = r"(?:\s|\\{1,16}[nrt]){0,64}+"
"""Between keys and values: people align them, and JSON escapes tabs and the ends of lines."""

_ASSIGNMENT = Pattern(
    r"(?P<key>[^\W\d](?<!\w.)[\w.-]{0,127}+)(?![\w.-])"
    r"(?:(?P<quoted>\\{0,16}[\"'`])?[\])]?(?P<index>(?:\[[^\[\]\s]{1,64}\]){1,4})?"
    rf"(?P<plain>{_BLANKS}(?:=>|:=|->|[!=]={{1,2}}(?=\s{{0,4}}[bBrRuU]?\\{{0,16}}[\"'`])|[:=|\u2192\u2502]|\\{{1,16}}u2(?:192|502)){_BLANKS})"
    r"|(?P<paired>\\{0,16}[\"'],\s{0,64}+)(?=\\{0,16}[bBrRuU]?[\"']))"
)
"""A key and what leads to its value: k=v, k: v, 'k': v, k => v, ('k', 'v'), (k)=(v), | k | v |."""


_COMPARED = Pattern(
    r"(?P<key>[^\W\d](?<!\w.)[\w.-]{0,127}+)[\"`\]]?\s{1,64}+(?i:i?like|in|by|<>|!=)\s{0,64}+\(?\s{0,64}+(?=')"
)
"""A key and its value in SQL: k LIKE 'v', k IN ('v')."""

_REJECTED = Pattern(
    r"(?:\A|\n|\\n)(?P<key>[^\W\d][\w.-]{0,127}+)(?:\r?\n|\\{1,16}n)[ \t]{1,16}"
    r"(?:(?!input_value=)[^\n\\]){0,1000}+input_value=",
)
"""A field and what was wrong with its value, as pydantic says."""

_INPUT = Pattern(r"(?:(?!, input_type=)[^\n])*+")
_OPTION = Pattern(
    r"-(?<!\w.)(?P<key>[^\W\d][\w.-]{0,127}+)"
    r"(?:[ \t]{1,64}+|\\{0,16}[\"'],\s{0,64}+(?=\\{0,16}[\"']))(?!-)(?:\\{0,16}[\"'])?"
    r"(?P<value>(?:[^\s\"'\\]|\\(?![\"'\\])){1,2000})"
)
_APART = Pattern(r"[{}<>]|\n\s{0,64}-")
_NAMED = Pattern(r"\\{0,16}[\"'`]?(?P<name>[\w.-]{1,128}+)")

_NAMES = tuple(NAME_KEYS)
_NO_WORD = " \t\r\n!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~\u2192\u2502"
_ESCAPES = ("\\n", "\\r", "\\t", "\\u2192", "\\u2502")
_SIGN = Pattern(r"[=:>|\u2192\u2502]|u2(?:192|502)")

_WORD = Pattern(r"[\w.-]{0,256}")
_START = Pattern(r"[^\W\d](?<!\w.)")
_NEAR = 400
"""Characters between a name and its value, where they stand apart."""

_NO_SECRETS = frozenset(
    "success failed failure enabled disabled required missing invalid expired closed".split()  # noqa: SIM905 - one line
)
_WEAK_LENGTH = 6


def redact_rejected(text: str) -> str:
    """Mask the values of secret fields that pydantic rejected."""
    edits: list[Edit] = []
    for found in _REJECTED.finditer(text) if "input_value=" in text else ():
        value = _INPUT.match(text, found.end()) if is_secret_key(found["key"]) else None
        if value is not None:
            edits.append((value.start(), value.end(), MASK))
    return replaced(text, edits)


def redact_options(text: str) -> str:
    """Mask what stands behind secret options, as ``--password``."""
    return _OPTION.sub(_mask_option, text)


def _mask_option(found: re.Match[str]) -> str:
    key, value = found["key"], found["value"]
    is_secret = is_secret_key(key) or (_is_pass(key) and looks_like_a_password(value))
    if not is_secret or value.lower() in PLAIN_VALUES:
        return found[0]
    return found[0].removesuffix(found["value"]) + MASK


def redact_assigned(places: Places, lowered: str) -> str:
    """Mask the values of secret keys, also where one pair has the name and another the value."""
    text = places.text
    edits: list[Edit] = []
    at = done = 0
    has_quotes = "'" in text
    found_at = key_places(places, lowered)
    if places.are_dense(found_at):
        return _redact_all_assigned(text)
    for place in found_at:
        if place < done:
            continue
        floor = max(at, place - KEY_LENGTH)
        start, done = _word_at(text, floor, place)
        if done - start >= KEY_LENGTH or _is_named(text, start):
            return _redact_all_assigned(text)
        if start == floor or not text[start].isalpha():
            first = _START.search(text, start, done)
            if first is None:
                continue
            start = first.start()
        found = _ASSIGNMENT.match(text, start) or (_COMPARED.match(text, start) if has_quotes else None)
        value = value_of(text, found) if found else None
        if found and value is not None:
            edits.append((found.end(), value[1], value[0]))
            at = done = value[1]
    return replaced(text, edits) if edits else text


def _word_at(text: str, floor: int, place: int) -> tuple[int, int]:
    """Return where the key around *place* begins, not before *floor*, and where it ends."""
    start = place
    while start > floor and (text[start - 1].isalnum() or text[start - 1] in "_.-"):
        start -= 1
    end = _WORD.match(text, place)
    return start, end.end() if end else place


def _is_named(text: str, start: int) -> bool:
    """Whether the word that begins at *start* may be the value of a key for names."""
    before = text[max(start - _SIGNS, 0) : start]
    name = before.rstrip(_NO_WORD)
    while name.endswith(_ESCAPES):
        name = name[: name.rindex("\\")].rstrip(_NO_WORD)
    return name[-16:].lower().endswith(_NAMES) and _SIGN.search(before, len(name)) is not None


def _redact_compared(text: str) -> str:
    """Mask what secret columns are compared with in SQL."""

    def look(found: re.Match[str]) -> Edit | None:
        value = value_of(text, found)
        return None if value is None else (found.end(), value[1], value[0])

    return edited(text, _COMPARED, look)


def _redact_all_assigned(text: str) -> str:
    """Do the same by all assignments, which costs more."""
    text = _redact_compared(text)
    edits: list[Edit] = []
    named = -1  # where the name of a secret ends whose value may follow
    held = -1  # where a value begins whose name may follow
    at = 0
    while found := _ASSIGNMENT.search(text, at):
        at = found.end()
        value = value_of(text, found)
        word = found["key"].lower() if value is None else ""
        if word in NAME_KEYS:
            name = _NAMED.match(text, at)
            is_named = name is not None and (is_secret_key(name["name"]) or is_weak_key(name["name"]))
            named = name.end() if is_named and name is not None else -1
            if is_named and held >= 0 and found.start() - held <= _NEAR:
                before = text[held : found.start()]
                one = value_at(before, 0, "value")
                if one is not None and _APART.search(before, one[1]) is None:
                    edits.append((held, held + one[1], one[0]))
            held = -1
        elif word in VALUE_KEYS:
            if named >= 0 and _are_near(text, named, found.start()):
                value = value_at(text, at, word)
            held = at
        if value is not None:
            edits.append((at, value[1], value[0]))
            at = value[1]
    return replaced(text, edits) if edits else text


def _are_near(text: str, start: int, end: int) -> bool:
    """Whether what stands between a name and a value leaves them parts of one thing."""
    return end - start <= _NEAR and _APART.search(text, start, end) is None


def value_of(text: str, found: re.Match[str]) -> tuple[str, int] | None:
    """Return what stands for the value that a key leads to, and where it ends; None if it stays."""
    key, start, told = found["key"], found.end(), found.groupdict()
    is_secret = is_secret_key(key) or _is_secret_otherwise(text[found.start() - 1 : found.start()], key, told)
    if not is_secret and not is_weak_key(key):
        return None
    if is_secret:
        return None if told.get("paired") and not _is_pair(text, found) else value_at(text, start, key)
    value = value_at(text, start, key)
    if value is None:
        return None
    bare, plain = text[start : value[1]].strip("\\\"'`"), told.get("plain") or ""
    if told.get("quoted") or plain == "=":
        is_secret = _may_be_secret(bare)
    else:
        is_sign = key != "PASS" and (":" in plain or plain[:1].isspace())
        is_secret = is_sign and (looks_like_a_password if _is_pass(key) else looks_like_a_token)(bare)
    return value if is_secret else None


def _is_secret_otherwise(before: str, key: str, told: dict[str, str | None]) -> bool:
    """Whether a key is secret without its first letter, as in ``-Dpassword``, or by what it is asked for."""
    if (before == "\\" or (before == "-" and key.startswith("D"))) and is_secret_key(key[1:]):
        return True
    index = told.get("index")
    return index is not None and any([is_secret_key(one) for one in index.split("]")])  # noqa: C419 - faster


def _is_pair(text: str, found: re.Match[str]) -> bool:
    """Whether the key is the first of a list or tuple, and what follows it no key itself."""
    opened = re.search(r"[(\[]\s{0,4}[bu]?\\{0,16}[\"']$", text[max(found.start() - 24, 0) : found.start()])
    value = QUOTED_VALUE.match(text, found.end())
    return opened is not None and (value is None or text[value.end() : value.end() + 1] != ":")


def _is_pass(key: str) -> bool:
    return words_of(key)[-1:] == ["pass"]


def _may_be_secret(value: str) -> bool:
    return len(value) >= _WEAK_LENGTH and value.lower() not in _NO_SECRETS
