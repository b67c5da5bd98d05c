"""Opens connections for probes: resolve, ask the gate, connect, and TLS where wanted."""

import asyncio
import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from exporter.kinds import Tls
from exporter.probes.certificate import ASK_WITHIN, ask_facts, tls_facts
from exporter.probes.context import Context, Progress
from exporter.probes.resolver import IpVersion, literal_version

_SHARE_OF_REST = 0.8  # of the probe's time: the failure that is known must be told within it

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secure:
    """TLS for one connection."""

    context: ssl.SSLContext
    server_name: str


async def secured(tls: Tls | None, host: str, context: Context) -> Secure:
    """Return how TLS is spoken with *host*, unless *tls* names it in another way. Raises TlsFileError."""
    tls = tls or Tls()
    return Secure(context=await context.tls(tls), server_name=tls.server_name or host)


class Opened(asyncio.Protocol):
    """A connection that is only opened, never read."""


async def dial(
    make: Callable[[], ProtocolT],
    host: str,
    port: int,
    *,
    context: Context,
    progress: Progress,
    version: IpVersion | None = None,
    secure: Secure | None = None,
) -> tuple[asyncio.Transport, ProtocolT]:
    """Open one connection to the first address of *host*: one attempt, no hidden second one.

    Closes the phases resolve (names only), connect and tls. Raises OSError; when the peer's
    certificate does not verify, what it showed is in the progress all the same.
    """
    address = await allowed_address(host, port, context, progress, version)
    loop = asyncio.get_running_loop()
    if secure is None:
        transport, protocol = await loop.create_connection(make, address, port)
        progress.connect()
        return transport, protocol
    raw, _ = await loop.create_connection(Opened, address, port)
    progress.connect()
    protocol = make()
    upgraded = await start_tls(raw, protocol, secure, (address, port), progress)
    # Nobody has told it so far: with start_tls that is the caller's part.
    protocol.connection_made(upgraded)
    return upgraded, protocol


async def start_tls(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    secure: Secure,
    peer: tuple[str, int] | None,
    progress: Progress,
) -> asyncio.Transport:
    """Shake hands on an open connection and close the phase tls. Raises OSError, the connection closed.

    A certificate that does not verify is asked for once more over a connection of its own to *peer*;
    None where a connection does not begin with TLS, and the caller sees to that.
    """
    loop = asyncio.get_running_loop()
    try:
        upgraded = await loop.start_tls(
            transport, protocol, secure.context, server_hostname=secure.server_name
        )
    except BaseException as error:
        transport.abort()
        if peer is not None and isinstance(error, ssl.SSLCertVerificationError):
            within = min(ASK_WITHIN, _SHARE_OF_REST * progress.left())
            progress.tls = await ask_facts(*peer, secure.server_name, within=within)
        raise
    if upgraded is None:
        raise ConnectionResetError
    progress.reach("tls")
    progress.tls = tls_facts(upgraded.get_extra_info("ssl_object"))
    if progress.tls is not None:
        progress.note("TLS: %s, %s", progress.tls.version, progress.tls.cipher)
    return upgraded


async def dial_stream(
    host: str,
    port: int,
    *,
    context: Context,
    progress: Progress,
    version: IpVersion | None = None,
    secure: Secure | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Do as ``dial`` and return reader and writer."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await dial(
        lambda: asyncio.StreamReaderProtocol(reader),
        host,
        port,
        context=context,
        progress=progress,
        version=version,
        secure=secure,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def dial_unix(path: str, *, progress: Progress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open the socket file at *path*. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.get_extra_info("socket").getpeername()
    except OSError as error:
        # A full queue says "try again", which asyncio (and not uvloop) takes for an open connection.
        writer.transport.abort()
        raise BlockingIOError(errno.EAGAIN, "its queue of connections is full") from error
    progress.connect()
    return reader, writer


async def dial_socket_file(
    make: Callable[[], ProtocolT], path: str, *, progress: Progress, secure: Secure | None = None
) -> tuple[asyncio.Transport, ProtocolT]:
    """Open the socket file at *path*, with TLS if wanted. Raises OSError."""
    loop = asyncio.get_running_loop()
    if secure is None:
        transport, protocol = await loop.create_unix_connection(make, path)
        progress.connect()
        return transport, protocol
    raw, _ = await loop.create_unix_connection(Opened, path)
    progress.connect()
    protocol = make()
    upgraded = await start_tls(raw, protocol, secure, None, progress)
    protocol.connection_made(upgraded)
    return upgraded, protocol


async def allowed_address(
    host: str, port: int, context: Context, progress: Progress, version: IpVersion | None = None
) -> str:
    """Return the first address of *host* and close the phase resolve (names only).

    Raises ForbiddenAddressError when the gate does not open it.
    """
    progress.resolving = True
    addresses = await context.tools.resolver.addresses(host, version)
    progress.resolving = False
    address = addresses[0]
    if address != host:
        progress.reach("resolve")
        progress.note("%s resolves to %s", host, ", ".join(addresses))
    context.gate.check(host, address, port)
    progress.address = address
    progress.note("connecting to %s, port %s", address, port)
    return address


async def preferred_version(
    host: str, version: IpVersion | None, *, fallback: bool, context: Context, progress: Progress
) -> IpVersion | None:
    """Return the IP version to ask for: *version*, unless *host* has the other alone and may fall back."""
    if version is None or not fallback:
        return version
    progress.resolving = True
    addresses = await context.tools.resolver.addresses(host)
    progress.resolving = False
    return version if any(literal_version(address) == version for address in addresses) else None
