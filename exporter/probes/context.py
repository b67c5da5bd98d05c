"""What probes share: TLS contexts, the resolver, the way failures become outcomes."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import inf
from time import monotonic
from typing import Any

from exporter.gate import OPEN, ForbiddenAddressError, Gate
from exporter.kinds import Tls
from exporter.observation import HttpFacts, Outcome, Reason, TlsFacts, shorten
from exporter.probes.patience import Judging, OwnWantError, in_thread
from exporter.probes.resolver import Resolver
from soulfra_monitor.redaction import MASK, redact

log = logging.getLogger(__name__)

NOTE_LIMIT = 300
LOOKED_THROUGH = 4096
"""Characters of a detail that are looked through for secrets, and kept: a server may say a megabyte."""
RENEWED = 50  # contexts for TLS at a reload, of 20 ms each; more are made anew when they are wanted
RENEWED_WITHIN = 10.0  # seconds; the files may be on a network filesystem that is dead
_SECRET_FROM = 4  # characters
OWN_SHARE = 0.5
"""Of a probe's time, for files of our own: what they take is not to look like a slow peer."""
COMMANDS_AT_ONCE = 8
"""Programs that command probes run at the same time, so that hundreds of them do not fill the machine."""
_CERTIFICATE_HAS_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_ISSUER_IS_NOT_FOUND = 20  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
_OURS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
_RESETS = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN}


class TlsFileError(OSError):
    """A file of ours for TLS cannot be used: that says nothing about the peer."""

    def __init__(self, message: str) -> None:
        super().__init__(None, message)

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(slots=True)
class Tools:
    """Costly things that all probes of one configuration share."""

    resolver: Resolver = field(default_factory=Resolver)
    judging: Judging = field(default_factory=Judging)
    commands: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(COMMANDS_AT_ONCE))
    _contexts: dict[Tls, ssl.SSLContext] = field(default_factory=dict)
    _making: "dict[Tls, asyncio.Task[ssl.SSLContext]]" = field(default_factory=dict)
    _recall: dict[str, Any] = field(default_factory=dict)

    async def tls(self, config: Tls, *, within: float) -> ssl.SSLContext:
        """Return the context for *config*, which is made in a thread when it is first wanted.

        Raises TlsFileError when one of its files cannot be used, or not *within* so many seconds.
        """
        if config.server_name is not None:  # no part of the context, and the authorities take 20 ms to load
            config = config.model_copy(update={"server_name": None})
        known = self._contexts.get(config)
        if known is not None:
            return known
        making = self._making.get(config)
        if making is None:
            making = self._making[config] = asyncio.create_task(self._make(config))
        try:
            async with asyncio.timeout(within):
                return await asyncio.shield(making)
        except TimeoutError as error:
            raise TlsFileError("the files of tls could not be read in time") from error

    async def _make(self, config: Tls) -> ssl.SSLContext:
        try:
            made = self._contexts[config] = await in_thread(partial(tls_context, config), {})
        finally:
            del self._making[config]
        return made

    async def renew(self) -> None:
        """Ask for addresses and read certificate files anew; the contexts in use are made in a thread.

        While those files cannot be read the contexts stay as they are.
        """
        self.resolver.forget()
        remake = partial(_remade, list(self._contexts)[-RENEWED:])
        try:
            async with asyncio.timeout(RENEWED_WITHIN):
                self._contexts = await in_thread(remake, self._recall)
        except (TimeoutError, OwnWantError):
            log.warning("certificate files were not read anew: those in use stay until the next reload")

    async def close(self) -> None:
        """Let go of everything."""
        making = tuple(self._making.values())
        for task in making:
            task.cancel()
        if making:
            await asyncio.wait(making)
        self.judging.close()
        await self.resolver.close()


@dataclass(slots=True)
class ProcessMemory:
    """Which processes a probe saw last; belongs to one process probe of one service.

    A process is known by its number and its start after the boot.
    """

    members: tuple[tuple[int, int], ...] = ()  # the main one first
    main: tuple[int, int] | None = None  # the last there was
    inodes: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()  # sockets whose holders are not ours to look at
    looks: int = 0  # since the processes of the service were searched
    restarts: int = 0
    cpu: dict[tuple[int, int], float] = field(default_factory=dict)  # of each at the last look
    cpu_seconds: float = 0.0
    max_fds: dict[tuple[int, int], int | None] = field(default_factory=dict)
    memory_limit: int | None = None
    oom_kills: int | None = None
    zombies: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One step of a probe, for a person who wants to see each."""

    seconds: float  # since the probe began
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a probe gets besides its configuration."""

    timeout: float
    tools: Tools
    memory: ProcessMemory = field(default_factory=ProcessMemory)
    recall: dict[str, Any] = field(default_factory=dict)  # what a probe keeps from run to run
    gate: Gate = OPEN
    notes: list[Note] | None = None  # None: nobody wants to see the steps
    stopped_fails: bool = False  # whether a stopped process is a failure by itself

    async def tls(self, config: Tls) -> ssl.SSLContext:
        """Return what TLS by *config* needs. Raises TlsFileError when our own files are of no use in time."""
        return await self.tools.tls(config, within=OWN_SHARE * self.timeout)

    def progress(self) -> "Progress":
        """Begin to note how far the probe comes."""
        return Progress(notes=self.notes)


@dataclass(slots=True)
class Progress:
    """How far a probe has come; tells a refused connection from a silent one."""

    started: float = field(default_factory=monotonic)
    ends: float = inf  # when its time is over
    resolving: bool = False  # waits for the address of a name
    connected: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    address: str = ""
    tls: TlsFacts | None = None
    http: HttpFacts | None = None  # of an answer that ended before its end
    notes: list[Note] | None = None
    _hidden: set[str] = field(default_factory=set, repr=False)
    _reached: float = 0.0

    def __post_init__(self) -> None:
        self._reached = self.started

    def left(self) -> float:
        """Return the seconds that remain."""
        return max(0.0, self.ends - monotonic())

    def reach(self, phase: str) -> None:
        """Close *phase* with the time since the one before; a phase that comes again adds up."""
        now = monotonic()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._reached
        self._reached = now

    def connect(self) -> None:
        """Close the phase connect: what fails from now on fails on an open connection."""
        self.connected = True
        self.reach("connect")

    def hide(self, secret: str) -> None:
        """Keep *secret* out of all that is told; a very short one is none, and would mask half of it."""
        if len(secret) >= _SECRET_FROM:
            self._hidden.add(secret)

    def note(self, text: str, *values: object) -> None:
        """Keep a step for the debug output; costs nothing when nobody wants to see it."""
        if self.notes is not None:
            line = shorten(redact(self._masked(text % values if values else text)), NOTE_LIMIT)
            self.notes.append(Note(seconds=monotonic() - self.started, text=line))

    def outcome(self, reason: Reason | None = None, detail: str = "", **more: Any) -> Outcome:
        """Make the outcome with all that was learnt on the way."""
        return Outcome(
            reason=reason,
            detail=_told(self._masked(detail)),
            phases=self.phases,
            address=self.address,
            tls=self.tls,
            **{"http": self.http, **more},
        )

    def _masked(self, text: str) -> str:
        """Return the beginning of *text* without what is to be kept out."""
        for secret in sorted(self._hidden, key=len, reverse=True):  # one may be the beginning of another
            text = text.replace(secret, MASK)
        return text[:LOOKED_THROUGH]


@lru_cache(maxsize=256)  # most answers say the same again, and redaction costs as much as parsing them
def _told(detail: str) -> str:
    return shorten(redact(detail))


async def guarded(work: Coroutine[Any, Any, Outcome], progress: Progress, limit: float) -> Outcome:
    """Run *work* for at most *limit* seconds; a network failure becomes its outcome."""
    deadline = asyncio.timeout(limit)
    progress.ends = progress.started + limit
    try:
        async with deadline:
            return await work
    except OSError as error:  # TimeoutError is one
        if deadline.expired():
            return progress.outcome(*_late(progress, limit))
        return progress.outcome(*failure_of(error, connected=progress.connected))


def _late(progress: Progress, limit: float) -> tuple[Reason, str]:
    if progress.resolving:
        return Reason.DNS, f"the host name was not resolved within {limit:g} s"
    reason = Reason.TIMEOUT if progress.connected else Reason.CONNECT_TIMEOUT
    return reason, f"no answer within {limit:g} s"


def failure_of(error: BaseException, *, connected: bool) -> tuple[Reason, str]:
    """Name the reason of a network failure, looking at its causes, the first cause first."""
    if isinstance(error, TlsFileError):
        return Reason.INTERNAL, str(error)
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = getattr(link, "os_error", None) or link.__cause__ or link.__context__
    for cause in reversed(chain):
        found = _own_want(cause) or _known_failure(cause, connected=connected)
        if found is not None:
            return found
    reason = Reason.RESET if connected else Reason.CONNECT_FAILED
    return reason, _text_of(chain[-1])


def _own_want(error: BaseException) -> tuple[Reason, str] | None:
    """Return the failure when the exporter itself lacks something: no evidence about the peer."""
    if isinstance(error, OwnWantError):
        return Reason.INTERNAL, f"the exporter has too much to do: {error.strerror}"
    number = _errno_now() if _hides_want(error) else getattr(error, "errno", None)
    if not isinstance(error, OSError) or number not in _OURS:
        return None
    if number in (errno.EMFILE, errno.ENFILE):
        return Reason.INTERNAL, "the exporter has no open files left: raise LimitNOFILE or lower concurrency"
    if number == errno.EADDRNOTAVAIL:
        return Reason.INTERNAL, "this machine has no local port or address left for the connection"
    return Reason.INTERNAL, f"this machine has no memory left for the connection: {error.strerror}"


def _hides_want(error: BaseException) -> bool:
    """Whether *error* may come of a file that we could not open: of a resolver, or of an authority."""
    unknown = isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == _ISSUER_IS_NOT_FOUND
    return unknown or isinstance(error, socket.gaierror)


def _errno_now() -> int | None:
    """Return why no file can be opened now, for those who do not say it when that was what they lacked."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error.errno
    return None


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
        case ForbiddenAddressError():
            found = Reason.FORBIDDEN, str(error)
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


_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


def _remade(configs: list[Tls]) -> dict[Tls, ssl.SSLContext]:
    made = {}
    for config in configs:
        with suppress(OSError):  # told by the probe that wants it next
            made[config] = _tls_context(config)
    return made


def _check_authorities(context: ssl.SSLContext) -> None:
    """Raise OSError when the system's authorities are not in *context* for a want of ours: nobody tells."""
    file = ssl.get_default_verify_paths().cafile
    if file is None or context.cert_store_stats()["x509"]:
        return
    try:
        context.load_verify_locations(file)
    except OSError as error:
        if error.errno in _OURS:
            raise


def tls_context(config: Tls) -> ssl.SSLContext:
    """Make a context for *config*. Raises TlsFileError when one of its files cannot be used."""
    try:
        return _tls_context(config)
    except OSError as error:
        told = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise TlsFileError(f"a file of tls cannot be used: {told}") from error


def _tls_context(config: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.ca_file)
    if config.ca_file is None:
        _check_authorities(context)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert_file is not None:
        context.load_cert_chain(config.cert_file, config.key_file)
    if config.min_version is not None:
        context.minimum_version = _VERSIONS[config.min_version]
    if config.max_version is not None:
        context.maximum_version = _VERSIONS[config.max_version]
    return context
