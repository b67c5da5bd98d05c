"""The kinds of probes. A probe function asks once and never raises: a failure is its outcome."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from importlib import import_module
from typing import Any

from exporter.kinds import plugin_of
from exporter.observation import Outcome
from exporter.probes.context import Context

ProbeFunction = Callable[[Any, Context], Awaitable[Outcome]]

PATIENCE = 5.0
"""Seconds that a plugin gets beyond twice its timeout: one that never answers would stay what it was."""

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
    if kind in PROBES:
        function: ProbeFunction = import_module(PROBES[kind]).probe
        return function
    plugin = plugin_of(kind)
    if plugin is None:
        raise KeyError(kind)
    return _bounded(plugin.probe)


def _bounded(function: ProbeFunction) -> ProbeFunction:
    """Return *function*, a stranger's, with an end: it raises TimeoutError."""

    @wraps(function)
    async def probe(config: Any, context: Context) -> Outcome:
        async with asyncio.timeout(2 * context.timeout + PATIENCE):
            return await function(config, context)

    return probe
