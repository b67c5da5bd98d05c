"""The HTTP probe against real servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from exporter.kinds.http import HttpProbe
from exporter.observation import Outcome, Reason
from exporter.probes import http
from exporter.probes.context import Context, Tools

BODY_LIMIT = 1024 * 1024
PASSWORD = "pass" + "word"  # built from pieces


async def ok(_: web.Request) -> web.Response:
    return web.json_response(
        {"status": "healthy", "checks": [{"up": True}], "count": 1}, headers={"X-Version": "v12"}
    )


async def broken(_: web.Request) -> web.Response:
    return web.Response(status=500, text=f"{PASSWORD}=hunter2")


async def moved(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/ok"})


async def huge(_: web.Request) -> web.Response:
    return web.Response(body=b"x" * (BODY_LIMIT + 1))


async def long(request: web.Request) -> web.Response:
    charset = request.query["charset"]
    return web.Response(
        body=b"a" * (BODY_LIMIT - 1), headers={"Content-Type": f"text/plain; charset={charset}"}
    )


async def hang(_: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {"method": request.method, "body": await request.text(), "token": request.headers.get("X-Token", "")}
    )


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    for handler in (ok, broken, moved, huge, long, hang, echo):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def ask(context: Context, address: str, **more: Any) -> Outcome:
    return await http.probe(HttpProbe.model_validate({"http": address, **more}), context)


@pytest.mark.parametrize(
    ("path", "expect", "reason"),
    [
        ("ok", {}, None),
        ("ok", {"status": 204}, Reason.STATUS),
        ("ok", {"status": [200, 204]}, None),
        ("ok", {"headers": {"X-Version": "^v1"}}, None),
        ("ok", {"headers": {"X-Version": "^v2"}}, Reason.HEADER),
        ("ok", {"headers": {"X-Absent": ""}}, Reason.HEADER),
        ("ok", {"body": "heal+thy"}, None),
        ("ok", {"body": "^healthy"}, Reason.BODY),
        ("ok", {"json": {"status": "healthy", "checks.0.up": True}}, None),
        ("ok", {"json": {"status": "degraded"}}, Reason.JSON),
        ("ok", {"json": {"checks.1.up": True}}, Reason.JSON),
        ("ok", {"json": {"count": True}}, Reason.JSON),  # 1 is not true
        ("ok", {"json": {"checks.0.up": 1}}, Reason.JSON),
        ("broken", {}, Reason.STATUS),
        ("broken", {"status": 500, "json": {"a": 1}}, Reason.JSON),
        ("moved", {}, Reason.STATUS),
        ("moved", {"status": 302}, None),
        ("huge", {}, Reason.TOO_LARGE),
    ],
)
async def test_answer_is_held_against_what_is_expected(
    server: str, context: Context, path: str, expect: dict[str, Any], reason: Reason | None
) -> None:
    outcome = await ask(context, f"{server}/{path}", expect=expect)

    assert outcome.reason is reason, outcome.detail


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined", "no-such", "utf-8"])
async def test_a_peer_cannot_hold_the_loop_or_fail_the_probe_by_its_charset_or_its_length(
    server: str, context: Context, charset: str
) -> None:
    started = time.monotonic()

    outcome = await ask(context, f"{server}/long?charset={charset}", expect={"body": ".*healthy"})

    assert outcome.reason is Reason.BODY, outcome.detail
    assert time.monotonic() - started < 1.5  # quadratic in 1 MB it would take minutes


async def test_a_success_tells_status_and_phases(server: str, context: Context) -> None:
    outcome = await ask(context, f"{server}/ok")

    assert outcome.http is not None
    assert outcome.http.status == 200
    assert set(outcome.phases) == {"connect", "processing", "transfer"}


async def test_request_is_sent_as_configured(server: str, context: Context) -> None:
    outcome = await ask(
        context,
        f"{server}/echo",
        method="POST",
        body="ping",
        headers={"X-Token": "t"},
        expect={"json": {"method": "POST", "body": "ping", "token": "t"}},
    )

    assert outcome.reason is None, outcome.detail


async def test_an_answer_that_does_not_come_is_a_timeout(server: str, tools: Tools) -> None:
    started = time.monotonic()

    outcome = await ask(Context(timeout=0.2, tools=tools), f"{server}/hang")

    assert outcome.reason is Reason.TIMEOUT
    assert time.monotonic() - started < 2


async def test_nobody_listening_is_connect_refused(context: Context, free_port: Callable[[], int]) -> None:
    assert (await ask(context, f"http://127.0.0.1:{free_port()}/")).reason is Reason.CONNECT_REFUSED


async def test_an_unknown_host_is_dns(context: Context) -> None:
    assert (await ask(context, "http://no-such-host.invalid/")).reason is Reason.DNS


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", Reason.RESET),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Reason.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", Reason.PROTOCOL),
    ],
)
async def test_what_is_no_http_answer_is_named(context: Context, answer: bytes, reason: Reason) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        outcome = await ask(context, f"http://127.0.0.1:{port}/")

    assert outcome.reason is reason


async def test_credentials_of_the_address_are_in_no_detail(
    context: Context, free_port: Callable[[], int]
) -> None:
    outcome = await ask(context, f"http://me:{PASSWORD}@127.0.0.1:{free_port()}/?key={PASSWORD}")

    assert PASSWORD not in repr(outcome)


async def test_plain_http_on_a_tls_address_is_a_failed_handshake(server: str, context: Context) -> None:
    outcome = await ask(context, server.replace("http:", "https:") + "/ok")

    assert outcome.reason is Reason.TLS_HANDSHAKE
