"""Raw connections that nobody answers: refused, timed out, unreachable, or to a name that is not known.

Told is what a program asks for, not each try: ``create_connection`` and asyncio go through the addresses of a
name until one answers. ``connect_ex`` asks whether somebody is there, and its answers are none of ours. A
library that tells of its own requests, by a hook of its own, is left to it.
"""

import errno
import sys
import time
from types import FrameType, ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact, Reporter, Undo
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import here, leave

UNANSWERED = frozenset(
    (
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
    )
)
"""What the system says when nobody answers. Timeouts and unknown names are known by their class."""

PORTS = {
    6379: Kind.REDIS,
    3306: Kind.DATABASE,
    5432: Kind.DATABASE,
}
"""Who usually listens; what is behind other ports counts as a request."""

TELLERS = frozenset(
    (
        *("http", "urllib", "urllib3", "requests", "httpx", "httpcore", "aiohttp"),
        *("redis", "psycopg", "pymysql", "aiomysql", "asyncpg", "mysql", "sqlalchemy"),
        "multiprocessing",
    )
)
"""Packages whose failures have hooks of their own, or whose connections are among parts of one program."""

TRIES = frozenset((("socket", "create_connection"), ("asyncio.base_events", "_connect_sock")))
"""Where one address of several is tried."""

STACK_LIMIT = 100
"""Frames that are looked through for who connects."""


def install(reporter: Reporter) -> Undo:
    """Report connections over TCP that fail, by ``socket``, ``ssl`` and ``asyncio``."""
    patches = Patches(reporter, "sockets")
    patches.on_import("socket", lambda module: _fit(patches, module))
    patches.on_import("asyncio.base_events", lambda module: _fit_asyncio(patches, module))
    patches.on_import("asyncio.selector_events", lambda module: _fit_selector(patches, module))
    return patches.undo


def _fit(patches: Patches, module: ModuleType) -> None:
    def make_connect(connect: Any) -> Any:
        def replaced(self: Any, address: Any, /) -> None:
            try:
                connect(self, address)
            except OSError as error:
                if type(error) is not BlockingIOError:
                    patches.safely(_failed, patches, error, address, None)
                leave(error)
                raise

        return replaced

    def make_create(create: Any) -> Any:
        def replaced(address: Any, *args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return create(address, *args, **kwargs)
            except OSError as error:
                patches.safely(_failed, patches, error, address, began)
                leave(error)
                raise

        return replaced

    patches.wrap(module.socket, "connect", make_connect)
    patches.wrap(module, "create_connection", make_create)


def _fit_asyncio(patches: Patches, module: ModuleType) -> None:
    """See to the loops of Python; uvloop's connect by themselves."""

    def make(create: Any) -> Any:
        async def replaced(
            self: Any, protocol: Any, host: Any = None, port: Any = None, **kwargs: Any
        ) -> Any:
            began = time.monotonic()
            try:
                return await create(self, protocol, host, port, **kwargs)
            except OSError as error:
                patches.safely(_failed, patches, error, (host, port), began)
                leave(error)
                raise

        return replaced

    patches.wrap(module.BaseEventLoop, "create_connection", make)


def _fit_selector(patches: Patches, module: ModuleType) -> None:
    def make(connect: Any) -> Any:
        async def replaced(self: Any, sock: Any, address: Any) -> Any:
            began = time.monotonic()
            try:
                return await connect(self, sock, address)
            except OSError as error:
                patches.safely(_failed, patches, error, address, began)
                leave(error)
                raise

        return replaced

    patches.wrap(module.BaseSelectorEventLoop, "sock_connect", make)


def _failed(patches: Patches, error: OSError, address: Any, began: float | None) -> None:
    if not _is_unanswered(error) or not _is_tcp(address) or _is_told_by_others(sys._getframe(1)):  # noqa: SLF001
        return
    host, port = address[:2]
    facts: dict[str, Fact] = {"peer": f"{host}:{port}"}
    if began is not None:
        facts["seconds"] = round(time.monotonic() - began, 3)
    patches.outlet.raised(PORTS.get(port, Kind.HTTP), error, facts=facts, context={"at": here()})


def _is_unanswered(error: OSError) -> bool:
    socket = sys.modules["socket"]
    return error.errno in UNANSWERED or isinstance(error, (TimeoutError, socket.gaierror))


def _is_tcp(address: Any) -> bool:
    return isinstance(address, tuple) and len(address) > 1 and isinstance(address[0], str)


def _is_told_by_others(frame: FrameType | None) -> bool:
    """Tell whether this is a part of something larger: a try of several, or of a library with a hook."""
    left = STACK_LIMIT
    while frame is not None and left:
        module = str(frame.f_globals.get("__name__"))
        if (module, frame.f_code.co_name) in TRIES or module.partition(".")[0] in TELLERS:
            return True
        left, frame = left - 1, frame.f_back
    return False
