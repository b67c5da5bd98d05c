"""Log in to a MySQL or MariaDB server, send a query, look at its connections.

The protocol is aiomysql's. The connection, and TLS on it, are those of all probes, so that the gate is asked,
the server's name is verified and no bytes without end come in.
"""

import asyncio
import ssl
import struct
from collections.abc import Sequence
from typing import Any

import aiomysql
from pymysql.charset import charset_by_name
from pymysql.constants import CLIENT

from exporter.kinds import Tls
from exporter.kinds.mysql import MysqlProbe
from exporter.observation import Measure, Outcome, Reading, Reason, TlsFacts
from exporter.probes import sql
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import Secure, dial_stream, dial_unix, secured, start_tls
from exporter.probes.sql import RefusedError

VALUE = Measure(name="mysql_query_value", help=sql.VALUE_HELP)
CONNECTIONS = Measure(name="mysql_threads_connected", help="Connections that clients have to the server.")
MAX_CONNECTIONS = Measure(name="mysql_max_connections", help="Connections that the server allows.")

_SHARE_FOR_FACTS = 0.25  # of the timeout
_LARGEST_PACKET = (1 << 24) - 1
_READS_AT_A_TIME = 100  # then others have the loop
_NUMBERED = range(1000, 65536)  # errors of servers
_IN_CLEAR = (b"mysql_clear_password", b"mysql_old_password")
_CODES: dict[int, tuple[Reason, str]] = {
    **dict.fromkeys((1044, 1045, 1130, 1251, 1698, 1862, 3118), (Reason.AUTH, "refused the credentials")),
    **dict.fromkeys((1053, 1927, 4031), (Reason.RESET, "")),  # it shuts down, or somebody ended us
    **dict.fromkeys((1969, 3024), (Reason.TIMEOUT, "")),  # its limits of a statement's time
    **dict.fromkeys((2006, 2013), (Reason.RESET, "the connection was dropped")),
}


class _Session(aiomysql.Connection):  # type: ignore[misc] # the driver has no types
    """A session over a connection that is open already; the driver itself can only open its own."""

    def __init__(self, config: MysqlProbe, password: str, stream: tuple[Any, Any]) -> None:
        super().__init__(
            user=config.user_name(), password=password, db=config.database() or None, charset="utf8mb4"
        )
        self.client_flag &= ~CLIENT.MULTI_STATEMENTS
        self._reader, self._writer = stream
        self._next_seq_id = 0
        self._received = 0
        self._reads = 0

    async def greet(self) -> None:
        """Read what the server says first."""
        await self._get_server_information()

    async def begin_tls(self, secure: Secure, progress: Progress) -> None:
        """Ask for TLS and go on by it. Raises OSError or RefusedError."""
        if not self.server_capabilities & CLIENT.SSL:
            raise RefusedError(Reason.TLS_HANDSHAKE, "the server does not speak TLS")
        if self._reader._buffer:  # noqa: SLF001 - what came in the clear would be taken for what TLS brought
            raise RefusedError(Reason.PROTOCOL, "the server speaks out of turn")
        self.client_flag |= CLIENT.SSL
        letters = charset_by_name(self.charset).id
        self.write_packet(struct.pack("<iIB23s", self.client_flag, _LARGEST_PACKET, letters, b""))
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport = await start_tls(self._writer.transport, protocol, secure, None, progress)
        protocol.connection_made(transport)
        self._reader = reader
        self._writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
        self._secure = True

    async def log_in(self) -> None:
        """Say who we are."""
        await self._request_authentication()

    async def _read_bytes(self, num_bytes: int) -> bytes:
        """Refuse a packet by what its head announces, before it is read."""
        self._received += num_bytes
        if self._received > sql.BYTES_LIMIT:
            raise RefusedError(Reason.TOO_LARGE, f"the answer has more than {sql.BYTES_LIMIT} bytes")
        self._reads += 1
        if self._reads % _READS_AT_A_TIME == 0:  # what is here already is read without a pause
            await asyncio.sleep(0)
        data: bytes = await super()._read_bytes(num_bytes)
        return data

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:
        if plugin_name in _IN_CLEAR and not self._secure:
            raise RefusedError(Reason.AUTH, "asks for the password in the clear; that needs tls")
        return await super()._process_auth(plugin_name, auth_packet)


async def probe(config: MysqlProbe, context: Context) -> Outcome:
    """Log in, ask and leave, once. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_ask(config, context, progress), progress, context.timeout)


async def _ask(config: MysqlProbe, context: Context, progress: Progress) -> Outcome:
    password = ""
    try:
        password = await sql.password_of(config, context)
        stream = await _open(config, context, progress)
        return await _within(stream, config, context, progress, password)
    except RefusedError as error:
        return progress.outcome(error.reason, sql.without(password, str(error)))
    except ssl.SSLCertVerificationError:
        progress.tls = await _shown(config, context)
        raise
    except OSError as error:
        known = sql.outcome_of_error(error, config, progress)
        if known is None:
            raise
        return known
    except aiomysql.MySQLError as error:
        return progress.outcome(*_reason_of(error, Reason.STATUS, password))
    except sql.GARBLED as error:
        if not sql.is_of_driver(error):
            raise
        return progress.outcome(Reason.PROTOCOL, "the answer is not MySQL's protocol")


async def _open(
    config: MysqlProbe, context: Context, progress: Progress
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = config.address()
    if place is None:
        progress.note("connecting to %s", config.socket)
        return await dial_unix(config.socket or "", progress=progress)
    return await dial_stream(*place, context=context, progress=progress)


async def _within(
    stream: tuple[Any, Any], config: MysqlProbe, context: Context, progress: Progress, password: str
) -> Outcome:
    session = _Session(config, password, stream)
    try:
        await _begin(session, config, context, progress, config.tls)
        await session.log_in()
        progress.note("logged in as %s, version %s", config.user_name(), session.server_version)
        outcome = await _talk(session, config, context, progress, password)
        await session.ensure_closed()  # says goodbye, or the server counts an aborted client
        return outcome
    finally:
        session.close()
        stream[1].transport.abort()


async def _begin(
    session: _Session, config: MysqlProbe, context: Context, progress: Progress, tls: Tls | None
) -> None:
    await session.greet()
    place = config.address()
    if tls is not None and place is not None:
        await session.begin_tls(await secured(tls, place[0], context), progress)


async def _shown(config: MysqlProbe, context: Context) -> TlsFacts | None:
    """Shake hands once more without verifying, and keep what the certificate says; nothing is sent by it."""
    aside = Progress()
    unverified = (config.tls or Tls()).model_copy(update={"verify": False})
    try:
        async with asyncio.timeout(context.timeout * _SHARE_FOR_FACTS):
            stream = await _open(config, context, aside)
            session = _Session(config, "", stream)
            try:
                await _begin(session, config, context, aside, unverified)
            finally:
                session.close()
                stream[1].transport.abort()
    except (OSError, RefusedError, aiomysql.MySQLError, *sql.GARBLED):
        return None
    return aside.tls


async def _talk(
    session: _Session, config: MysqlProbe, context: Context, progress: Progress, password: str
) -> Outcome:
    try:
        await _limit(session, context)
        rows = await _rows(session, config.query)
    except aiomysql.MySQLError as error:
        return progress.outcome(*_reason_of(error, Reason.QUERY, password))
    progress.note("the query gave %d rows", len(rows))
    readings = (*sql.readings_of(VALUE, rows), *await _connections(session, progress))
    progress.reach("processing")
    failure = sql.judge(rows, config.expect)
    return progress.outcome(*(failure or (None, f"{len(rows)} rows")), readings=readings)


async def _limit(session: _Session, context: Context) -> None:
    """Let the server itself end what takes too long or gives too much; change nothing."""
    limit = sql.statement_limit(context)
    if "mariadb" in str(session.server_version).lower():
        longest = f"max_statement_time = {limit / 1000}"
    else:
        longest = f"max_execution_time = {limit}"
    await _rows(session, f"SET SESSION {longest}, sql_select_limit = {sql.ROWS_LIMIT}")
    # Of the session: DDL ends a transaction and begins its own.
    await _rows(session, "SET SESSION TRANSACTION READ ONLY")


async def _rows(session: _Session, query: str) -> Sequence[Sequence[Any]]:
    async with session.cursor() as cursor:
        await cursor.execute(query)
        rows: Sequence[Sequence[Any]] = await cursor.fetchall()
        return rows


async def _connections(session: _Session, progress: Progress) -> tuple[Reading, ...]:
    try:
        threads = await _rows(session, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
        allowed = await _rows(session, "SELECT @@global.max_connections")
        return (
            Reading(CONNECTIONS, float(threads[0][1])),
            Reading(MAX_CONNECTIONS, float(allowed[0][0])),
        )
    except (aiomysql.MySQLError, LookupError, TypeError, ValueError) as error:
        progress.note("does not tell its connections: %s", type(error).__name__)
        return ()


def _reason_of(error: aiomysql.MySQLError, otherwise: Reason, password: str) -> tuple[Reason, str]:
    code, said = (*error.args, "", "")[:2]
    if code in _CODES:
        reason, detail = _CODES[code]
        return reason, detail or f"{said} ({code})"
    if code in _NUMBERED:
        return otherwise, sql.without(password, f"{said} ({code})")
    return Reason.PROTOCOL, "the answer is not MySQL's protocol"
