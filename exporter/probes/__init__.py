"""The kinds of probes. A probe function asks once and never raises: a failure is its outcome."""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from exporter.observation import Outcome
from exporter.probes.context import Context

ProbeFunction = Callable[[Any, Context], Awaitable[Outcome]]

PROBES: dict[str, str] = {
    "http": "exporter.probes.http",
    "tcp": "exporter.probes.tcp",
    "redis": "exporter.probes.redis",
    "process": "exporter.probes.process",
}
"""Kind to module; each has ``probe``. Modules, because libraries of a kind that nobody uses cost memory."""


def probe_function(kind: str) -> ProbeFunction:
    """Import and return the probe function of *kind*."""
    function: ProbeFunction = import_module(PROBES[kind]).probe
    return function
