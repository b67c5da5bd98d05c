"""Masks what looks like a secret in text and values, before they leave the process.

Layers, in this order: what is secret by its shape (``shapes``), what stands under a secret key (``keys``) in
whatever notation, and texts inside texts (percent-encoded, base64). When in doubt the value goes: what
cannot be read to its end is masked to its end, what is too deep, too wide or too long is masked whole, and a
failure of our own replaces the text by ``[redaction failed]``.
"""

from soulfra_monitor.redaction.events import EVENT_LENGTH_LIMIT, LOOKED_AT, redact_event
from soulfra_monitor.redaction.keys import is_secret_key
from soulfra_monitor.redaction.personal import Personal
from soulfra_monitor.redaction.shapes import MASK
from soulfra_monitor.redaction.texts import CUT, FAILED, FAILURES, harmless, redact
from soulfra_monitor.redaction.values import DEPTH_LIMIT, WIDTH_LIMIT, redact_command, redact_value

__all__ = [
    "CUT",
    "DEPTH_LIMIT",
    "EVENT_LENGTH_LIMIT",
    "FAILED",
    "FAILURES",
    "LOOKED_AT",
    "MASK",
    "WIDTH_LIMIT",
    "Personal",
    "harmless",
    "is_secret_key",
    "redact",
    "redact_command",
    "redact_event",
    "redact_value",
]
