"""Redis that cannot be reached or drops the connection, told where a command fails after all its retries."""

import inspect
import time
from types import ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact, Reporter, Undo
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import here, leave

METHODS: dict[str, tuple[tuple[str, str], ...]] = {
    "redis.client": (
        ("Redis", "execute_command"),
        ("Pipeline", "execute"),
        ("Pipeline", "immediate_execute_command"),
        ("PubSub", "_execute"),
    ),
    "redis.asyncio.client": (
        ("Redis", "execute_command"),
        ("Pipeline", "execute"),
        ("Pipeline", "immediate_execute_command"),
        ("PubSub", "_execute"),
    ),
    "redis.cluster": (("RedisCluster", "execute_command"),),
    "redis.asyncio.cluster": (("RedisCluster", "execute_command"),),
}
"""What of redis-py carries out a command, retries included."""

FAILURES = (
    "ConnectionError",
    "TimeoutError",
    "ReadOnlyError",
    "ClusterDownError",
    "MasterDownError",
    "OutOfMemoryError",
)
"""Exceptions of redis-py that speak of the server; the others speak of the command."""


def install(reporter: Reporter) -> Undo:
    """Report commands that fail because of the connection or the state of the server."""
    patches = Patches(reporter, "redis_clients")
    for name in METHODS:
        patches.on_import(name, lambda module: _fit(patches, module))
    return patches.undo


def _fit(patches: Patches, module: ModuleType) -> None:
    from redis import exceptions  # noqa: PLC0415 - it has been imported

    failures = tuple(getattr(exceptions, name) for name in FAILURES if hasattr(exceptions, name))

    def failed(client: Any, began: float, error: BaseException) -> None:
        facts: dict[str, Fact] = {"seconds": round(time.monotonic() - began, 3)}
        peer = _peer(client)
        if peer:
            facts["peer"] = peer
        patches.outlet.raised(Kind.REDIS, error, facts=facts, context={"at": here()})

    def make(function: Any) -> Any:
        def command(self: Any, *args: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return function(self, *args, **options)
            except failures as error:
                patches.safely(failed, self, began, error)
                leave(error)
                raise

        async def command_async(self: Any, *args: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return await function(self, *args, **options)
            except failures as error:
                patches.safely(failed, self, began, error)
                leave(error)
                raise

        return command_async if inspect.iscoroutinefunction(function) else command

    for owner, name in METHODS[module.__name__]:
        found = getattr(module, owner, None)
        if found is not None and name in vars(found):
            patches.wrap(found, name, make)


def _peer(client: Any) -> str:
    """Return host:port or the path of the socket; empty where the client knows several servers."""
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", None) or {}
    if options.get("path"):
        return str(options["path"])
    return f"{options['host']}:{options.get('port', 6379)}" if options.get("host") else ""
