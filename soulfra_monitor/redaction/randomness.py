"""Tells what somebody drew by lot, or made up as a password, from what people and programs call things.

Entropy alone does not: names of classes and of tests have as much of it as tokens. What sets a drawn word
apart is how often it goes from letters to digits and back, and that few of its letters stand in runs that
could be words. Hashes and numbers of all kinds are random too, and no secrets: digits of base 16 count only
where a sentence calls them a secret.
"""

import binascii

from soulfra_monitor.redaction.patterns import Pattern

RANDOM_LENGTH = 30
"""Characters of the shortest word that can be random by itself: most identifiers are shorter."""

_PASSWORD_LENGTH = 6
_SEGMENT = Pattern(r"[A-Za-z0-9]+")
_HASH = Pattern(r"[0-9a-f]{4,}|[0-9A-F]{4,}")
_PLAIN = Pattern(r"[A-Z]?[a-z]{2,}[0-9]?|[A-Z]{3,}")
_HEX = Pattern(r"[0-9a-f]+|[0-9A-F]+")
_SWITCH = Pattern(r"(?<=[A-Za-z])[0-9]|(?<=[0-9])[A-Za-z]")
_RUN = Pattern(r"[a-z]{4,}|[A-Z]{4,}|[0-9]{8,}")
_READABLE = Pattern(r"[\t\n\r -~]*")
_ODD = Pattern(r"[0-9!@#$%^&*]")
_ORDINARY = Pattern(
    r"(?i)v?\d[\d.,:-]*[a-z%]{0,5}|(?:sha|md|utf|base|crc|rs|hs|es|x|ed|aes)-?\d+\w{0,8}"
    r"|argon2\w{0,2}|pbkdf2\w{0,16}|o?auth2|\w{0,16}2fa|(?:user|level|policy|step|host|node|test\w{0,64}?)-?\d+|test\w{1,128}"
    r"|[a-z]{2,32}(?:[-_][a-z0-9]{1,32}){1,8}|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,63}|[\w-]{1,64}\.[a-z]{1,5}"
)
"""Words with digits that are no passwords: amounts, procedures, names with a number, addresses, files."""


def is_random(word: str) -> bool:
    """Whether a word of at least RANDOM_LENGTH was drawn by lot, and is no text in base64 either."""
    parts = [part for part in _SEGMENT.findall(word) if not _HASH.fullmatch(part)]
    drawn = max(parts, key=len, default="") if any(map(_PLAIN.fullmatch, parts)) else "".join(parts)
    if len(drawn) < 20:  # noqa: PLR2004 - 20 letters and digits are 100 bits
        return False
    switches = len(_SWITCH.findall(drawn))
    if drawn.lower() == drawn or drawn.upper() == drawn:
        return len(drawn) >= RANDOM_LENGTH and switches >= len(drawn) / 4
    few = switches < max(3, len(drawn) / 9)
    return switches > 0 and not _has_words(drawn, 0.2 if few else 0.5) and not _is_readable(word)


def looks_like_a_token(word: str) -> bool:
    """Whether a word that a sentence calls a token is one, and not the next word of the sentence."""
    segments = _SEGMENT.findall(word) if len(word.split()) == 1 else []
    core = "".join(segments)
    if core.isdigit() or core.isalpha():
        return False
    if _HEX.fullmatch(core):
        return len(core) >= 16  # noqa: PLR2004 - 64 bits
    longest = max(segments, key=len, default="")
    if len(longest) < 10:  # noqa: PLR2004 - names with numbers are shorter
        return False
    switches = len(_SWITCH.findall(longest))
    if longest.lower() == longest or longest.upper() == longest:
        return switches >= max(3, len(longest) / 6)
    numbers = 2 if len(longest) >= 16 else 3  # noqa: PLR2004 - a name has one, or two
    return switches >= numbers and not _has_words(longest, 0.6)


def looks_like_a_password(word: str) -> bool:
    """Whether a word that a sentence calls a password is one, and not the next word of the sentence."""
    bare = word.strip(".,:;!?)")
    if (
        len(bare) < _PASSWORD_LENGTH
        or "/" in bare
        or "::" in bare
        or bare.startswith(("$", "%"))
        or len(bare.split()) > 1
    ):
        return False
    return _ODD.search(bare) is not None and not bare.isdigit() and _ORDINARY.fullmatch(bare) is None


def _has_words(word: str, share: float) -> bool:
    """Whether more than a share of a word stands in runs that may be words."""
    return sum(map(len, _RUN.findall(word))) > share * len(word)


def _is_readable(word: str) -> bool:
    text = word.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        plain = binascii.a2b_base64(text[: len(text) // 4 * 4]).decode("ascii")
    except ValueError:
        return False
    return _READABLE.fullmatch(plain) is not None
