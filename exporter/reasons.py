"""The reasons a kind of probe can give, the kinds of plugins included, and what they mean for a service."""

from collections.abc import Mapping
from functools import cache

from exporter.kinds import plugin_of
from exporter.observation import REASONS, Reason
from soulfra_monitor.problems import Problem

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


TROUBLES: Mapping[tuple[str, Reason], Problem] = {
    ("filesystem", Reason.LIMIT): Problem.DISK_FULL,
    ("filesystem", Reason.PERMISSION): Problem.PERMISSION_DENIED,  # it is read-only
    ("filesystem", Reason.MISSING): Problem.MISSING_FILE,
    ("file", Reason.MISSING): Problem.MISSING_FILE,
    ("file", Reason.PERMISSION): Problem.PERMISSION_DENIED,
    ("file", Reason.LIMIT): Problem.STATE_INCONSISTENT,  # its age or size is not what it should be
    ("queue", Reason.LIMIT): Problem.QUEUE_STUCK,
    ("queue", Reason.STUCK): Problem.QUEUE_STUCK,
    ("redis", Reason.LIMIT): Problem.SERVICE_DEGRADED,
    ("postgres", Reason.LIMIT): Problem.SERVICE_DEGRADED,
    ("mysql", Reason.LIMIT): Problem.SERVICE_DEGRADED,
    ("process", Reason.LIMIT): Problem.SERVICE_DEGRADED,
    ("container", Reason.LIMIT): Problem.MEMORY_PRESSURE,
}
"""Failures that tell of a trouble and never make the service down: it answers, and no restart mends them."""

LOCAL_KINDS = frozenset({"file", "filesystem", "process", "command", "container"})
"""Kinds that look at this machine alone: what they see says nothing about the network."""


def trouble_of(kind: str, reason: Reason | None) -> Problem | None:
    """Return what a failure of a probe of *kind* tells; None when it says that the service is down."""
    return None if reason is None else TROUBLES.get((kind, reason))
