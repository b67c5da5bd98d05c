"""The kinds of probes. A probe function asks once and never raises: a failure is its outcome."""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from exporter.kinds import plugin_of
from exporter.observation import Outcome
from exporter.probes.context import Context

ProbeFunction = Callable[[Any, Context], Awaitable[Outcome]]

PROBES: dict[str, str] = {
    "http": "exporter.probes.http",
    "steps": "exporter.probes.steps",
    "tcp": "exporter.probes.tcp",
    "redis": "exporter.probes.redis",
    "queue": "exporter.probes.queue",
    "container": "exporter.probes.container",
    "process": "exporter.probes.process",
    "file": "exporter.probes.file",
    "filesystem": "exporter.probes.filesystem",
    "command": "exporter.probes.command",
    "unix": "exporter.probes.unix",
    "dns": "exporter.probes.dns",
    "grpc": "exporter.probes.grpc",
    "postgres": "exporter.probes.postgres",
    "mysql": "exporter.probes.mysql",
}
"""Kind to module; each has ``probe``. Modules, because libraries of a kind that nobody uses cost memory."""


def probe_function(kind: str) -> ProbeFunction:
    """Import and return the probe function of *kind*, which may be a plugin's."""
    module = import_module(PROBES[kind]) if kind in PROBES else plugin_of(kind)
    if module is None:
        raise KeyError(kind)
    function: ProbeFunction = module.probe
    return function
