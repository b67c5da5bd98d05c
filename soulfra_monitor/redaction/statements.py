"""Masks what stands under secret columns and keys in statements of SQL and Redis, and in answers to them."""

import re

from soulfra_monitor.redaction.extents import end_of_bracket, end_of_line
from soulfra_monitor.redaction.keys import is_secret_key
from soulfra_monitor.redaction.patterns import Edit, Pattern, edited
from soulfra_monitor.redaction.shapes import MASK

_INSERT = Pattern(
    r"[Ii](?<!\w.)(?i:nsert\s{1,64}(?:ignore\s{1,64})?into\s{1,64}[\w.\"`\[\]]{1,128}\s{0,64}"
    r"\((?P<columns>[^()]{1,2000})\)\s{0,64}values)\s{0,64}(?=\()"
)

_TUPLE = Pattern(r"\((?P<columns>[^()=]{1,2000})\)\s{0,64}=\s{0,64}(?=\()")
"""Columns and their values, as Postgres tells of a constraint: (a, k)=(1, v)."""

_DUPLICATE = Pattern(
    r"(?P<lead>[Dd]uplicate entry ')(?P<value>(?:[^'\\\n]|\\.)*+)(?P<tail>' for key '(?P<key>[^'\n]{1,128})')"
)

_BOUND = Pattern(
    r"(?:[PpBb](?<!\w.)(?i:arameters|arams|ind(?:s|ings| values)?|ARGS)\b|[Aa](?<!\w.)rgs\b"
    r"|[Dd]uplicate key value is\b|(?P<row>[Ff]ailing row contains))"
    r"\\{0,16}[\"']?\]?\s{0,16}[:=]?\s{0,16}(?=[\[({$])"
)
"""What goes before the values that were bound to a statement."""

_BOUND_HINTS = ("param", "bind", "args", "duplicate")
_STATEMENTS = ("select", "update", "insert", "delete", "where", "constraint")
_NAME = Pattern(r"[^\W\d][\w.]{1,127}+")
_SET = Pattern(
    r"(?P<set>[PSGHM](?<!\w.)(?:SETEX|ET(?:EX|NX)?|ETSET|M?SET)[ \t]{1,64}(?P<key>[^\s=]{1,256})[ \t]{1,64})"
    r"(?![=\s*])[^\r\n\"'`]{1,2000}"
)
_LITERAL = Pattern(r"'(?:[^'\r\n]|'')*'?|\$\$.*?(?:\$\$|\Z)", re.DOTALL)


def redact_statements(text: str, lowered: str) -> str:
    if "insert" in lowered:
        text = _redact_inserts(text)
    if ")" in text:
        text = _redact_tuples(text)
    if any([hint in lowered for hint in _BOUND_HINTS]):  # noqa: C419 - a list is faster
        text = redact_bound(text, lowered)
    if "SET" in text:
        text = _SET.sub(_mask_set, text)
    return _DUPLICATE.sub(_mask_duplicate, text) if "uplicate entry" in text else text


def _redact_inserts(text: str) -> str:
    """Mask the literals of a statement that fills a secret column: which is which is not worth a parser."""

    def look(found: re.Match[str]) -> Edit | None:
        if not _has_secret_column(found["columns"]):
            return None
        end = text.find(";\n", found.end())
        end = len(text) if end == -1 else end
        return found.end(), end, _LITERAL.sub(f"'{MASK}'", text[found.end() : end])

    return edited(text, _INSERT, look)


def _redact_tuples(text: str) -> str:
    def look(found: re.Match[str]) -> Edit | None:
        if not _has_secret_column(found["columns"]):
            return None
        return found.end(), end_of_bracket(text, found.end()), f"({MASK})"

    return edited(text, _TUPLE, look)


def _has_secret_column(columns: str) -> bool:
    return any([is_secret_key(column.strip(' "`[]\n')) for column in columns.split(",")])  # noqa: C419 - faster


def redact_bound(text: str, lowered: str) -> str:
    """Mask what was bound to a statement that names a secret column, all of it: its places have no names."""
    first = -1

    def look(found: re.Match[str]) -> Edit | None:
        nonlocal first
        if not found["row"]:
            if first < 0:
                first = _first_secret_name(text, lowered)
            if first >= found.start():
                return None
        at = found.end()
        return at, end_of_line(text, at) if text[at] == "$" else end_of_bracket(text, at), MASK

    return edited(text, _BOUND, look)


def _first_secret_name(text: str, lowered: str) -> int:
    """Return where the first secret name of a statement stands, or the end of the text."""
    if any([word in lowered for word in _STATEMENTS]):  # noqa: C419 - a list is faster
        for found in _NAME.finditer(text):
            if is_secret_key(found[0]):
                return found.start()
    return len(text)


def _mask_duplicate(found: re.Match[str]) -> str:
    return f"{found['lead']}{MASK}{found['tail']}" if is_secret_key(found["key"]) else found[0]


def _mask_set(found: re.Match[str]) -> str:
    return f"{found['set']}{MASK}" if is_secret_key(found["key"]) else found[0]
