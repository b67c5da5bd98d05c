"""The TCP probe against real sockets."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.tcp import TcpProbe
from exporter.observation import Outcome, Reason
from exporter.probes import tcp
from exporter.probes.certificate import not_after
from exporter.probes.context import Context


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
    ("days", "tls", "reason"),
    [
        (30, {"verify": False}, None),
        (30, {"server_name": "localhost"}, Reason.TLS_VERIFY),
        (-1, {"ca": True}, Reason.TLS_EXPIRED),
        (30, {"ca_file": "/no/such/file"}, Reason.CONNECT_FAILED),
    ],
)
async def test_tls_is_verified_and_the_expiry_known(
    context: Context,
    make_certificate: Callable[[int], tuple[Path, Path]],
    days: int,
    tls: dict[str, Any],
    reason: Reason | None,
) -> None:
    key, pem = make_certificate(days)
    if tls.pop("ca", False):
        tls["ca_file"] = str(pem)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pem, key)
    async with await asyncio.start_server(silent, "127.0.0.1", 0, ssl=serving) as server:
        outcome = await ask(context, server.sockets[0].getsockname()[1], host="localhost", tls=tls)

    assert outcome.reason is reason, outcome.detail
    if reason is not Reason.CONNECT_FAILED:
        assert outcome.tls is not None
        assert outcome.tls.not_after == pytest.approx(time.time() + days * 86400, abs=120)


@pytest.mark.parametrize(
    "junk", [b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x00" * 40, b"\x30\x03\x30\x01\xa0"]
)
def test_what_is_no_certificate_has_no_end(junk: bytes) -> None:
    assert not_after(junk) is None
