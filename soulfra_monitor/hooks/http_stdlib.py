"""Requests that get no answer or a 5xx: ``http.client``, and with it urllib, urllib3, requests and botocore.

Every attempt of urllib3's own retries is told: each hurt, and the program goes on.
"""

import sys
from types import FrameType, ModuleType
from typing import Any

from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.answers import Asked, clock, means_failure
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import leave

ASKED = "_soulfra_asked"
"""What a connection was asked last, and then what a response is the answer to, as ``_ask`` gives it."""


def install(reporter: Reporter) -> Undo:
    """Report refused, reset, timed-out and unresolvable connections, failed handshakes, 5xx and 429."""
    patches = Patches(reporter, "http_stdlib")
    patches.on_import("http.client", lambda module: _fit(patches, module))
    patches.on_import("urllib3.connection", lambda module: _fit_urllib3(patches, module))
    patches.on_import("urllib3.response", lambda module: _fit_urllib3_response(patches, module))
    return patches.undo


def _fit(patches: Patches, module: ModuleType) -> None:
    misuse = (module.ImproperConnectionState, module.NotConnected, module.InvalidURL)
    failures = (OSError, module.HTTPException)
    watched = _watched(patches, failures, misuse)

    def make_put(function: Any) -> Any:
        def putrequest(self: Any, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
            vars(self)[ASKED] = _ask(self, method, url)
            return function(self, method, url, *args, **kwargs)

        return putrequest

    def make_get(function: Any) -> Any:
        def getresponse(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                response = function(self, *args, **kwargs)
            except failures as error:
                if not isinstance(error, misuse):
                    patches.safely(_failed, patches, self, error)
                leave(error)
                raise
            vars(response)[ASKED] = vars(self).pop(ASKED, None)
            if means_failure(response.status):
                patches.safely(_answered, patches, response, sys._getframe(1))  # noqa: SLF001 - who asked
            return response

        return getresponse

    patches.wrap(module.HTTPConnection, "putrequest", make_put)
    patches.wrap(module.HTTPConnection, "connect", watched)
    patches.wrap(module.HTTPConnection, "send", watched)
    patches.wrap(module.HTTPConnection, "getresponse", make_get)
    if hasattr(module, "HTTPSConnection"):
        patches.wrap(module.HTTPSConnection, "connect", watched)
    for name in ("read", "read1", "readinto"):
        patches.wrap(module.HTTPResponse, name, watched)


def _fit_urllib3(patches: Patches, module: ModuleType) -> None:
    """See to its own ``connect``, which does not call that of ``http.client``."""
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - it has been imported

    watched = _watched(patches, (OSError, HTTPError), ())
    patches.wrap(module.HTTPConnection, "connect", watched)
    if "connect" in vars(module.HTTPSConnection):
        patches.wrap(module.HTTPSConnection, "connect", watched)


def _fit_urllib3_response(patches: Patches, module: ModuleType) -> None:
    """See to bodies that end early, which urllib3 finds out by itself when it reads in parts."""
    from urllib3.exceptions import IncompleteRead, ProtocolError  # noqa: PLC0415 - they have been imported

    def make(function: Any) -> Any:
        def read(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(self, *args, **kwargs)
            except ProtocolError as error:
                if isinstance(error.__cause__, IncompleteRead):  # others were told by http.client
                    patches.safely(_failed, patches, self._original_response, error)
                leave(error)
                raise

        return read

    patches.wrap(module.HTTPResponse, "read", make)


def _watched(
    patches: Patches, failures: tuple[type[Exception], ...], misuse: tuple[type[Exception], ...]
) -> Any:
    """Return what wraps methods whose failures are told."""

    def make(function: Any) -> Any:
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(self, *args, **kwargs)
            except failures as error:
                if not isinstance(error, misuse):
                    patches.safely(_failed, patches, self, error)
                leave(error)
                raise

        return watched

    return make


def _failed(patches: Patches, owner: Any, error: BaseException) -> None:
    _asked(owner).failed(patches.outlet, error)


def _answered(patches: Patches, response: Any, frame: FrameType) -> None:
    _asked(response).answered(patches.outlet, response.status, frame)


def _ask(connection: Any, method: Any, path: Any) -> tuple[Any, ...]:
    """Return all that there may be to tell of a request; the response must not keep the connection."""
    host = getattr(connection, "_tunnel_host", None) or connection.host
    port = getattr(connection, "_tunnel_port", None) or connection.port
    return method, connection.default_port, host, port, path, clock()


def _asked(owner: Any) -> Asked:
    found = vars(owner).get(ASKED)
    if found is None:
        found = _ask(owner, "", "") if hasattr(owner, "host") else ("", 80, "", "", "", None)
    method, default_port, host, port, path, began = found
    return Asked(method, _url(default_port, host, port, str(path)), began)


def _url(default_port: int, host: str, port: object, path: str) -> str:
    if "://" in path:  # as proxies are asked
        return path
    scheme = "https" if default_port == 443 else "http"  # noqa: PLR2004 - as http.client has it
    return f"{scheme}://{f'[{host}]' if ':' in str(host) else host}:{port}{path}"
