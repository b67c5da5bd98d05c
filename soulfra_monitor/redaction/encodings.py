"""Reads what is written in another way: the escapes of JSON and HTML, percent encoding, base64."""

import binascii
import re
from collections.abc import Callable

from soulfra_monitor.redaction.patterns import Pattern
from soulfra_monitor.redaction.shapes import MASK

_ESCAPED = Pattern(r"\\{1,16}(?:(?:u00|x)(?P<code>[2-7][0-9a-fA-F])|(?P<letter>[nrt\"']))")
_ENTITY = Pattern(r"&(?:#(?P<number>3[49]|6[0-2]|58)|(?P<name>quot|apos|lt|gt));")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}
_ENTITIES = {"quot": '"', "apos": "'", "lt": "<", "gt": ">"}
_PERCENT = Pattern(r"(?<![^\s\"'<>])[^\s\"'<>%]*+%[^\s\"'<>]*+")
_PERCENT_HINTS = ("%25", "%3A", "%3a", "%3D", "%3d", "%22", "%27", "%40")
_TIMES_ENCODED = 4

ENCODED_LIMIT = 64
"""Encoded words of a text that are looked into; those beyond are masked."""

_BASE64 = Pattern(
    r"(?<![A-Za-z0-9+/_-])(?=[a-z0-9+/_-]{0,64}[A-Z])[A-Za-z0-9+/_-]{16,}+={0,2}(?![A-Za-z0-9+/=_-])"
)


def unescaped(text: str) -> str:
    """Return *text* with the escapes of JSON and HTML read."""
    if "\\" in text:
        text = _ESCAPED.sub(_letter, text)
    return _ENTITY.sub(_sign, text) if "&" in text else text


def _letter(found: re.Match[str]) -> str:
    if found["code"]:
        letter = chr(int(found["code"], 16))
        return found[0] if letter == "\\" else letter
    return _LETTERS.get(found["letter"], found["letter"])


def _sign(found: re.Match[str]) -> str:
    return chr(int(found["number"])) if found["number"] else _ENTITIES[found["name"]]


def may_be_encoded(text: str, words: str, is_secret: Callable[[str], bool]) -> bool:
    """Say quickly whether *text* holds encoded secrets, from those of its words that are long enough."""
    return any([hint in text for hint in _PERCENT_HINTS]) or redact_encoded(words, is_secret) != words  # noqa: C419 - faster


def redact_encoded(text: str, is_secret: Callable[[str], bool]) -> str:
    """Mask what holds a secret once it is decoded."""
    encoded = _Encoded(is_secret)
    if any(hint in text for hint in _PERCENT_HINTS):
        text = _PERCENT.sub(encoded.percent, text)
    return _BASE64.sub(encoded.base64, text)


class _Encoded:
    """Looks into the encoded words of one text, and masks those that are too many to look into."""

    def __init__(self, is_secret: Callable[[str], bool]) -> None:
        self._is_secret = is_secret
        self._left = ENCODED_LIMIT

    def percent(self, found: re.Match[str]) -> str:
        from urllib.parse import unquote  # noqa: PLC0415 - many modules, for a notation that few texts have

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
            plain = binascii.a2b_base64(padded).decode()
        except (binascii.Error, ValueError):
            return found[0]
        return MASK if self._hides(plain) else found[0]

    def _hides(self, plain: str) -> bool:
        self._left -= 1
        return self._left < 0 or self._is_secret(plain)
