"""What probes share: TLS contexts, the HTTP session, the way failures become outcomes."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from exporter.config import Tls
from exporter.observation import Outcome, ProcessFacts, Reason, shorten
from soulfra_monitor.redaction import redact

if TYPE_CHECKING:
    import aiohttp

_CERTIFICATE_HAS_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_RESETS = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN}


@dataclass(slots=True)
class Tools:
    """Costly things that all probes of one configuration share."""

    _session: "aiohttp.ClientSession | None" = None
    _contexts: dict[Tls, ssl.SSLContext] = field(default_factory=dict)

    def session(self, make: Callable[[], "aiohttp.ClientSession"]) -> "aiohttp.ClientSession":
        """Return the one HTTP session, made on first use."""
        if self._session is None:
            self._session = make()
        return self._session

    def tls(self, config: Tls) -> ssl.SSLContext:
        """Return the context for *config*. Raises OSError when its CA file cannot be used."""
        if config not in self._contexts:
            self._contexts[config] = _tls_context(config)
        return self._contexts[config]

    def forget_tls(self) -> None:
        """Read CA files anew from now on."""
        self._contexts.clear()

    async def close(self) -> None:
        """Close the HTTP session."""
        if self._session is not None:
            await self._session.close()


@dataclass(slots=True)
class ProcessMemory:
    """Which process a probe saw last; belongs to one process probe of one service."""

    facts: ProcessFacts | None = None
    inodes: frozenset[str] = frozenset()
    looks: int = 0  # since the processes of the service were counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a probe gets besides its configuration."""

    timeout: float
    tools: Tools
    memory: ProcessMemory = field(default_factory=ProcessMemory)
    stopped_fails: bool = False  # whether a stopped process is a failure by itself


@dataclass(slots=True)
class Progress:
    """How far a probe has come; tells a refused connection from a silent one."""

    started: float = field(default_factory=monotonic)
    connected: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    tls_not_after: float | None = None

    def reach(self, phase: str) -> None:
        """Close *phase* with the time since the one before."""
        self.phases[phase] = monotonic() - self.started - sum(self.phases.values())

    def outcome(self, reason: Reason | None = None, detail: str = "", **more: Any) -> Outcome:
        """Make the outcome with all that was learnt on the way."""
        return Outcome(
            reason=reason,
            detail=shorten(redact(detail)),
            phases=self.phases,
            tls_not_after=self.tls_not_after,
            **more,
        )


async def guarded(work: Coroutine[Any, Any, Outcome], progress: Progress, limit: float) -> Outcome:
    """Run *work* for at most *limit* seconds; a network failure becomes its outcome."""
    deadline = asyncio.timeout(limit)
    try:
        async with deadline:
            return await work
    except OSError as error:  # TimeoutError is one
        if deadline.expired():
            reason = Reason.TIMEOUT if progress.connected else Reason.CONNECT_TIMEOUT
            return progress.outcome(reason, f"no answer within {limit:g} s")
        return progress.outcome(*failure_of(error, connected=progress.connected))


def failure_of(error: BaseException, *, connected: bool) -> tuple[Reason, str]:
    """Name the reason of a network failure, looking at its causes, the first cause first."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = getattr(link, "os_error", None) or link.__cause__ or link.__context__
    for cause in reversed(chain):
        found = _known_failure(cause, connected=connected)
        if found is not None:
            return found
    reason = Reason.RESET if connected else Reason.CONNECT_FAILED
    return reason, _text_of(chain[-1])


def _known_failure(error: BaseException, *, connected: bool) -> tuple[Reason, str] | None:
    found: tuple[Reason, str] | None = None
    match error:
        case ssl.SSLCertVerificationError():
            expired = error.verify_code == _CERTIFICATE_HAS_EXPIRED
            found = (Reason.TLS_EXPIRED if expired else Reason.TLS_VERIFY), error.verify_message
        case ssl.SSLError():
            found = Reason.TLS_HANDSHAKE, f"TLS: {error.reason or 'handshake failed'}"
        case socket.gaierror():
            found = Reason.DNS, "the host name cannot be resolved"
        case ConnectionRefusedError():
            found = Reason.CONNECT_REFUSED, "connection refused"
        case TimeoutError():
            found = (Reason.TIMEOUT if connected else Reason.CONNECT_TIMEOUT), "timed out"
        case ConnectionError() | EOFError():
            found = Reason.RESET, "the connection was dropped"
        case OSError() if error.errno in _RESETS:
            found = Reason.RESET, "the connection was dropped"
    return found


def _text_of(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return text or type(error).__name__


def _tls_context(config: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Opened(asyncio.Protocol):
    """A connection that is only opened, never read."""


async def open_connection(
    host: str, port: int, *, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> asyncio.Transport:
    """Open one TCP connection, with TLS when *tls* is given. Raises OSError."""
    loop = asyncio.get_running_loop()
    connect = partial(loop.create_connection, _Opened, host, port)
    if tls is None:
        transport, _ = await connect()
    else:
        transport, _ = await connect(ssl=tls, server_hostname=server_name or host)
    return transport
