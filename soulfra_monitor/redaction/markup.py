"""Masks what secret elements of XML and HTML hold."""

import re

from soulfra_monitor.redaction.keys import is_secret_key
from soulfra_monitor.redaction.patterns import Edit, Pattern, edited
from soulfra_monitor.redaction.shapes import MASK

_ELEMENT = Pattern(
    r"<(?P<key>[^\W\d][\w:.-]{0,63})(?P<more>\s[^<>]{0,400})?>(?P<value>\s*+<!\[CDATA\[|[^<]*+)"
)

_UNCLOSED_LIMIT = 16
"""Names of elements whose end is looked for in vain; what is in the next one is masked to the end."""

_ATTRIBUTE = Pattern(r"\b(?:name|key|id)\s{0,4}=\s{0,4}[\"'](?P<key>[\w.-]{1,128})")


def redact_elements(text: str) -> str:
    """Mask what secret elements hold, other elements too."""
    unclosed: set[str] = set()

    def look(found: re.Match[str]) -> Edit | None:
        attribute = _ATTRIBUTE.search(found["more"]) if found["more"] else None
        if not is_secret_key(found["key"]) and not (attribute and is_secret_key(attribute["key"])):
            return None
        start, end = found.start("value"), _end_of_element(text, found, unclosed)
        return None if end is None or text[start:end].strip() in ("", MASK) else (start, end, MASK)

    return edited(text, _ELEMENT, look)


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
