"""The TCP probe against real sockets, and the dialogues it can hold."""

import asyncio
import ssl
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import re2

from exporter.kinds.tcp import TcpProbe
from exporter.observation import Outcome, Reason
from exporter.probes import tcp
from exporter.probes.certificate import KEPT, not_after
from exporter.probes.context import Context, Note, Tools
from exporter.probes.exchange import LINES_LIMIT, expand


async def ask(context: Context, port: int, host: str = "127.0.0.1", **more: Any) -> Outcome:
    return await tcp.probe(TcpProbe.model_validate({"tcp": f"{host}:{port}", **more}), context)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_an_open_port_is_healthy(context: Context) -> None:
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        outcome = await ask(context, server.sockets[0].getsockname()[1])

    assert outcome.reason is None
    assert outcome.phases["connect"] > 0


async def test_a_closed_port_is_connect_refused(context: Context, free_port: Callable[[], int]) -> None:
    assert (await ask(context, free_port())).reason is Reason.CONNECT_REFUSED


async def test_an_unknown_host_is_dns(context: Context) -> None:
    assert (await ask(context, 80, host="no-such-host.invalid")).reason is Reason.DNS


@pytest.mark.parametrize(
    "junk", [b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x00" * 40, b"\x30\x03\x30\x01\xa0"]
)
def test_what_is_no_certificate_has_no_end(junk: bytes) -> None:
    assert not_after(junk) is None


def test_certificates_that_were_read_are_not_kept() -> None:
    certificate = b"\x30\x84\x00\x01\x86\xa0" + bytes(100_000 - 8)
    tracemalloc.start()
    try:
        for number in range(2 * KEPT):
            not_after(certificate + number.to_bytes(8, "big"))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 4_000_000


Speaker = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def talk(context: Context, speak: Speaker, exchange: list[dict[str, Any]], **more: Any) -> Outcome:
    async def then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        except ConnectionError:
            return
        finally:
            writer.close()

    async with await asyncio.start_server(then_close, "127.0.0.1", 0) as server:
        return await ask(context, server.sockets[0].getsockname()[1], exchange=exchange, **more)


async def irc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b":irc.test NOTICE AUTH :*** Looking up your hostname\r\n")
    nick = await reader.readline()
    user = await reader.readline()
    writer.write(b"PING :secret" + nick.split()[1] + b"\r\n")
    pong = await reader.readline()
    if pong == b"PONG secretprober\n" and user.startswith(b"USER "):
        writer.write(b":irc.test 001 prober :Welcome\r\n")


IRC = [{"send": "NICK prober"}, {"send": "USER prober prober prober :prober"}]
IRC += [{"expect": "PING :([^ ]+)", "send": "PONG ${1}"}, {"expect": "^:[^ ]+ 001"}]


async def test_a_dialogue_sends_back_what_it_captured(context: Context) -> None:
    outcome = await talk(context, irc, IRC)

    assert outcome.reason is None, outcome.detail
    assert outcome.phases["processing"] > 0


async def test_each_step_of_a_dialogue_is_noted(tools: Tools) -> None:
    notes: list[Note] = []

    await talk(Context(timeout=2.0, tools=tools, notes=notes), irc, IRC)

    told = [note.text for note in notes]
    assert "received PING :secretprober" in told
    assert "that has ^:[^ ]+ 001" in told


async def test_a_real_redis_answers_ping(
    context: Context,
    launch: Callable[..., object],
    binary: Callable[[str], str],
    free_port: Callable[[], int],
    until: Callable[..., Any],
) -> None:
    port = free_port()
    launch(binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "")

    async def listens() -> bool:
        return (await ask(context, port)).reason is None

    await until(listens)
    right = await ask(context, port, exchange=[{"send": "PING"}, {"expect": r"^\+PONG$"}])
    wrong = await ask(
        context,
        port,
        exchange=[{"send": "PING"}, {"expect": r"^\+PONG$", "send": "QUIT"}, {"expect": "x{3}"}],
    )

    assert [right.reason, wrong.reason] == [None, Reason.ANSWER]
    assert wrong.detail == "no line has x{3}"


async def endless_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"a" * 65536)
        await writer.drain()


async def endless_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"a\n" * 1000)
        await writer.drain()


async def long_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"a" * 60000 + b"\n")
        await writer.drain()


async def no_newline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ready")
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"2")
        await writer.drain()
        await asyncio.sleep(0.02)


async def last_line_without_newline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ready")


async def wordless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def not_text(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff\xfe\x00\r\n")


@pytest.mark.parametrize(
    ("speak", "reason"),
    [
        (endless_line, Reason.TOO_LARGE),
        (endless_lines, Reason.TOO_LARGE),
        (long_lines, Reason.TOO_LARGE),
        (no_newline, Reason.TIMEOUT),
        (drip, Reason.TIMEOUT),
        (last_line_without_newline, None),
        (wordless, Reason.RESET),
        (not_text, Reason.ANSWER),
    ],
)
async def test_peers_that_misbehave_cost_bounded_time_and_are_named(
    tools: Tools, speak: Speaker, reason: Reason | None
) -> None:
    started = time.monotonic()
    outcome = await talk(Context(timeout=0.5, tools=tools), speak, [{"expect": "^220 "}])

    assert outcome.reason is reason, outcome.detail
    assert time.monotonic() - started < 5


async def test_a_flood_of_lines_leaves_the_loop_to_others(tools: Tools) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    working = asyncio.create_task(others())
    outcome = await talk(Context(timeout=20, tools=tools), endless_lines, [{"expect": "^220 "}])
    working.cancel()

    assert outcome.reason is Reason.TOO_LARGE
    assert turns > LINES_LIMIT / 100


@pytest.fixture
def serving(make_certificate: Callable[[int], tuple[Path, Path]]) -> tuple[ssl.SSLContext, Path]:
    key, pem = make_certificate(30)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    return context, pem


def smtp(serving: ssl.SSLContext, greeting: bytes = b"220 mail.test ESMTP\r\n") -> Speaker:
    """Make a mail server that knows STARTTLS."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while line := await reader.readline():
            if line.startswith(b"EHLO"):
                writer.write(b"250-mail.test\r\n250 STARTTLS\r\n")
            elif line.startswith(b"STARTTLS"):
                writer.write(b"220 go ahead\r\n250 injected in the clear\r\n")
                await writer.drain()
                try:
                    await writer.start_tls(serving)
                except OSError:
                    return
            elif line.startswith(b"NOOP"):
                writer.write(b"250 fine\r\n")

    return speak


SMTP: list[dict[str, Any]] = [
    {"expect": "^220 (?P<host>[^ ]+)", "send": "EHLO prober-of-${host}\r"},
    {"expect": "^250 STARTTLS", "send": "STARTTLS\r"},
    {"expect": "^220", "starttls": True},
    {"send": "NOOP\r"},
    {"expect": "^250 (fine|injected)"},
]


async def test_starttls_goes_on_by_tls_and_keeps_the_expiry(
    context: Context, serving: tuple[ssl.SSLContext, Path]
) -> None:
    notes: list[Note] = []
    noting = Context(timeout=2.0, tools=context.tools, notes=notes)
    outcome = await talk(
        noting, smtp(serving[0]), SMTP, tls={"ca_file": str(serving[1]), "server_name": "localhost"}
    )

    assert outcome.reason is None, outcome.detail
    assert outcome.tls is not None
    assert outcome.tls.verified
    assert outcome.phases["tls"] > 0
    assert "received 250 fine" in [note.text for note in notes], "what came in the clear was taken"


async def test_starttls_that_does_not_verify_keeps_the_expiry(
    context: Context, serving: tuple[ssl.SSLContext, Path]
) -> None:
    outcome = await talk(context, smtp(serving[0]), SMTP, tls={"server_name": "localhost"})

    assert outcome.reason is Reason.TLS_VERIFY
    assert outcome.tls is not None
    assert not outcome.tls.verified
    assert outcome.tls.not_after == pytest.approx(time.time() + 30 * 86400, abs=120)


@pytest.mark.parametrize(
    ("version", "fallback", "reason"),
    [(4, False, None), (6, False, Reason.DNS), (6, True, None)],
)
async def test_an_ip_version_is_wanted_or_preferred(
    context: Context, version: int, fallback: bool, reason: Reason | None
) -> None:
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        outcome = await ask(context, port, ip_version=version, ip_fallback=fallback)

    assert outcome.reason is reason, outcome.detail


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", b"plain"),
        ("${1} $2", b"one two"),
        ("${word}!", b"two!"),
        ("$1x ${9} ${no}", b"  "),
        ("$$1", b"$1"),
        ("5 $ ü", "5 $ ü".encode()),
    ],
)
def test_templates_expand_as_those_of_blackbox_exporter(template: str, expected: bytes) -> None:
    found = re2.search("(one) (?P<word>two)( three)?", b"say one two")

    assert expand(template, found) == expected
