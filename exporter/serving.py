"""The exporter's own port: where it listens, and how it is protected while it does."""

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import cast

from aiohttp import web

from exporter.access import SERVER, Door
from exporter.config import WatchConfig
from exporter.fields import is_loopback, split_address
from exporter.shard import Shard
from exporter.webconfig import WebConfig

LOOK_EVERY = 2.0  # seconds between looks at the files of the web configuration
BACKLOG = 128
CONNECTIONS = 512  # at once; above that an idle one goes for each that comes
CONNECTIONS_OF_ONE = 128  # at once from one address of another machine
HANDSHAKE_LIMIT = 10.0
ACCEPT_AGAIN = 1.0  # seconds, after there was no file left for a connection
HEAD_WITHIN = 10.0  # seconds from connecting to a whole first request

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says instead of the configuration, now and after every reload."""

    web_config: Path | None = None
    shard: Shard | None = None

    def web_config_of(self, config: WatchConfig, file: Path) -> Path | None:
        """Return the web configuration that goes with *config*, which stands in *file*."""
        named = config.exporter.web_config
        return self.web_config or (None if named is None else file.parent / named)

    def shard_of(self, config: WatchConfig) -> Shard:
        """Return the part of the services that is watched here."""
        return self.shard or Shard.parse(config.exporter.shard)


NO_OVERRIDES = Overrides()


def unprotected(address: str, config: WebConfig) -> str | None:
    """Say why *address* must not be listened on with so little protection; None when it may."""
    if config.authenticates or is_loopback(split_address(address)[0]):
        return None
    return (
        f"refused to listen on {address}: whoever reaches this port could reload the configuration"
        " and make the exporter probe; give a web configuration with basic_auth_users or with"
        " client_auth_type RequireAndVerifyClientCert, or listen on 127.0.0.1"
    )


class Listener:
    """Listens on one address; a new certificate is shown to whoever connects from then on."""

    def __init__(self, app: web.Application, address: str, door: Door) -> None:
        self._runner = web.AppRunner(app, access_log=None)
        self._peers: Counter[str] = Counter()  # open connections by the address they come from
        self._idle = _Idle()
        self._address = address
        self._door = door
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | _TlsServer | None = None
        self._handshakes: dict[asyncio.Task[None], str] = {}  # each with the address of the peer
        self._watch: asyncio.Task[None] | None = None

    async def start(self, read_again: Callable[[], Awaitable[None]]) -> None:
        """Listen, and call *read_again* whenever a file of the protection changes. Raises OSError."""
        await self._runner.setup()
        self._socket = await _bound(self._address)
        await self._open()
        self._door.on_change = self._open
        self._watch = asyncio.create_task(self._look(read_again))

    async def stop(self) -> None:
        """Stop listening and end what is under way."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        self._door.on_change = None
        if self._server is not None:
            self._server.close()
        for task in self._handshakes:
            task.cancel()
        if self._handshakes:
            await asyncio.wait(self._handshakes)
        await self._runner.cleanup()
        self._door.close()
        if self._socket is not None:
            self._socket.close()

    async def _open(self) -> None:
        if self._socket is None:
            raise RuntimeError("the listener is opened before it has started")
        before, tls = self._server, self._door.config.context
        queue = self._socket.dup()  # the same: nobody who connects in between is turned away
        if tls is not None:
            self._server = _TlsServer(queue, lambda taken, peer: self._shake_hands(taken, peer, tls))
        else:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._protocol, sock=queue, backlog=BACKLOG)
        if before is not None:
            before.close()

    def _protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        return _Requests(server, self._peers, self._idle) if server and self._has_room() else _Refused()

    def _has_room(self) -> bool:
        """Whether one more can be taken. Who was idle longest goes for it, or who is slowest to begin TLS."""
        server = self._runner.server
        open_now = len(server.connections) if server is not None else 0
        if open_now + len(self._handshakes) < CONNECTIONS or self._idle.give_up_one():
            return True
        slowest = next(iter(self._handshakes), None)
        if slowest is None:
            return False
        del self._handshakes[slowest]
        slowest.cancel()
        return True

    def _shake_hands(self, taken: socket.socket, peer: str, tls: ssl.SSLContext) -> None:
        """Begin TLS on a connection, unless there are too many, with their handshakes behind them or not."""
        of_one = self._peers[peer] + list(self._handshakes.values()).count(peer)
        too_many = of_one >= CONNECTIONS_OF_ONE and not is_loopback(peer)
        if too_many or not self._has_room():
            taken.close()
            return
        task = asyncio.create_task(self._begin_tls(taken, tls))
        self._handshakes[task] = peer
        task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    async def _begin_tls(self, taken: socket.socket, tls: ssl.SSLContext) -> None:
        server = self._runner.server
        try:
            if server is not None:
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: _Requests(server, self._peers, self._idle),
                    taken,
                    ssl=tls,
                    ssl_handshake_timeout=HANDSHAKE_LIMIT,
                )
        except OSError as error:  # TimeoutError is one, and so is what TLS says
            log.debug("a handshake came to nothing: %s", type(error).__name__)

    async def _look(self, read_again: Callable[[], Awaitable[None]]) -> None:
        tried = self._door.config.signature
        while True:
            await asyncio.sleep(LOOK_EVERY)
            config = self._door.config
            try:
                now = await asyncio.to_thread(config.signature_now)
            except RuntimeError as error:  # no thread can be started now; a certificate ends in months
                log.warning("the web configuration was not looked at: %s", error)
                continue
            # What could not be used is not read again and again, but when it changes.
            if now not in (config.signature, tried):
                await read_again()
            tried = now


class _Idle:
    """The connections on which nothing is under way, the longest idle first."""

    def __init__(self) -> None:
        self._new: dict[asyncio.BaseTransport, None] = {}  # nothing whole was ever asked on them
        self._kept: dict[asyncio.BaseTransport, None] = {}

    def add(self, transport: asyncio.BaseTransport, *, new: bool) -> None:
        (self._new if new else self._kept)[transport] = None

    def remove(self, transport: asyncio.BaseTransport) -> None:
        self._new.pop(transport, None)
        self._kept.pop(transport, None)

    def give_up_one(self) -> bool:
        """Hang up on the one that was idle for longest, first of those that never asked; False if none is."""
        found = next(iter(self._new or self._kept), None)
        if found is None:
            return False
        self.remove(found)
        _hang_up(found)
        return True


class _TlsServer:
    """Takes connections from a queue and hands them on, each with the address of the peer.

    asyncio's own server counts nobody before the handshake is over, which a peer may never begin.
    """

    def __init__(self, queue: socket.socket, take: Callable[[socket.socket, str], None]) -> None:
        self._queue = queue
        self._take = take
        self._pause: asyncio.TimerHandle | None = None
        queue.setblocking(False)
        queue.listen(BACKLOG)
        self._listen()

    def close(self) -> None:
        """Take no more; those that were taken stay."""
        if self._pause is not None:
            self._pause.cancel()
        else:
            asyncio.get_running_loop().remove_reader(self._queue)
        self._queue.close()

    def _listen(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._queue, self._accept)

    def _accept(self) -> None:
        """Take one connection: others have the loop before the next."""
        loop = asyncio.get_running_loop()
        try:
            taken, place = self._queue.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("no connection can be taken for %g s: %s", ACCEPT_AGAIN, error.strerror)
            loop.remove_reader(self._queue)
            self._pause = loop.call_later(ACCEPT_AGAIN, self._listen)
            return
        taken.setblocking(False)
        self._take(taken, str(place[0]))


class _Requests(web.RequestHandler):
    """Speaks HTTP with one peer, and is brief with those who take connections or send rubbish."""

    __slots__ = ("_head", "_idle", "_peer", "_peers")

    def __init__(self, server: web.Server, peers: Counter[str], idle: _Idle) -> None:
        # The types do not know that None, which AppRunner takes, means no log of requests.
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]
        self._peers = peers
        self._idle = idle
        self._peer = ""
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the peer a while to say what it wants, unless it holds too many connections already."""
        super().connection_made(transport)
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._peers[self._peer] += 1
        if self._peers[self._peer] > CONNECTIONS_OF_ONE and not is_loopback(self._peer):
            _hang_up(transport)
            return
        self._head = asyncio.get_running_loop().call_later(HEAD_WITHIN, _hang_up, transport)
        self._idle.add(transport, new=True)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the peer's connection no more."""
        self.heard()
        self._peers[self._peer] -= 1
        if not self._peers[self._peer]:
            del self._peers[self._peer]
        super().connection_lost(exc)

    def heard(self) -> None:
        """Wait for no request any more: it has come, or nobody is there to send one."""
        if self.transport is not None:
            self._idle.remove(self.transport)
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def answered(self) -> None:
        """Wait for the next request."""
        if self.transport is not None and not self.transport.is_closing():
            self._idle.add(self.transport, new=False)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Tell nothing of what was sent, neither them nor the log; a fault of ours is told as ever."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        log.debug("what %s sent is no HTTP: %s", request.remote, type(exc).__name__)
        answer = web.Response(status=status, text="bad request\n", headers={"Server": SERVER})
        answer.force_close()
        return answer


@web.middleware
async def note_request(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Let the connection know that a request has come in whole, and that it is answered."""
    protocol = request.protocol
    if not isinstance(protocol, _Requests):
        return await handler(request)
    protocol.heard()
    try:
        return await handler(request)
    finally:
        protocol.answered()


class _Refused(asyncio.Protocol):
    """Hangs up: open connections must not take the files from the probes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _hang_up(transport)


def _hang_up(transport: asyncio.BaseTransport) -> None:
    # Every transport of a stream can; that of uvloop is not of the class that says so.
    cast("asyncio.WriteTransport", transport).abort()


async def _bound(address: str) -> socket.socket:
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(place)
    except OSError:
        bound.close()
        raise
    return bound


def listen_failure(address: str, error: OSError) -> str:
    """Say why *address* cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {address}: another process listens there already"
    return f"cannot listen on {address}: {error.strerror}"
