"""The gRPC probe against a real health server, plain and by TLS, and against peers that are none."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from exporter.gate import gate_of
from exporter.kinds.grpc import GrpcProbe
from exporter.observation import Outcome, Reason
from exporter.probes import grpc as probing
from exporter.probes.context import Context, Note, Tools

Serving = health_pb2.HealthCheckResponse.ServingStatus


async def ask(context: Context, port: int, host: str = "127.0.0.1", **more: Any) -> Outcome:
    return await probing.probe(GrpcProbe.model_validate({"grpc": f"{host}:{port}", **more}), context)


@asynccontextmanager
async def serving(
    servicer: health_pb2_grpc.HealthServicer | None, credentials: Any = None
) -> AsyncIterator[int]:
    server = grpc.aio.server()
    if servicer is not None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield int(port)
    finally:
        await server.stop(None)


async def healthy() -> health_pb2_grpc.HealthServicer:
    servicer = health.aio.HealthServicer()
    await servicer.set("", Serving.SERVING)
    await servicer.set("shop", Serving.SERVING)
    await servicer.set("ill", Serving.NOT_SERVING)
    return servicer


async def test_what_the_server_says_of_a_service_is_told(context: Context) -> None:
    async with serving(await healthy()) as port:
        outcomes = {
            service: await ask(context, port, service=service) for service in ("", "shop", "ill", "unknown")
        }

    assert {service: outcome.reason for service, outcome in outcomes.items()} == {
        "": None,
        "shop": None,
        "ill": Reason.UNHEALTHY,
        "unknown": Reason.STATUS,
    }
    assert outcomes["ill"].detail == "says NOT_SERVING"
    assert outcomes["unknown"].detail == "NOT_FOUND: the server knows no such service"
    assert outcomes[""].address == "127.0.0.1"
    assert {"connect", "processing"} <= outcomes[""].phases.keys()


async def test_a_server_without_health_checking_is_named(context: Context) -> None:
    async with serving(None) as port:
        outcome = await ask(context, port)

    assert outcome.reason is Reason.STATUS
    assert outcome.detail == "UNIMPLEMENTED: the server has no health checking"


Answer = Callable[[Any, Any], Awaitable[Any]]


class Servicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # generated code has no types
    """Answers Check as told."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return await self.answer(request, context)


async def hang(_request: Any, _context: Any) -> Any:
    await asyncio.Event().wait()


async def abort(_request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "warming up")


async def huge(_request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.INTERNAL, "x" * 100_000)


async def strange(_request: Any, _context: Any) -> Any:
    return health_pb2.HealthCheckResponse(status=77)


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        (hang, Reason.TIMEOUT, "no answer"),
        (abort, Reason.STATUS, "UNAVAILABLE: warming up"),
        (huge, Reason.STATUS, ""),
        (strange, Reason.UNHEALTHY, "says 77"),
    ],
)
async def test_answers_that_are_not_serving_are_named(
    tools: Tools, answer: Answer, reason: Reason, detail: str
) -> None:
    started = time.monotonic()
    async with serving(Servicer(answer)) as port:
        outcome = await ask(Context(timeout=0.5, tools=tools), port)

    assert outcome.reason is reason, outcome.detail
    assert outcome.detail.startswith(detail)
    assert time.monotonic() - started < 5


async def test_metadata_is_sent_and_the_steps_are_noted(tools: Tools) -> None:
    seen: dict[str, Any] = {}

    async def remember(_request: Any, context: Any) -> Any:
        seen.update(context.invocation_metadata())
        return health_pb2.HealthCheckResponse(status=Serving.SERVING)

    notes: list[Note] = []
    async with serving(Servicer(remember)) as port:
        await ask(Context(timeout=2.0, tools=tools, notes=notes), port, metadata={"x-tenant": "shop"})

    assert seen["x-tenant"] == "shop"
    assert [note.text for note in notes][-2:] == ["the channel is ready", "answered SERVING"]


@pytest.mark.parametrize("days", [30, -1])
async def test_tls_is_verified_and_the_expiry_known(
    context: Context, make_certificate: Callable[[int], tuple[Path, Path]], days: int
) -> None:
    key, pem = make_certificate(days)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), pem.read_bytes())])
    ours = {"ca_file": str(pem)}
    more: dict[str, Any] = {"host": "localhost", "ip_version": 4}
    async with serving(await healthy(), credentials) as port:
        right = await ask(context, port, tls=ours, **more)
        other_name = await ask(context, port, tls={**ours, "server_name": "grpc.example"}, **more)
        stranger = await ask(context, port, tls={}, **more)
        plain = await ask(context, port, **more)
        no_file = await ask(context, port, tls={"ca_file": "/no/such/file"}, **more)

    assert no_file.reason is Reason.INTERNAL
    reasons = [outcome.reason for outcome in (right, other_name, stranger, plain)]
    if days > 0:
        assert reasons == [None, Reason.TLS_VERIFY, Reason.TLS_VERIFY, Reason.PROTOCOL], right.detail
    else:
        assert reasons[0] is Reason.TLS_EXPIRED
    for outcome in (right, other_name, stranger):
        assert outcome.tls is not None
        assert outcome.tls.not_after == pytest.approx(time.time() + days * 86400, abs=120)


async def test_a_closed_port_is_connect_refused(context: Context, free_port: Callable[[], int]) -> None:
    assert (await ask(context, free_port())).reason is Reason.CONNECT_REFUSED


async def test_the_gate_is_asked(tools: Tools) -> None:
    narrow = Context(timeout=1.0, tools=tools, gate=gate_of(["192.0.2.1"]))

    assert (await ask(narrow, 9)).reason is Reason.FORBIDDEN


@pytest.mark.parametrize(
    ("said", "reason"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", Reason.PROTOCOL), (b"", Reason.PROTOCOL), (None, Reason.TIMEOUT)],
)
async def test_peers_that_speak_no_grpc_are_named(tools: Tools, said: bytes | None, reason: Reason) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(said or b"")
            if said is None:
                await reader.read()
        finally:
            writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        outcome = await ask(Context(timeout=0.5, tools=tools), port)

    assert outcome.reason is reason, outcome.detail


async def test_a_variable_for_proxies_does_not_lead_elsewhere(
    context: Context, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with serving(await healthy()) as port:
        assert (await ask(context, port)).reason is None


async def test_nothing_stays_behind_after_many_probes(context: Context) -> None:
    process = psutil.Process()
    async with serving(await healthy()) as port:
        for _ in range(5):
            await ask(context, port)
        before = process.num_fds()
        for _ in range(30):
            assert (await ask(context, port)).reason is None
        after = process.num_fds()

    assert after <= before + 3


async def test_it_works_on_the_loop_that_the_exporter_runs_on() -> None:
    async def within() -> Outcome:
        tools = Tools()
        try:
            async with serving(await healthy()) as port:
                return await ask(Context(timeout=3.0, tools=tools), port)
        finally:
            await tools.close()

    outcome = await asyncio.to_thread(uvloop.run, within())

    assert outcome.reason is None, outcome.detail
