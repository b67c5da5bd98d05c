"""Open a TCP connection, and a TLS session when asked for."""

import asyncio
import ssl

from exporter.config import TcpProbe, Tls
from exporter.observation import Outcome
from exporter.probes.certificate import ask_not_after, not_after_of
from exporter.probes.context import Context, Progress, guarded, open_connection


async def probe(config: TcpProbe, context: Context) -> Outcome:
    """Open the connection once and close it. Never raises: a failure is the outcome."""
    progress = Progress()
    return await guarded(_open(config, context, progress), progress, context.timeout)


async def _open(config: TcpProbe, context: Context, progress: Progress) -> Outcome:
    host, _, port = config.tcp.rpartition(":")
    host = host.strip("[]")
    if config.tls is None:
        transport = await open_connection(host, int(port))
        progress.reach("connect")
    else:
        transport = await _open_tls(host, int(port), config.tls, context, progress)
    # abort, not close: a TLS peer that never answers the goodbye must not keep the socket.
    transport.abort()
    return progress.outcome()


async def _open_tls(
    host: str, port: int, tls: Tls, context: Context, progress: Progress
) -> asyncio.Transport:
    try:
        transport = await open_connection(host, port, tls=context.tools.tls(tls), server_name=tls.server_name)
    except ssl.SSLCertVerificationError:
        progress.tls_not_after = await ask_not_after(host, port, tls.server_name)
        raise
    progress.reach("connect")
    progress.tls_not_after = not_after_of(transport.get_extra_info("ssl_object"))
    return transport
