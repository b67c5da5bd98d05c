"""Open a TCP connection, by TLS when asked for, and talk as the configuration says."""

import asyncio
import ssl
from itertools import takewhile

from exporter.kinds import Tls
from exporter.kinds.exchange import begins_tls
from exporter.kinds.tcp import TcpProbe
from exporter.observation import Outcome, TlsFacts
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import Opened, Secure, dial, dial_stream, preferred_version, secured

_SHARE_FOR_FACTS = 0.25  # of the timeout


async def probe(config: TcpProbe, context: Context) -> Outcome:
    """Open the connection once, take the steps and close it. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_open(config, context, progress), progress, context.timeout)


async def _open(config: TcpProbe, context: Context, progress: Progress) -> Outcome:
    if config.exchange:
        return await _talk(config, context, progress)
    host, port = config.address()
    version = await preferred_version(
        host, config.ip_version, fallback=config.ip_fallback, context=context, progress=progress
    )
    secure = await _secure(config, context) if config.tls is not None else None
    transport, _ = await dial(
        Opened, host, port, context=context, progress=progress, version=version, secure=secure
    )
    # abort, not close: a TLS peer that never answers the goodbye must not keep the socket.
    transport.abort()
    return progress.outcome()


async def _talk(config: TcpProbe, context: Context, progress: Progress) -> Outcome:
    try:
        return await _converse(config, context, progress)
    except ssl.SSLCertVerificationError:
        if begins_tls(config.exchange):
            progress.tls = await _shown(config, context)
        raise


async def _converse(config: TcpProbe, context: Context, progress: Progress) -> Outcome:
    # Imported late: RE2 costs 3 MB, and most only want to know whether the port is open.
    from exporter.probes.exchange import Talk, held  # noqa: PLC0415

    host, port = config.address()
    later = begins_tls(config.exchange)
    secure = await _secure(config, context) if later or config.tls is not None else None
    version = await preferred_version(
        host, config.ip_version, fallback=config.ip_fallback, context=context, progress=progress
    )
    reader, writer = await dial_stream(
        host,
        port,
        context=context,
        progress=progress,
        version=version,
        secure=None if later else secure,
    )
    return await held(Talk(reader, writer, progress, secure), config.exchange)


async def _shown(config: TcpProbe, context: Context) -> TlsFacts | None:
    """Talk once more up to the certificate, and keep what it says; nothing is sent by that TLS."""
    aside = Progress()
    before = tuple(takewhile(lambda step: not step.starttls, config.exchange))
    start = config.exchange[len(before)]
    unverified = config.model_copy(
        update={
            "exchange": (*before, start),
            "tls": (config.tls or Tls()).model_copy(update={"verify": False}),
        }
    )
    try:
        async with asyncio.timeout(context.timeout * _SHARE_FOR_FACTS):
            await _converse(unverified, context, aside)
    except OSError:
        return None
    return aside.tls


async def _secure(config: TcpProbe, context: Context) -> Secure:
    return await secured(config.tls, config.address()[0], context)
