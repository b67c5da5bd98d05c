"""Masks secrets in a text: what is one by its shape, what stands under a secret key, texts inside texts.

What was masked may bare what leads to another secret, so a text is gone through until nothing changes.
"""

from collections import Counter

from soulfra_monitor.redaction.assignments import (
    redact_assigned,
    redact_options,
    redact_rejected,
)
from soulfra_monitor.redaction.commands import redact_commands
from soulfra_monitor.redaction.encodings import may_be_encoded, redact_encoded, unescaped
from soulfra_monitor.redaction.keys import may_have_keys
from soulfra_monitor.redaction.markup import redact_elements
from soulfra_monitor.redaction.patterns import Places
from soulfra_monitor.redaction.personal import Personal, redact_personal
from soulfra_monitor.redaction.randomness import RANDOM_LENGTH
from soulfra_monitor.redaction.shapes import (
    ADDRESSES,
    MASK,
    NUMBERS,
    PHRASES,
    TOKEN_LENGTH,
    TOKENS,
    mask_random,
)
from soulfra_monitor.redaction.statements import redact_bound, redact_statements
from soulfra_monitor.redaction.tables import redact_tables

FAILED = "[redaction failed]"

FAILURES: Counter[str] = Counter()
"""How often redaction itself failed, by exception type. For a metric; no text is kept."""

LENGTH_LIMIT = 1 << 20
"""Characters looked at of one text; the rest is cut off."""

PASSES = 6
"""Times that a text is gone through; what still changes then is masked whole."""

CUT = "…"
NOTHING: frozenset[Personal] = frozenset()


def redact(text: str, *, also: frozenset[Personal] = NOTHING) -> str:
    """Return *text* with what looks like a secret replaced by ``***``. Doing it twice changes nothing.

    Never raises: a text that cannot be redacted is replaced by ``[redaction failed]``.
    """
    try:
        return _settled(cut(text, LENGTH_LIMIT), also)
    except Exception as error:  # noqa: BLE001 - whatever it is, the text must not leave
        FAILURES[type(error).__name__] += 1
        return FAILED


def harmless(text: str) -> str:
    """Replace what would steer a terminal: messages and labels come from strangers."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + CUT


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
    if inner and (plain := unescaped(clean)) != clean:
        more = _redacted_plain(plain, also, inner=True)
        return clean if more == plain else more
    return clean


def _redacted_plain(text: str, also: frozenset[Personal], *, inner: bool) -> str:
    words = set(text.split())  # each word once: what is looked for is in one word, whatever its order
    vocabulary = " ".join((*words, ""))
    lowered = vocabulary.lower()
    long = [word for word in words if len(word) >= TOKEN_LENGTH]
    long_words = " ".join(long)
    text = ADDRESSES.masked(text, lowered)
    if long_words:
        text = TOKENS.masked(text, long_words.lower())
        longest = " | ".join([word for word in long if len(word) >= RANDOM_LENGTH])
        if mask_random(longest) != longest:
            text = mask_random(text)
    if may_have_keys(vocabulary, lowered):
        text = _redact_keyed(text, lowered)
    if "ailing row contains" in text:
        text = redact_bound(text, lowered)
    if inner and may_be_encoded(text, long_words, _hides):
        text = redact_encoded(text, _hides)
    text = NUMBERS.masked(text, lowered)
    return redact_personal(text, lowered, also) if also else text


def _redact_keyed(text: str, lowered: str) -> str:
    places = Places(text)
    text = PHRASES.masked_at(places, lowered)
    if "<" in text:
        text = redact_elements(text)
    text = redact_tables(text)
    text = redact_rejected(redact_statements(text, lowered))
    text = redact_options(redact_commands(text, lowered))
    return redact_assigned(places if text == places.text else Places(text), lowered)


def _hides(plain: str) -> bool:
    """Whether what was decoded holds a secret."""
    return _redacted(plain, NOTHING, inner=False) != plain
