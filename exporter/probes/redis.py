"""Send PING to a Redis server, and look at its role when one is expected.

The protocol is hiredis's. redis-py would do the connecting as well, but costs 8 MB of memory in a
process that is allowed 50.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import hiredis

from exporter.kinds import Tls
from exporter.kinds.redis import RedisProbe
from exporter.observation import Outcome, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import Secure, dial_stream, dial_unix

_ROLES = {"master": "master", "slave": "replica"}
_AUTH_ERRORS = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR Client sent AUTH")
_ANNOUNCED = re.compile(rb"[*$](\d+)")
_COUNT_DIGITS = 4  # 9,999 elements or bytes
_ANSWER_LIMIT = 65536  # bytes; PING and ROLE need a fraction of it


@dataclass(frozen=True, slots=True)
class _Peer:
    """An open connection that speaks Redis's protocol."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    parser: Any  # hiredis.Reader

    async def ask(self, *words: str) -> Any:
        """Send a command and return its answer. Raises hiredis.ReplyError, ProtocolError or OSError."""
        self.writer.write(hiredis.pack_command(words))  # type: ignore[arg-type] # its stub allows one word only
        received = b""
        while (answer := self.parser.gets()) is False:
            chunk = await self.reader.read(4096)
            if not chunk:
                raise ConnectionResetError
            received += chunk
            _refuse_hostile(received)
            self.parser.feed(chunk)
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer


def _refuse_hostile(received: bytes) -> None:
    """Stop before the parser reserves what a stranger announces. Raises hiredis.ProtocolError."""
    if len(received) > _ANSWER_LIMIT:
        raise hiredis.ProtocolError("the answer has no end")
    if received[:1] not in (b"+", b"-", b"$", b"*"):
        raise hiredis.ProtocolError("PING and ROLE have no such answers")
    # ROLE is a list of three to five, the one of a master with a list of its replicas in it.
    if any(len(found[1]) > _COUNT_DIGITS for found in _ANNOUNCED.finditer(received)):
        raise hiredis.ProtocolError("the answer announces too much")


async def probe(config: RedisProbe, context: Context) -> Outcome:
    """Connect, PING, ask for the role, once. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_ask(config, context, progress), progress, context.timeout)


async def _ask(config: RedisProbe, context: Context, progress: Progress) -> Outcome:
    try:
        address = urlsplit(config.redis)
        database = _database(address)
    except ValueError:
        return progress.outcome(Reason.INTERNAL, "the address is not valid")
    reader, writer = await _connect(config, address, context, progress)
    try:
        peer = _Peer(reader, writer, hiredis.Reader(errors="replace", encoding="utf-8"))
        return await _talk(peer, address, database, config, progress)
    except hiredis.ReplyError as error:
        return progress.outcome(*_reason_of(str(error)))
    except (hiredis.ProtocolError, TypeError, ValueError, MemoryError, RecursionError):
        # Whatever a peer's bytes cause is the peer's failure, not ours.
        return progress.outcome(Reason.PROTOCOL, "the answer is not Redis's protocol")
    finally:
        writer.transport.abort()


def _database(address: SplitResult) -> int:
    named = parse_qs(address.query).get("db", [""])[0]
    return int(named or ("" if address.scheme == "unix" else address.path.strip("/")) or 0)


async def _connect(
    config: RedisProbe, address: SplitResult, context: Context, progress: Progress
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = config.address()
    if place is None:
        return await dial_unix(unquote(address.path), progress=progress)
    secure = None
    if address.scheme == "rediss":
        secure = Secure(context=context.tools.tls(Tls()), server_name=place[0])
    return await dial_stream(*place, context=context, progress=progress, secure=secure)


async def _talk(
    peer: _Peer, address: SplitResult, database: int, config: RedisProbe, progress: Progress
) -> Outcome:
    if address.password:
        user = [unquote(address.username)] if address.username else []
        await peer.ask("AUTH", *user, unquote(address.password))
    if database:
        await peer.ask("SELECT", str(database))
    pong = await peer.ask("PING")
    progress.reach("processing")
    if pong != "PONG":
        return progress.outcome(Reason.PROTOCOL, "PING was not answered with PONG")
    if config.role is None:
        return progress.outcome(detail="PONG")
    answer = await peer.ask("ROLE")
    said = str(answer[0]) if isinstance(answer, list) and answer else ""
    role = _ROLES.get(said, said)
    if role != config.role:
        return progress.outcome(Reason.ROLE, f"is {role or 'without a role'}, expected {config.role}")
    return progress.outcome(detail=f"PONG from the {role}")


def _reason_of(text: str) -> tuple[Reason, str]:
    if text.startswith("LOADING"):
        return Reason.LOADING, "is loading its data"
    if text.startswith(_AUTH_ERRORS) or "without any password" in text:
        return Reason.AUTH, "refused the credentials"
    return Reason.PROTOCOL, f"answered with an error: {text}"
