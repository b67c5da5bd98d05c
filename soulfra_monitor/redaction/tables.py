"""Masks the secret columns of tables: what psql, mysql and sqlcmd print, and tables of Markdown."""

import re

from soulfra_monitor.redaction.extents import end_of_line
from soulfra_monitor.redaction.keys import is_secret_key
from soulfra_monitor.redaction.patterns import Edit, Pattern, replaced
from soulfra_monitor.redaction.shapes import MASK

_RULE = Pattern(r"^[-+|:├╞╟─═┼╪╫┤╡╢ \t]{3,}+\r?$", re.MULTILINE)
"""The line between the head of a table and its rows."""

_DASHES = Pattern(r"[-─═:]{2,}")
_BORDER = Pattern(r"[|│┃║]")
_CELL_LENGTH = 64
_NO_VALUES = frozenset({"", MASK, "null", "none", "[null]", "<null>"})


def redact_tables(text: str) -> str:
    if "--" not in text and "──" not in text and "══" not in text:
        return text
    edits: list[Edit] = []
    for rule in _RULE.finditer(text):
        head = text[text.rfind("\n", 0, max(rule.start() - 1, 0)) + 1 : max(rule.start() - 1, 0)].rstrip("\r")
        if _BORDER.search(head):
            secret = [at for at, cell in enumerate(_BORDER.split(head)) if _is_secret(cell)]
            if secret:
                _mask_cells(text, rule.end(), secret, len(_BORDER.split(head)), edits)
        else:
            spans = [dashes.span() for dashes in _DASHES.finditer(rule[0])]
            apart = len(spans) > 1 or head[:1].isspace()  # one word with a line below it is a heading
            columns = [
                (start, spans[at + 1][0] if at + 1 < len(spans) else None)
                for at, (start, end) in enumerate(spans)
                if apart and _is_secret(head[start:end])
            ]
            if columns:
                _mask_columns(text, rule.end(), columns, edits)
    return replaced(text, edits) if edits else text


def _is_secret(cell: str) -> bool:
    return len(cell) <= _CELL_LENGTH and len(cell.split()) in (1, 2) and is_secret_key(cell.strip(' \t`*"'))


def _mask_cells(text: str, start: int, secret: list[int], width: int, edits: list[Edit]) -> None:
    """Mask cells between borders; in a row of more cells than its head all behind the first secret one."""
    while start < len(text):
        end = end_of_line(text, start + 1)
        borders = [border.start() for border in _BORDER.finditer(text, start + 1, end)]
        if not borders:
            return
        edges = [start, *borders, end - text[start + 1 : end].endswith("\r")]
        if len(edges) - 1 > width:
            last = -2 if not text[edges[-2] + 1 : edges[-1]].strip() else -1
            spans = [(edges[secret[0]], edges[last])]
        else:
            spans = [(edges[at], edges[at + 1]) for at in secret if at + 1 < len(edges)]
        edits += [
            (one + 1, other, f" {MASK} ".ljust(other - one - 1))
            for one, other in spans
            if text[one + 1 : other].strip().lower() not in _NO_VALUES
        ]
        start = end


def _mask_columns(text: str, start: int, columns: list[tuple[int, int | None]], edits: list[Edit]) -> None:
    """Mask columns that have their places, up to a line that is blank or counts the rows."""
    while start < len(text):
        end = end_of_line(text, start + 1)
        line = text[start + 1 : end].rstrip("\r")
        if not line.strip() or line.startswith("("):
            return
        for one, other in columns:
            cell = line[one:other]
            if cell.strip().lower() not in _NO_VALUES:
                last = len(line) if other is None else min(other, len(line))
                edits.append((start + 1 + one, start + 1 + last, MASK.ljust(last - one)))
        start = end
