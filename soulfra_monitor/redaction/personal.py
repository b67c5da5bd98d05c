"""Masks what is no secret and may yet be nobody's business."""

import re
from enum import StrEnum

from soulfra_monitor.redaction.patterns import Pattern
from soulfra_monitor.redaction.shapes import EMAIL, HOME, MASK


class Personal(StrEnum):
    """What is no secret and may yet be nobody's business; masked when asked for."""

    EMAIL = "email"
    ADDRESS = "address"  # public IP addresses; private and loopback ones stay, operators need them
    HOME = "home"  # the user's name in the path of a home folder


_IPV4 = Pattern(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)")
_IPV6 = Pattern(r"(?<![\w:.])[0-9a-fA-F:]{3,39}(?:\.\d{1,3}){0,3}(?![\w:.]*\w)")


def redact_personal(text: str, lowered: str, also: frozenset[Personal]) -> str:
    if Personal.EMAIL in also:
        text = EMAIL.pattern.sub(EMAIL.replacement, text) if "@" in lowered else text
    if Personal.HOME in also:
        text = HOME.pattern.sub(HOME.replacement, text)
    if Personal.ADDRESS in also:
        text = _IPV6.sub(_mask_address, _IPV4.sub(_mask_address, text))
    return text


def _mask_address(found: re.Match[str]) -> str:
    import ipaddress  # noqa: PLC0415 - heavy for a library in other people's processes, and rarely asked for

    try:
        return MASK if ipaddress.ip_address(found[0]).is_global else found[0]
    except ValueError:
        return found[0]
