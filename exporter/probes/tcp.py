"""Open a TCP connection, and a TLS session when asked for."""

from exporter.kinds.tcp import TcpProbe
from exporter.observation import Outcome
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import Opened, Secure, dial


async def probe(config: TcpProbe, context: Context) -> Outcome:
    """Open the connection once and close it. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_open(config, context, progress), progress, context.timeout)


async def _open(config: TcpProbe, context: Context, progress: Progress) -> Outcome:
    host, port = config.address()
    secure = None
    if config.tls is not None:
        secure = Secure(context=context.tools.tls(config.tls), server_name=config.tls.server_name or host)
    transport, _ = await dial(Opened, host, port, context=context, progress=progress, secure=secure)
    # abort, not close: a TLS peer that never answers the goodbye must not keep the socket.
    transport.abort()
    return progress.outcome()
