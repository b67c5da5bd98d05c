"""The servers that the table's cases ask: each path, each port misbehaves in one way."""

import asyncio
import gzip
import socket
import ssl
import struct
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.verdicts.certificates import Certificates, Pair

USER, PASSWORD, TOKEN = "ann", "pass" + "word-1", "token-" + "abc-1"
PATIENCE = 20.0  # seconds that a silent server stays silent
_HOST = "127.0.0.1"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Handler = Callable[[Reader, Writer], Awaitable[None]]
Ports = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client has asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    secure: bool


def answer(status: int = 200, body: bytes = b"fine\n", *headers: str, length: int | None = None) -> bytes:
    """Write an answer that ends its connection."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {size}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(status: int, location: str) -> bytes:
    """Write an answer that sends the client elsewhere."""
    return answer(status, b"", f"Location: {location}")


def _deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)  # as Go reads it: without zlib's frame
    return packer.compress(body) + packer.flush()


PLAIN: dict[str, bytes] = {
    "/ok": answer(),
    "/json": answer(200, b'{"status": "healthy"}', "Content-Type: application/json"),
    "/headers": answer(200, b"", "X-State: green", "X-Many: one", "X-Many: two"),
    "/close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    "/http10": b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nold\n",
    "/http2-word": b"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nnew\n",
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfine \r\n5\r\nparts\r\n0\r\n\r\n",
    "/chunked-cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nfine",
    "/chunked-wrong": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nfine\r\n0\r\n\r\n",
    "/short": answer(200, b"too few", length=100),
    "/long": answer(200, b"more than promised", length=4),
    "/two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine\n",
    "/bad-length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nfine\n",
    "/gzip": answer(200, gzip.compress(b"packed and fine"), "Content-Encoding: gzip"),
    "/gzip-wrong": answer(200, b"not packed at all", "Content-Encoding: gzip"),
    "/deflate": answer(200, _deflated(b"packed and fine"), "Content-Encoding: deflate"),
    "/gzip-large": answer(200, gzip.compress(b"x" * 100_000), "Content-Encoding: gzip"),
    "/gzip-404": answer(404, gzip.compress(b"x" * 100_000), "Content-Encoding: gzip"),
    "/page-404": answer(404, b"x" * 1234),
    "/large": answer(200, b"x" * 300_000 + b" the end"),
    "/garbage": b"220 mail.example ESMTP\r\n",
    "/no-reason": b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nfine\n",
    "/folded": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-State: green\r\n and blue\r\n\r\nfine\n",
    "/line-feeds": b"HTTP/1.1 200 OK\nContent-Length: 5\nConnection: close\n\nfine\n",
    "/hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(),
    "/continue": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(),
    "/modified": answer(200, b"fine\n", "Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT"),
    "/bomb": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 900) for n in range(20_000)),
    "/empty": b"",
    "/no-location": answer(302, b""),
    "/bad-location": redirect(302, "http://[::1/"),
    "/ftp": redirect(302, "ftp://127.0.0.1/"),
    "/relative": redirect(302, "ok"),
    "/loop": redirect(302, "/loop"),
    "/to-nobody": redirect(302, "http://nobody.invalid/"),
    "/with-cookie": answer(302, b"", "Location: /needs-cookie", "Set-Cookie: seen=1; Path=/"),
    "/204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
}
"""Answers that need no look at the request."""


def _if(good: bool, status: int = 200, otherwise: int = 400) -> bytes:
    return answer(status if good else otherwise)


def _basic() -> str:
    return "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


CHECKED: dict[str, Callable[[Request], bytes]] = {
    "/only-get": lambda r: _if(r.method == "GET", otherwise=405),
    "/only-head": lambda r: _if(r.method == "HEAD", otherwise=405).partition(b"fine")[0],
    "/only-post": lambda r: _if(r.method == "POST" and r.body == b"ping", otherwise=405),
    "/only-put": lambda r: _if(r.method == "PUT", otherwise=405),
    "/only-delete": lambda r: _if(r.method == "DELETE", otherwise=405),
    "/basic": lambda r: _if(r.headers.get("authorization") == _basic(), otherwise=401),
    "/bearer": lambda r: _if(r.headers.get("authorization") == f"Bearer {TOKEN}", otherwise=401),
    "/scheme": lambda r: _if(r.headers.get("authorization") == f"Key {TOKEN}", otherwise=401),
    "/no-secret": lambda r: _if("authorization" not in r.headers, otherwise=500),
    "/needs-cookie": lambda r: _if("seen=1" in r.headers.get("cookie", ""), otherwise=403),
    "/host": lambda r: _if(r.headers.get("host") == "shop.example"),
    "/x-key": lambda r: _if(r.headers.get("x-key") == TOKEN),
    "/accepts-gzip": lambda r: _if("gzip" in r.headers.get("accept-encoding", "")),
    "/secure": lambda r: _if(r.secure),
}
"""Answers that depend on what came."""


@dataclass(slots=True)
class Web:
    """An HTTP server, plain or with TLS."""

    ports: dict[str, int]
    secure: bool = False

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        """Answer one request."""
        request = await _read_request(reader, secure=self.secure)
        odd = ODD.get(request.path)
        if odd is not None:
            await odd(request, writer)
            return
        writer.write(self._bytes_for(request))
        await writer.drain()

    def _bytes_for(self, request: Request) -> bytes:
        path = request.path
        if path in PLAIN:
            return PLAIN[path]
        if path in CHECKED:
            return CHECKED[path](request)
        kind, _, rest = path[1:].partition("/")
        made = {"status": self._status, "redirect": self._redirect, "steps": self._step, "to": self._away}
        return made[kind](rest) if kind in made else answer(404)

    def _status(self, rest: str) -> bytes:
        return answer(int(rest))

    def _redirect(self, rest: str) -> bytes:
        """Lead /redirect/307/only-get to /only-get."""
        status, _, onwards = rest.partition("/")
        return redirect(int(status), f"/{onwards}")

    def _step(self, rest: str) -> bytes:
        return redirect(302, f"/steps/{int(rest) - 1}") if int(rest) else answer()

    def _away(self, rest: str) -> bytes:
        """Lead /to/tls/ok to the server of that name."""
        server, _, onwards = rest.partition("/")
        scheme = "https" if server.startswith("tls") else "http"
        return redirect(302, f"{scheme}://{_HOST}:{self.ports[server]}/{onwards}")


async def _read_request(reader: Reader, *, secure: bool) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method=method, path=path, headers=headers, body=body, secure=secure)


async def _read_chunks(reader: Reader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return body


def reset(writer: Writer) -> None:
    """Drop the connection with a reset instead of a goodbye."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _wait(_: Request, __: Writer) -> None:
    await asyncio.sleep(PATIENCE)


async def _half_head(_: Request, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    await asyncio.sleep(PATIENCE)


async def _half_body(_: Request, writer: Writer) -> None:
    writer.write(answer(200, b"fi", length=5))
    await asyncio.sleep(PATIENCE)


async def _drip(_: Request, writer: Writer) -> None:
    writer.write(answer(200, b"", length=1000))
    for _second in range(int(PATIENCE * 10)):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _slowly(_: Request, writer: Writer) -> None:
    await asyncio.sleep(0.3)
    writer.write(answer())
    await writer.drain()


async def _reset_at_once(_: Request, writer: Writer) -> None:
    reset(writer)


async def _reset_head(_: Request, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    await writer.drain()
    await asyncio.sleep(0.05)
    reset(writer)


async def _reset_body(_: Request, writer: Writer) -> None:
    writer.write(answer(200, b"fi", length=5))
    await writer.drain()
    await asyncio.sleep(0.05)
    reset(writer)


ODD: dict[str, Callable[[Request, Writer], Awaitable[None]]] = {
    "/silent": _wait,
    "/half-head": _half_head,
    "/half-body": _half_body,
    "/drip": _drip,
    "/slowly": _slowly,
    "/reset": _reset_at_once,
    "/reset-head": _reset_head,
    "/reset-body": _reset_body,
}
"""Answers that take their time, or end badly."""


async def _banner(reader: Reader, writer: Writer) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    await reader.read(100)


async def _chat(reader: Reader, writer: Writer) -> None:
    """Speak a little mail: greet, answer EHLO and QUIT, echo what is said with NICK."""
    writer.write(b"220 mail.example ESMTP ready\r\n")
    while line := await reader.readline():
        word, _, rest = line.decode("latin-1").strip().partition(" ")
        replies = {"EHLO": "250-mail.example\r\n250 STARTTLS", "QUIT": "221 bye", "NICK": f"PING {rest}"}
        writer.write(f"{replies.get(word, '500 what?')}\r\n".encode())
        await writer.drain()


async def _mute(reader: Reader, _: Writer) -> None:
    await reader.read(100)
    await asyncio.sleep(PATIENCE)


async def _hang_up(_: Reader, __: Writer) -> None:
    pass


async def _reset_on_accept(_: Reader, writer: Writer) -> None:
    await asyncio.sleep(0.1)  # sooner, it is chance whether connecting succeeds
    reset(writer)


async def _endless_line(_: Reader, writer: Writer) -> None:
    for _part in range(1000):
        writer.write(b"x" * 10_000)
        await writer.drain()


def _starttls(context: ssl.SSLContext) -> Handler:
    async def talk(reader: Reader, writer: Writer) -> None:
        writer.write(b"220 mail.example ESMTP ready\r\n")
        await reader.readline()
        writer.write(b"250-mail.example\r\n250-STARTTLS\r\n250 HELP\r\n")
        await reader.readline()
        writer.write(b"220 go ahead\r\n")
        await writer.start_tls(context)
        await reader.readline()
        writer.write(b"250 welcome to the dark\r\n")
        await writer.drain()

    return talk


async def _proxy(reader: Reader, writer: Writer) -> None:
    """Forward one plain request, or tunnel."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, place, _ = head.decode("latin-1").split(" ", 2)
    if method == "CONNECT":
        host, _, port = place.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        return
    host, _, path = place.removeprefix("http://").partition("/")
    name, _, port = host.rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(name, int(port))
    far_writer.write(head.replace(place.encode(), f"/{path}".encode(), 1))
    await _pump(far_reader, writer)
    far_writer.close()


async def _pump(source: Reader, sink: Writer) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@dataclass(slots=True)
class Servers:
    """All servers of the table; ``ports`` has the port of each by name."""

    certificates: Certificates
    ports: dict[str, int] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Open every port."""
        made = self.certificates
        web, secure = Web(self.ports), Web(self.ports, secure=True)
        await self._listen("web", web)
        await self._listen("web2", web)
        await self._listen("web6", web, host="::1")
        await self._listen("tls", secure, _context(made.valid))
        await self._listen("tls_expired", secure, _context(made.expired))
        await self._listen("tls_self", secure, _context(made.self_signed))
        await self._listen("tls_other", secure, _context(made.wrong_host))
        await self._listen("tls_old", secure, _old(_context(made.valid)))
        await self._listen("tls_client", secure, _demanding(_context(made.valid), made.authority.cert))
        await self._listen("banner", _banner)
        await self._listen("chat", _chat)
        await self._listen("mute", _mute)
        await self._listen("hang_up", _hang_up)
        await self._listen("reset", _reset_on_accept)
        await self._listen("endless", _endless_line)
        await self._listen("starttls", _starttls(_context(made.valid)))
        await self._listen("tls_chat", _chat, _context(made.valid))
        await self._listen("proxy", _proxy)
        self.ports["full"] = self._full()
        self.ports["closed"] = closed_port()

    async def stop(self) -> None:
        """Close every port and every connection."""
        await self._stack.aclose()

    async def _listen(
        self, name: str, handler: Handler, tls: ssl.SSLContext | None = None, host: str = _HOST
    ) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: Reader, writer: Writer) -> None:
            task = asyncio.current_task()
            if task is not None:
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            try:
                with suppress(OSError, EOFError, ValueError, asyncio.CancelledError):
                    await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(serve, host, 0, ssl=tls)
        self.ports[name] = server.sockets[0].getsockname()[1]

        async def close() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=1)

        self._stack.push_async_callback(close)

    def _full(self) -> int:
        """Listen without accepting, the queue full: connecting takes for ever."""
        listener = socket.socket()
        listener.bind((_HOST, 0))
        listener.listen(0)
        self._stack.callback(listener.close)
        for _ in range(2):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
            self._stack.callback(waiting.close)
        return int(listener.getsockname()[1])


def closed_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as chosen:
        chosen.bind((_HOST, 0))
        return int(chosen.getsockname()[1])


def _context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


def _old(context: ssl.SSLContext) -> ssl.SSLContext:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def _demanding(context: ssl.SSLContext, authority: Path) -> ssl.SSLContext:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    return context


@asynccontextmanager
async def running(certificates: Certificates) -> AsyncIterator[Servers]:
    """Run all servers."""
    servers = Servers(certificates)
    await servers.start()
    try:
        yield servers
    finally:
        await servers.stop()
