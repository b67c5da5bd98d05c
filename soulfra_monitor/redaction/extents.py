"""Where the value ends that begins at a place of a text, in whatever notation, and its mask."""

import re

from soulfra_monitor.redaction.keys import words_of
from soulfra_monitor.redaction.patterns import Pattern
from soulfra_monitor.redaction.shapes import MASK

_BLOCKS = frozenset({"-", "|", ">", "|-", ">-", "|+", ">+"})
_ESCAPED_BLOCK = Pattern(r"(?:-|[|>][+-]?)\\{1,16}n|(?:-|[|>][+-]?)$")
_AFTER_ESCAPE = Pattern(r"\\n[ \t]{0,16}$")

_TRIPLE = ('"""', "'''")
_DEEPEST = 80
_REST_OF_LINE = frozenset({"authorization", "cookie"})
_HEADER_VALUE = Pattern(r"(?:=\"[^\"\r\n]*\"|[^\r\n\"'\\])+")
QUOTED_VALUE = Pattern(
    r"(?P<open>[bBrRuU]{0,2}\"|[bBrRuU]{0,2}'|`)(?:(?<=\")(?:[^\"\\\r\n]|\\.)*+\"?"
    r"|(?<=')(?:[^'\\\r\n]|\\.|''(?=\w))*+'?|(?<=`)[^`\r\n]*+`?)"
)
_ESCAPED_QUOTE = Pattern(r"\\{1,16}[\"']")
_BARE_VALUE = Pattern(
    r"(?:[^\s,;&\"'<>(){}\[\]\\]++|[,;&](?![\s\"'&;,]|[\w.-]{1,64}+[=:]|$)"
    r"|[\"'<>\])}\\](?=\w)(?!(?<=\\)n[-+|\u2500-\u257f]{2}))+"
)
_RULE = Pattern(r"(?:[-+|:─═┼┤├╪╡╞│╫╢╟┴┬]|\\{1,16}[nr]){3,}+")
"""The line below the head of a table is no value."""

_BRACKET = Pattern(r"\"(?:[^\"\\\r\n]|\\.)*+\"|'(?:[^'\\\r\n]|\\.)*+'|[\[\](){}]")
PLAIN_VALUES = frozenset({"none", "null", "true", "false", "undefined", "nil"})


def value_at(text: str, start: int, key: str) -> tuple[str, int] | None:
    if escaped := _ESCAPED_QUOTE.match(text, start):
        return _escaped_value(text, escaped)
    if text.startswith(_TRIPLE, start):
        end = text.find(text[start : start + 3], start + 3)
        return MASK, len(text) if end == -1 else end + 3
    if quoted := QUOTED_VALUE.match(text, start):
        return _quoted_value(quoted)
    if text[start : start + 1] in ("[", "{", "("):
        return MASK, end_of_bracket(text, start)
    return _bare_value(text, start, key)


def _bare_value(text: str, start: int, key: str) -> tuple[str, int] | None:
    whole_line = not _REST_OF_LINE.isdisjoint(words_of(key))
    bare = (_HEADER_VALUE if whole_line else _BARE_VALUE).match(text, start)
    if bare is None or bare[0].lower() in PLAIN_VALUES or _RULE.fullmatch(bare[0]):
        return None
    end = bare.end()
    if bare[0] in _BLOCKS or (bare[0].endswith(":") and _is_first(text, start)):
        return MASK, _end_of_block(text, start)
    if _ESCAPED_BLOCK.match(bare[0]) or (
        bare[0].endswith(":") and _AFTER_ESCAPE.search(text, max(start - 24, 0), start)
    ):
        return MASK, end_of_line(text, end)
    called = text[end : end + 1] in ("(", "[", "{") and not whole_line and bare[0] != MASK
    return MASK, end_of_bracket(text, end) if called else end


def _is_first(text: str, start: int) -> bool:
    """Whether what begins at *start* is the first of its line."""
    line = text.rfind("\n", max(start - _DEEPEST, 0), start)
    return line != -1 and not text[line:start].strip()


def _end_of_block(text: str, start: int) -> int:
    """Return where what is indented as deep as the first line from *start* on, or deeper, ends."""
    first = start if _is_first(text, start) else end_of_line(text, start) + 1
    line = text.rfind("\n", 0, first) + 1
    indent = len(text[line : line + _DEEPEST]) - len(text[line : line + _DEEPEST].lstrip(" \t"))
    end = end_of_line(text, first)
    while end < len(text):
        next_line = text[end + 1 : end + 1 + indent]
        if next_line.strip(" \t\r") or (indent == 0 and text[end + 1 : end + 2] != "-"):
            break
        end = end_of_line(text, end + 1)
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


def end_of_bracket(text: str, start: int) -> int:
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


def end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end == -1 else end
