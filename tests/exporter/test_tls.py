"""TLS is judged alike by the kinds of probes that speak it, and the certificate's end is known."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.http import HttpProbe
from exporter.kinds.tcp import TcpProbe
from exporter.observation import Reason
from exporter.probes import http, tcp
from exporter.probes.context import Context


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer who asks by HTTP, and wait for others to hang up."""
    if await reader.read(1000):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize(
    ("days", "tls", "reason"),
    [
        (30, {"ca": True}, None),
        (30, {}, Reason.TLS_VERIFY),
        (30, {"verify": False}, None),
        (30, {"server_name": "localhost"}, Reason.TLS_VERIFY),
        (30, {"ca": True, "server_name": "other.test"}, Reason.TLS_VERIFY),
        (-1, {"ca": True}, Reason.TLS_EXPIRED),
        (30, {"ca_file": "/no/such/file"}, Reason.INTERNAL),
    ],
)
async def test_tls_is_verified_and_the_expiry_known_in_any_case(
    context: Context,
    make_certificate: Callable[[int], tuple[Path, Path]],
    kind: str,
    *,
    days: int,
    tls: dict[str, Any],
    reason: Reason | None,
) -> None:
    key, pem = make_certificate(days)
    if "ca" in tls:
        tls = {**{key: value for key, value in tls.items() if key != "ca"}, "ca_file": str(pem)}
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pem, key)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving) as server:
        place = f"localhost:{server.sockets[0].getsockname()[1]}"
        if kind == "http":
            outcome = await http.probe(
                HttpProbe.model_validate({"http": f"https://{place}/ok", "tls": tls}), context
            )
        else:
            outcome = await tcp.probe(TcpProbe.model_validate({"tcp": place, "tls": tls}), context)

    assert outcome.reason is reason, outcome.detail
    if reason is not Reason.INTERNAL:
        assert outcome.tls is not None
        assert outcome.tls.not_after == pytest.approx(time.time() + days * 86400, abs=120)
