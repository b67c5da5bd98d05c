"""The reasons a kind of probe can give, the kinds of plugins included."""

from functools import cache

from exporter.kinds import plugin_of
from exporter.observation import REASONS, Reason

OF_ANY = (
    Reason.DNS,
    Reason.CONNECT_REFUSED,
    Reason.CONNECT_TIMEOUT,
    Reason.CONNECT_FAILED,
    Reason.TLS_HANDSHAKE,
    Reason.TLS_VERIFY,
    Reason.TLS_EXPIRED,
    Reason.TIMEOUT,
    Reason.RESET,
    Reason.PROTOCOL,
    Reason.ANSWER,
    Reason.INTERNAL,
)
"""What a plugin is taken to give that does not say it in ``REASONS``."""


@cache
def reasons_of(kind: str) -> tuple[Reason, ...]:
    """Return the reasons whose counters start at 0 for probes of *kind*. A plugin may give others too."""
    if kind in REASONS:
        return REASONS[kind]
    plugin = plugin_of(kind)
    told = getattr(plugin, "REASONS", ()) if plugin is not None else ()
    known = tuple(Reason(reason) for reason in told if reason in set(Reason))
    return tuple(dict.fromkeys((*known, Reason.INTERNAL))) if known else OF_ANY
