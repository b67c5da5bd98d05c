"""Requests of httpx that get no answer or a 5xx. Transports that are not httpx's own are left alone."""

import sys
from types import ModuleType
from typing import Any

from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.answers import Asked, means_failure
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import leave


def install(reporter: Reporter) -> Undo:
    """Report what httpx's transports and reading a whole body raise, and answers of 5xx and 429."""
    patches = Patches(reporter, "http_httpx")
    patches.on_import("httpx", lambda module: _fit(patches, module))
    return patches.undo


def _fit(patches: Patches, module: ModuleType) -> None:
    ours = _Wrapping(patches, module)
    patches.wrap(module.HTTPTransport, "handle_request", ours.handle)
    patches.wrap(module.AsyncHTTPTransport, "handle_async_request", ours.handle_async)
    patches.wrap(module.Response, "read", ours.read)
    patches.wrap(module.Response, "aread", ours.read_async)


class _Wrapping:
    """What stands around the methods of httpx."""

    def __init__(self, patches: Patches, module: ModuleType) -> None:
        self._patches = patches
        self._failure: type[Exception] = module.TransportError
        self._misuse: type[Exception] = module.UnsupportedProtocol

    def _answered(self, asked: Asked, response: Any) -> None:
        if means_failure(response.status_code):
            frame = sys._getframe(2)  # noqa: SLF001 - who asked
            self._patches.safely(asked.answered, self._patches.outlet, response.status_code, frame)

    def _failed(self, asked: Asked, error: BaseException) -> None:
        if not isinstance(error, self._misuse):
            self._patches.safely(asked.failed, self._patches.outlet, error)

    def handle(self, function: Any) -> Any:
        def handle_request(transport: Any, request: Any) -> Any:
            asked = Asked(request.method, request.url)
            try:
                response = function(transport, request)
            except self._failure as error:
                self._failed(asked, error)
                leave(error)
                raise
            self._answered(asked, response)
            return response

        return handle_request

    def handle_async(self, function: Any) -> Any:
        async def handle_async_request(transport: Any, request: Any) -> Any:
            asked = Asked(request.method, request.url)
            try:
                response = await function(transport, request)
            except self._failure as error:
                self._failed(asked, error)
                leave(error)
                raise
            self._answered(asked, response)
            return response

        return handle_async_request

    def read(self, function: Any) -> Any:
        def read(response: Any) -> Any:
            try:
                return function(response)
            except self._failure as error:
                self._failed(Asked(response.request.method, response.request.url), error)
                leave(error)
                raise

        return read

    def read_async(self, function: Any) -> Any:
        async def aread(response: Any) -> Any:
            try:
                return await function(response)
            except self._failure as error:
                self._failed(Asked(response.request.method, response.request.url), error)
                leave(error)
                raise

        return aread
