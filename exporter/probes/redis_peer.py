"""A connection that speaks Redis's protocol; the kinds redis and queue talk over it.

The protocol is hiredis's. redis-py would do the connecting as well, but costs 8 MB of memory in a
process that is allowed 50.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

import hiredis

from exporter.kinds.redis import RedisAccess
from exporter.observation import Outcome, Reason
from exporter.probes.context import Context, Progress, TlsFileError
from exporter.probes.dial import Secure, dial_stream, dial_unix, secured
from exporter.probes.own_files import OwnFileError, from_files, read_secret

ANSWER_LIMIT = 64 * 1024
_ELEMENT_LIMIT = 1000
_HEAD_LIMIT = 1024  # bytes of a line: a status, an error, a number
_CHUNK = 16 * 1024

# The first prefix that fits; what a server may answer to any command at all.
_ERRORS: tuple[tuple[str, Reason, str], ...] = (
    ("LOADING", Reason.LOADING, "is loading its data"),
    ("ERR max number of clients", Reason.LIMIT, "refused the connection: maxclients is reached"),
    ("NOAUTH", Reason.AUTH, "refused the credentials"),
    ("WRONGPASS", Reason.AUTH, "refused the credentials"),
    ("NOPERM", Reason.AUTH, "refused the permission"),
    ("DENIED", Reason.AUTH, "refused the connection: its protected mode wants a password or loopback"),
    ("BUSY", Reason.UNHEALTHY, "is busy with a script"),
    ("MASTERDOWN", Reason.UNHEALTHY, "does not serve while the link to its master is down"),
    ("CLUSTERDOWN", Reason.UNHEALTHY, "does not serve while its cluster is down"),
)


class TooLargeError(Exception):
    """The answer is larger than the one who asked would have."""


@dataclass(slots=True)
class _Walk:
    """Follows the heads of an answer, and stops before the parser reserves what a stranger announces."""

    limit: int
    received: int = 0
    _rest: bytes = b""  # what is not yet a whole head
    _passing: int = 0  # bytes of a text still to come

    def follow(self, chunk: bytes) -> None:
        """Take in the next bytes. Raises hiredis.ProtocolError or TooLargeError."""
        self.received += len(chunk)
        if self.received > self.limit:
            raise TooLargeError
        at, data = 0, self._rest + chunk
        while True:
            passed = min(self._passing, len(data) - at)
            at, self._passing = at + passed, self._passing - passed
            end = data.find(b"\r\n", at, at + _HEAD_LIMIT)
            if self._passing or end < 0:
                break
            self._head(data[at : at + 1], data[at + 1 : end])
            at = end + 2
        self._rest = data[at:]
        if len(self._rest) >= _HEAD_LIMIT:
            raise hiredis.ProtocolError("a line has no end")

    def _head(self, kind: bytes, text: bytes) -> None:
        if kind in (b"+", b"-", b":"):
            return
        # RESP3 has more kinds, but nobody has asked for it.
        if kind not in (b"$", b"*") or not (text == b"-1" or text.isdigit()):
            raise hiredis.ProtocolError("no head of an answer")
        announced = int(text)
        if kind == b"*" and announced > _ELEMENT_LIMIT:
            raise hiredis.ProtocolError("the answer announces too much")
        if kind == b"$" and announced > self.limit:
            raise TooLargeError
        if kind == b"$" and announced >= 0:
            self._passing = announced + 2


@dataclass(frozen=True, slots=True)
class Peer:
    """An open connection to a Redis server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    parser: Any = field(default_factory=lambda: hiredis.Reader(errors="replace", encoding="utf-8"))

    async def ask(self, *words: str, limit: int = ANSWER_LIMIT) -> Any:
        """Send a command and return its answer.

        Raises hiredis.ReplyError, hiredis.ProtocolError, OSError, or TooLargeError, after which
        the connection is of no more use.
        """
        self.writer.write(hiredis.pack_command(words))  # type: ignore[arg-type] # its stub allows one word only
        walk = _Walk(limit)
        while (answer := self.parser.gets()) is False:
            chunk = await self.reader.read(_CHUNK)
            if not chunk:
                raise ConnectionResetError
            walk.follow(chunk)
            self.parser.feed(chunk)
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer


async def talk(
    config: RedisAccess,
    context: Context,
    progress: Progress,
    conversation: Callable[[Peer], Awaitable[Outcome]],
) -> Outcome:
    """Connect, log in and have the conversation; what the server refuses or garbles is the outcome.

    Raises OSError.
    """
    try:
        password = await _password(config, context)
        secure = await _secure(config, context)
    except (OwnFileError, TlsFileError) as error:
        return progress.outcome(Reason.INTERNAL, str(error))
    reader, writer = await _connect(config, secure, context, progress)
    try:
        peer = Peer(reader, writer)
        refused = await _log_in(peer, config, password, progress)
        return await conversation(peer) if refused is None else progress.outcome(*refused)
    except hiredis.ReplyError as error:
        return progress.outcome(*reason_of(str(error)))
    except (hiredis.ProtocolError, TooLargeError):
        return progress.outcome(Reason.PROTOCOL, "the answer is not Redis's protocol")
    finally:
        writer.transport.abort()


def reason_of(text: str, other: Reason = Reason.PROTOCOL) -> tuple[Reason, str]:
    """Name the reason of an error that the server answered; *other* when it is none of any command's."""
    for prefix, reason, detail in _ERRORS:
        if text.startswith(prefix):
            return reason, detail
    return other, f"answered with an error: {text}"


async def _password(config: RedisAccess, context: Context) -> str:
    """Return the password. Raises OwnFileError when its file cannot be used."""
    if config.password is not None:
        return config.password.get_secret_value()
    if config.password_file is None:
        return unquote(config.url().password or "")
    return await from_files(partial(read_secret, config.password_file, "password_file"), context)


async def _secure(config: RedisAccess, context: Context) -> Secure | None:
    place = config.address()
    if place is None or config.url().scheme != "rediss":
        return None
    return await secured(config.tls, place[0], context)


async def _connect(
    config: RedisAccess, secure: Secure | None, context: Context, progress: Progress
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = config.address()
    if place is None:
        path = unquote(config.url().path)
        progress.note("connecting to the socket %s", path)
        return await dial_unix(path, progress=progress)
    return await dial_stream(*place, context=context, progress=progress, secure=secure)


async def _log_in(
    peer: Peer, config: RedisAccess, password: str, progress: Progress
) -> tuple[Reason, str] | None:
    if password:
        user = config.user()
        progress.note("logging in as %s", user or "the default user")
        try:
            await peer.ask("AUTH", *([user] if user else []), password)
        except hiredis.ReplyError as error:
            reason, detail = reason_of(str(error), Reason.AUTH)
            # A server without AUTH repeats what it was sent, the password that is.
            return reason, detail if reason is not Reason.AUTH else "refused the credentials"
    if database := config.database():
        await peer.ask("SELECT", str(database))
    return None
