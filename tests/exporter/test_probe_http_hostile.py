"""HTTP peers that are broken or hostile: each costs bounded time and memory, and gives a reason."""

import asyncio
import gzip
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.gate import gate_of
from exporter.kinds.http import HttpProbe
from exporter.observation import Outcome, Reason
from exporter.probes import http
from exporter.probes.context import Context, Tools

TIMEOUT = 0.4
SLACK = 1.0
MEMORY = 12 * 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\n"
PACKED = gzip.compress(b"well")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(speak: Speak, **options: Any) -> AsyncIterator[int]:
    """Serve on a free port; what is still being said at the end is broken off."""
    talks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            return  # the probe has heard enough
        finally:
            talks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        if talks:
            await asyncio.wait(talks)


async def ask(port: int, tools: Tools, **more: Any) -> Outcome:
    config = HttpProbe.model_validate({"http": f"http://127.0.0.1:{port}/", **more})
    return await http.probe(config, Context(timeout=TIMEOUT, tools=tools))


def says(*parts: bytes, pause: float = 0.0, after_request: bool = True) -> Speak:
    """Send *parts* and close."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if after_request:
            await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return speak


def repeats(head: bytes, part: bytes, pause: float = 0.0, *, after_request: bool = True) -> Speak:
    """Send *head*, then *part* for ever."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if after_request:
            await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return speak


async def is_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def half_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write_eof()
    await reader.read()


async def answers_and_half_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD + b"\r\nwell")
    writer.write_eof()
    await reader.read()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0
    writer.transport.abort()


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LOOP = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"

HOSTILE: dict[str, tuple[Speak, dict[str, Any], Reason | None]] = {
    "endless body": (repeats(HEAD + b"\r\n", b"x" * 65536), {}, Reason.TOO_LARGE),
    "endless chunked body": (repeats(CHUNKED, b"4000\r\n" + b"x" * 0x4000 + b"\r\n"), {}, Reason.TOO_LARGE),
    "a byte in each chunk": (
        repeats(CHUNKED, b"1\r\nx\r\n" * 1000),
        {"body_limit": "100kB"},
        Reason.TOO_LARGE,
    ),
    "endless chunk extension": (
        repeats(CHUNKED + b"5;a=", b"x" * 65536),
        {"body_limit": "10kB"},
        Reason.TOO_LARGE,
    ),
    "endless trailers": (repeats(CHUNKED + b"0\r\n", b"X-Trailer: more\r\n" * 100), {}, Reason.TOO_LARGE),
    "announces too much": (says(HEAD + b"Content-Length: 99999999999999999\r\n\r\n"), {}, Reason.TOO_LARGE),
    "announces more than a number holds": (
        says(HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n"),
        {},
        Reason.PROTOCOL,
    ),
    "slow body": (repeats(HEAD + b"Content-Length: 1000\r\n\r\n", b"x", 0.02), {}, Reason.TIMEOUT),
    "slow head": (repeats(HEAD, b"X", 0.02), {}, Reason.TIMEOUT),
    "one huge header": (repeats(HEAD + b"X-Bomb: ", b"x" * 65536), {}, Reason.TOO_LARGE),
    "many headers": (repeats(HEAD, b"X-Bomb: y\r\n" * 500), {}, Reason.TOO_LARGE),
    "endless status line": (repeats(b"HTTP/1.1 200 ", b"x" * 65536), {}, Reason.TOO_LARGE),
    "empty lines for ever": (repeats(b"", b"\r\n" * 4096), {}, Reason.TOO_LARGE),
    "interim answers for ever": (repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10), {}, Reason.PROTOCOL),
    "switches protocols": (
        says(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"),
        {},
        Reason.PROTOCOL,
    ),
    "redirect loop": (says(LOOP), {"redirects": 5}, Reason.REDIRECT),
    "redirect to another scheme": (
        says(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"),
        {"redirects": 5},
        Reason.REDIRECT,
    ),
    "redirect to no address": (
        says(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n"),
        {"redirects": 5},
        Reason.REDIRECT,
    ),
    "redirect to a port there is not": (
        says(b"HTTP/1.1 302 Found\r\nLocation: http://a:99999/\r\n\r\n"),
        {"redirects": 5},
        Reason.REDIRECT,
    ),
    "redirect to nonsense for a host": (
        says(b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe" + b"a" * 300 + b"/\r\n\r\n"),
        {"redirects": 5},
        Reason.REDIRECT,
    ),
    "content length too long": (says(HEAD + b"Content-Length: 10\r\n\r\nshort"), {}, Reason.PROTOCOL),
    "content length too short": (
        says(HEAD + b"Content-Length: 4\r\n\r\nwell and more"),
        {"expect": {"body": "^well$"}},
        None,
    ),
    "another answer behind the first": (
        says(HEAD + b"X-Api: 1\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\nX-Api: 2\r\n\r\n"),
        {"expect": {"headers": {"X-Api": "^1$"}, "body": "^ok$"}},
        None,
    ),
    "more than the content length behind headers": (
        says(HEAD + b"X-Api: 1\r\nContent-Length: 2\r\n\r\nokxtra"),
        {"expect": {"headers": {"X-Api": "^1$"}}},
        None,
    ),
    "packed, and more than the content length": (
        says(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED + b"xtra"),
        {"expect": {"body": "^well$"}},
        None,
    ),
    "content length of another kind": (says(HEAD + b"Content-Length: -5\r\n\r\n"), {}, Reason.PROTOCOL),
    "two content lengths": (
        says(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        {},
        Reason.PROTOCOL,
    ),
    "length and chunks": (
        says(HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        {},
        Reason.PROTOCOL,
    ),
    "chunks that break off": (says(CHUNKED + b"3\r\nab"), {}, Reason.PROTOCOL),
    "chunk of no size": (says(CHUNKED + b"zz\r\nab"), {}, Reason.PROTOCOL),
    "garbage": (says(bytes(range(256)) * 10), {}, Reason.PROTOCOL),
    "another protocol": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), {}, Reason.PROTOCOL),
    "a head that breaks off": (says(HEAD + b"X-A: b\r\n"), {}, Reason.PROTOCOL),
    "never answers": (is_silent, {}, Reason.TIMEOUT),
    "half-closes without an answer": (half_closes, {}, Reason.RESET),
    "answers, then half-closes": (answers_and_half_closes, {"expect": {"body": "^well$"}}, None),
    "resets": (resets, {}, Reason.RESET),
    "answers before it is asked": (
        says(HEAD + b"Content-Length: 4\r\n\r\nwell", after_request=False, pause=0.1),
        {"expect": {"body": "well"}},
        None,
    ),
    "gzip bomb": (
        says(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(40 * 1024 * 1024))),
        {"expect": {"body": "x"}, "compression": "gzip"},
        Reason.TOO_LARGE,
    ),
    "not gzip": (
        says(HEAD + b"Content-Encoding: gzip\r\n\r\nplain"),
        {"expect": {"body": "x"}},
        Reason.PROTOCOL,
    ),
    "gzip that breaks off": (
        says(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"well" * 100)[:20]),
        {"expect": {"body": "well"}},
        Reason.PROTOCOL,
    ),
    "packed by nobody knows what": (
        says(HEAD + b"Content-Encoding: zstd\r\n\r\nxxxx"),
        {"expect": {"body": "x"}},
        Reason.PROTOCOL,
    ),
    "JSON without end": (
        says(HEAD + b"\r\n" + b"[" * 40_000),
        {"expect": {"json": {"a": 1}}},
        Reason.JSON,
    ),
    "a number without end": (
        says(HEAD + b"\r\n" + b'{"a": ' + b"9" * 500_000 + b"}"),
        {"expect": {"json": {"a": {"less_than": 1}}}},
        Reason.JSON,
    ),
    "half a character": (
        says(HEAD + b'\r\n{"a": "\\ud800"}'),
        {"expect": {"json": {"a": {"matches": "x"}}}},
        Reason.JSON,
    ),
    "text for evil patterns": (
        says(HEAD + b"\r\n" + b"a" * 1_000_000),
        {"expect": {"body": "(a*)*b"}},
        Reason.BODY,
    ),
}


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_peer_costs_bounded_time_and_memory_and_gives_a_reason(
    name: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    speak, config, reason = HOSTILE[name]
    with asyncio.Runner(loop_factory=loop) as runner:
        outcome, seconds, most = runner.run(measured(speak, config))

    assert outcome.reason is reason, outcome.detail
    assert seconds < TIMEOUT + SLACK
    assert most < MEMORY


async def measured(speak: Speak, config: dict[str, Any]) -> tuple[Outcome, float, int]:
    """Return the outcome, the seconds and the bytes that it took."""
    shared = Tools()
    async with peer(speak) as port:
        await ask(port, shared, body_limit=1)  # what is loaded once is no cost of the peer
        tracemalloc.start()
        started = time.monotonic()
        outcome = await ask(port, shared, **config)
        seconds = time.monotonic() - started
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    await shared.close()
    return outcome, seconds, most


async def test_a_redirect_to_a_place_that_is_not_allowed_is_forbidden(tools: Tools) -> None:
    async with peer(says(HEAD + b"Content-Length: 0\r\n\r\n")) as secret:
        location = f"HTTP/1.1 302 Found\r\nLocation: http://localhost:{secret}/\r\n\r\n".encode()
        async with peer(says(location)) as port:
            config = HttpProbe.model_validate({"http": f"http://127.0.0.1:{port}/", "redirects": 3})
            gate = gate_of([f"127.0.0.1:{port}"])
            outcome = await http.probe(config, Context(timeout=2.0, tools=tools, gate=gate))

    assert outcome.reason is Reason.FORBIDDEN


async def test_what_follows_the_body_is_no_header(tools: Tools) -> None:
    async with peer(says(CHUNKED + b"1\r\nx\r\n0\r\nX-Late: yes\r\n\r\n")) as port:
        outcome = await ask(port, tools, expect={"headers": {"X-Late": "yes"}})

    assert outcome.reason is Reason.HEADER


async def test_a_peer_that_sends_a_token_back_does_not_get_it_told(tools: Tools) -> None:
    token = "hun" + "ter2"

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = (await reader.readuntil(b"\r\n\r\n")).split(b"Bearer ")[1].split(b"\r")[0]
        writer.write(HEAD + b'\r\n{"value": "' + sent + b'"}')

    async with peer(speak) as port:
        outcome = await ask(port, tools, bearer={"token": token}, expect={"json": {"value": "x"}})

    assert outcome.reason is Reason.JSON
    assert token not in outcome.detail


async def test_a_redirect_cannot_put_lines_into_the_next_request(tools: Tools) -> None:
    asked: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /a b%0d%0aX:\t1\xc3\xa9?q=\xff c\r\n\r\n")

    async with peer(speak) as port:
        await ask(port, tools, redirects=1)

    assert asked[1].split(b"\r\n")[0].count(b" ") == 2
    assert asked[1].split(b"\r\n")[0].isascii()


def tls_server(folder: Path, make_certificate: Any, **versions: Any) -> ssl.SSLContext:
    key, pem = make_certificate(30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    for name, value in versions.items():
        setattr(context, name, value)
    return context


async def closes_at_once(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(10)


@pytest.mark.parametrize(
    ("speak", "reason"),
    [
        (says(HEAD + b"\r\n", after_request=False), Reason.TLS_HANDSHAKE),
        (closes_at_once, Reason.RESET),
        (is_silent, Reason.TIMEOUT),
        (repeats(b"", b"\x16\x03\x03\x40\x00" + b"\xff" * 0x4000, after_request=False), Reason.TLS_HANDSHAKE),
        (repeats(b"", b"\x16\x03\x03\x40\x00" + bytes(0x4000), after_request=False), Reason.TIMEOUT),
    ],
)
async def test_a_peer_that_spoils_the_handshake_is_named(speak: Speak, reason: Reason, tools: Tools) -> None:
    started = time.monotonic()
    async with peer(speak) as port:
        outcome = await ask(port, tools, http=f"https://127.0.0.1:{port}/")

    assert outcome.reason is reason, outcome.detail
    assert time.monotonic() - started < TIMEOUT + SLACK


async def test_a_peer_with_old_tls_only_is_refused(
    tools: Tools, tmp_path: Path, make_certificate: Any
) -> None:
    context = tls_server(tmp_path, make_certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
    async with peer(says(HEAD + b"\r\n"), ssl=context) as port:
        tls = {"verify": False, "min_version": "1.3"}
        outcome = await ask(port, tools, http=f"https://localhost:{port}/", tls=tls)

    # Whether it says why before it closes is the peer's choice.
    assert outcome.reason in (Reason.TLS_HANDSHAKE, Reason.RESET)


async def test_a_second_look_at_a_certificate_leaves_the_reason_of_the_first(
    tools: Tools, tmp_path: Path, make_certificate: Any
) -> None:
    context = tls_server(tmp_path, make_certificate)
    seen = 0

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            await reader.read()  # the handshake ends, and nothing is ever said again
            await asyncio.sleep(30)
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", tls_port)
        pumps = (pump(reader, inner), pump(inner_reader, writer))
        await asyncio.gather(*pumps)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async with peer(says(HEAD + b"\r\n"), ssl=context) as tls_port, peer(forward) as port:
        outcome = await ask(port, tools, http=f"https://localhost:{port}/")

    assert outcome.reason is Reason.TLS_VERIFY
    assert outcome.tls is None


_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 302 Found\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"Location: /x\r\n",
        b"Location: http://[\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Type: text/html; charset=utf-16\r\n",
        b"Set-Cookie: a=b; Path=x; Max-Age=-\r\n",
        b"Last-Modified: Mon, 99 Foo 99999 99:99:99 +9999\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b'{"a": 1}',
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.lists(st.one_of(_LINES, st.binary(max_size=60)), max_size=12), cut=st.booleans())
def test_no_answer_raises_or_is_taken_for_a_fault_of_ours(answer: list[bytes], cut: bool) -> None:
    async def run() -> Outcome:
        shared = Tools()
        parts = answer if cut else [b"".join(answer)]
        expect = {"status": ["2xx", "3xx"], "body": "x", "json": {"a": 1}, "headers_not": {"X": "y"}}
        async with peer(says(*parts)) as port:
            outcome = await ask(port, shared, redirects=2, expect=expect)
        await shared.close()
        return outcome

    assert asyncio.run(run()).reason is not Reason.INTERNAL
