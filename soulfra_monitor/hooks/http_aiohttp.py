"""Requests of aiohttp that get no answer or a 5xx."""

import sys
from types import ModuleType
from typing import Any

from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.answers import Asked, clock, means_failure
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import leave


def install(reporter: Reporter) -> Undo:
    """Report what ``ClientSession`` and ``ClientResponse.read`` raise, and answers of 5xx and 429."""
    patches = Patches(reporter, "http_aiohttp")
    patches.on_import("aiohttp.client", lambda module: _fit(patches, module))
    return patches.undo


def _fit(patches: Patches, module: ModuleType) -> None:
    failures = (module.ClientError, OSError)  # TimeoutError is one

    def make_request(function: Any) -> Any:
        async def _request(self: Any, method: Any, str_or_url: Any, **options: Any) -> Any:
            began = clock()
            try:
                response = await function(self, method, str_or_url, **options)
            except failures as error:
                patches.safely(_failed, patches, (self, method, str_or_url, began), error)
                leave(error)
                raise
            if means_failure(response.status):
                asked = Asked(response.method, response.url, began)
                frame = sys._getframe(1)  # noqa: SLF001 - who asked
                patches.safely(asked.answered, patches.outlet, response.status, frame)
            return response

        return _request

    def make_read(function: Any) -> Any:
        async def read(self: Any) -> Any:
            try:
                return await function(self)
            except failures as error:
                patches.safely(Asked(self.method, self.url).failed, patches.outlet, error)
                leave(error)
                raise

        return read

    patches.wrap(module.ClientSession, "_request", make_request)
    patches.wrap(module.ClientResponse, "read", make_read)


def _failed(patches: Patches, asked: tuple[Any, Any, Any, float], error: BaseException) -> None:
    session, method, url, began = asked
    if isinstance(error, ValueError):  # an address that is none
        return
    one = Asked(method, session._build_url(url), began)  # noqa: SLF001 - a session may have a base
    status = getattr(error, "status", None)
    if status is None:
        one.failed(patches.outlet, error)
    elif means_failure(status):
        one.refused(patches.outlet, error, status)
