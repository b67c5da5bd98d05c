"""Log in to a PostgreSQL server, send a query, look at its role and its connections.

The protocol is asyncpg's. The connection, and TLS on it, are those of all probes: the driver gets a
connection that is open already, so that the gate is asked, phases are told, and no bytes without end come in.
"""

import asyncio
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from exporter.kinds import Tls
from exporter.kinds.postgres import PostgresProbe
from exporter.observation import Measure, Outcome, Reading, Reason, TlsFacts
from exporter.probes import sql
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.dial import Opened, dial, secured, start_tls
from exporter.probes.sql import RefusedError

VALUE = Measure(name="postgres_query_value", help=sql.VALUE_HELP)
CONNECTIONS = Measure(name="postgres_connections", help="Backends of the server that clients use.")
MAX_CONNECTIONS = Measure(name="postgres_max_connections", help="Connections that the server allows.")
REPLICA = Measure(name="postgres_is_replica", help="1 when the server is a replica, 0 when it is a primary.")
LAG = Measure(
    name="postgres_replication_lag_seconds",
    help="Age of the last transaction that a replica has replayed; 0 when it is connected and has all.",
)
_MEASURES = (REPLICA, CONNECTIONS, MAX_CONNECTIONS, LAG)  # in the order of the facts

_TLS_REQUEST = struct.pack("!ii", 8, 80877103)
_SHARE_FOR_FACTS = 0.25  # of the timeout
_FACTS = """
SELECT pg_is_in_recovery(),
       (SELECT sum(numbackends) FROM pg_stat_database),
       current_setting('max_connections')::int,
       CASE WHEN NOT pg_is_in_recovery() THEN NULL
            WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
                 AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END
"""
_STATES = {  # by SQLSTATE, the longest that fits
    "28": (Reason.AUTH, "refused the credentials"),
    "57P03": (Reason.LOADING, ""),
    "57P01": (Reason.RESET, ""),
    "57P02": (Reason.RESET, ""),
    "57014": (Reason.TIMEOUT, ""),
    "25P01": (Reason.INTERNAL, ""),  # a cursor outside of a transaction: we asked wrongly
}
_PIECE = 4096  # bytes
_FIRST = b"RENv"  # what a server can begin with: authentication, error, notice, another version


# How the driver tells that it cannot go on: the words are those of the metered connection.
_BROKEN = (
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    *sql.GARBLED,
)


class _Letter(asyncio.Protocol):
    """Waits for the answer to the wish for TLS."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError())
            self.answer.exception()  # without TLS nobody waits for it


class _Metered(asyncio.Protocol):
    """Passes the peer's bytes on to the driver, up to a limit."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._driver = asyncio.Protocol()
        self._transport = transport
        self._received = 0
        self._waiting = b""
        self.fault: tuple[Reason, str] = (Reason.PROTOCOL, "the answer is not PostgreSQL's protocol")

    def hand_over(self, driver: asyncio.Protocol) -> None:
        """Let *driver* speak."""
        self._driver = driver
        self._transport.set_protocol(self)
        driver.connection_made(self._transport)

    def data_received(self, data: bytes) -> None:
        foreign = self._received == 0 and data[0] not in _FIRST
        self._received += len(data)
        if self._received > sql.BYTES_LIMIT:
            self.fault = Reason.TOO_LARGE, f"the answer has more than {sql.BYTES_LIMIT} bytes"
            self._transport.abort()
        elif foreign:
            self._transport.abort()
        else:
            idle = not self._waiting
            self._waiting += data
            if idle:
                self._feed()

    def _feed(self) -> None:
        """Give the driver a piece; others have the loop before the next, as messages can be tiny."""
        piece, self._waiting = self._waiting[:_PIECE], self._waiting[_PIECE:]
        if piece:
            self._driver.data_received(piece)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._feed)

    def eof_received(self) -> bool | None:
        self.fault = Reason.RESET, "the connection was dropped"
        return self._driver.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.fault = Reason.RESET, "the connection was dropped"
        self._waiting = b""
        self._driver.connection_lost(error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


class _DriverLoop:
    """The running loop for the driver, in which its one connection is open already."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._given = False
        self.metered = _Metered(transport)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)

    async def create_connection(self, make: Callable[[], Any], *_: Any, **__: Any) -> tuple[Any, Any]:
        if self._given:  # one attempt; and statement_timeout ends a statement, not a second connection
            raise ConnectionAbortedError
        self._given = True
        driver = make()
        self.metered.hand_over(driver)
        return self._transport, driver


class _Connection(asyncpg.Connection):  # type: ignore[misc] # the driver has no types
    """A connection that is always ended by us, so that it has nothing to say when it is forgotten."""

    def __del__(self) -> None:
        """Leave out the driver's check, which fails on a connection that never was whole."""


async def probe(config: PostgresProbe, context: Context) -> Outcome:
    """Log in, ask and leave, once. Never raises: a failure is the outcome."""
    progress = context.progress()
    return await guarded(_ask(config, context, progress), progress, context.timeout)


async def _ask(config: PostgresProbe, context: Context, progress: Progress) -> Outcome:
    try:
        password = await sql.password_of(config, context)
        transport = await _open(config, context, progress, config.tls)
    except RefusedError as error:
        return progress.outcome(error.reason, str(error))
    except ssl.SSLCertVerificationError:
        progress.tls = await _shown(config, context)
        raise
    except OSError as error:
        known = sql.outcome_of_error(error, config, progress)
        if known is None:
            raise
        return known
    loop = _DriverLoop(transport)
    try:
        return await _talk(config, context, progress, loop, password)
    except RefusedError as error:
        return progress.outcome(error.reason, sql.without(password, str(error)))
    except _BROKEN as error:
        if not sql.is_of_driver(error):
            raise
        return progress.outcome(*loop.metered.fault)
    finally:
        transport.abort()


async def _open(
    config: PostgresProbe, context: Context, progress: Progress, tls: Tls | None
) -> asyncio.Transport:
    """Return an open connection that nobody has spoken on but for TLS. Raises OSError or RefusedError."""
    place = config.address()
    if place is None:
        progress.note("connecting to %s", config.socket)
        opened = await asyncio.get_running_loop().create_unix_connection(Opened, config.socket)
        progress.connect()
        return opened[0]
    transport, letter = await dial(_Letter, *place, context=context, progress=progress)
    if tls is None:
        return transport
    try:
        await _ask_for_tls(transport, letter)
        return await start_tls(transport, Opened(), await secured(tls, place[0], context), None, progress)
    except BaseException:
        transport.abort()
        raise


async def _ask_for_tls(transport: asyncio.Transport, letter: _Letter) -> None:
    transport.write(_TLS_REQUEST)
    if await letter.answer != b"S":  # and nothing after it: that would be forged
        raise RefusedError(Reason.TLS_HANDSHAKE, "the server does not speak TLS")


async def _shown(config: PostgresProbe, context: Context) -> TlsFacts | None:
    """Shake hands once more without verifying, and keep what the certificate says; nothing is sent by it."""
    aside = Progress()
    unverified = (config.tls or Tls()).model_copy(update={"verify": False})
    try:
        async with asyncio.timeout(context.timeout * _SHARE_FOR_FACTS):
            (await _open(config, context, aside, unverified)).abort()
    except (OSError, RefusedError):
        return None
    return aside.tls


async def _talk(
    config: PostgresProbe, context: Context, progress: Progress, loop: _DriverLoop, password: str
) -> Outcome:
    connection = await _log_in(config, loop, password)
    progress.note("logged in as %s", config.user_name())
    try:
        rows = await _query(connection, config.query, context)
        progress.note("the query gave %d rows", len(rows))
        facts = await _facts(connection, context, progress)
    finally:
        connection.terminate()
    progress.reach("processing")
    readings = (*sql.readings_of(VALUE, rows), *_readings(facts))
    failure = _wrong_role(facts, config) or sql.judge(rows, config.expect)
    return progress.outcome(*(failure or (None, f"{len(rows)} rows")), readings=readings)


async def _log_in(config: PostgresProbe, loop: _DriverLoop, password: str) -> Any:
    try:
        return await asyncpg.connect(
            # All is said here, so that no variable of the environment and no file of libpq's speaks too.
            host="the connection that is open",
            port=config.default_port(),
            user=config.user_name(),
            password=password,
            database=config.database() or config.user_name(),
            ssl=False,
            target_session_attrs="any",
            statement_cache_size=0,  # a pooler between us and the server knows no prepared statements
            server_settings={"application_name": "soulfra-monitor"},
            connection_class=_Connection,
            loop=loop,
        )
    except asyncpg.ConnectionDoesNotExistError:
        raise
    except asyncpg.PostgresError as error:
        raise _refused(error, Reason.STATUS) from error


async def _query(connection: Any, query: str, context: Context) -> Sequence[Sequence[Any]]:
    """Return the rows, so many at most. Raises RefusedError."""
    try:
        transaction = connection.transaction(readonly=True)
        await transaction.start()
        await connection.execute(f"SET LOCAL statement_timeout = {sql.statement_limit(context)}")
        cursor = await connection.cursor(query)
        rows: Sequence[Sequence[Any]] = await cursor.fetch(sql.ROWS_LIMIT)
        await transaction.rollback()
    except asyncpg.ConnectionDoesNotExistError:
        raise
    except asyncpg.PostgresError as error:
        raise _refused(error, Reason.QUERY) from error
    except asyncpg.InterfaceError as error:
        if connection.is_closed():
            raise
        raise RefusedError(Reason.INTERNAL, f"the driver refuses the query: {error}") from error
    return rows


async def _facts(connection: Any, context: Context, progress: Progress) -> Sequence[float | None]:
    """Return replica or not, connections, their limit and the lag; nothing where the server cannot tell."""
    try:
        rows = await _query(connection, _FACTS, context)
    except RefusedError as error:
        progress.note("does not tell its role and connections: %s", error)
        return ()
    try:
        return [None if value is None else float(value) for value in rows[0]] if rows else ()
    except (OverflowError, TypeError, ValueError) as error:
        raise RefusedError(Reason.PROTOCOL, "its role and connections are no numbers") from error


def _readings(facts: Sequence[float | None]) -> tuple[Reading, ...]:
    return tuple(
        Reading(measure, value) for measure, value in zip(_MEASURES, facts, strict=False) if value is not None
    )


def _wrong_role(facts: Sequence[float | None], config: PostgresProbe) -> tuple[Reason, str] | None:
    if config.role is None and config.max_lag is None:
        return None
    if len(facts) < len(_MEASURES):
        return Reason.ROLE, "does not tell its role"
    role = "replica" if facts[0] else "primary"
    if config.role not in (None, role):
        return Reason.ROLE, f"is a {role}, expected {config.role}"
    return _too_far_behind(facts[3], config.max_lag) if role == "replica" else None


def _too_far_behind(lag: float | None, allowed: float | None) -> tuple[Reason, str] | None:
    if allowed is None or (lag is not None and lag <= allowed):
        return None
    if lag is None:
        return Reason.LIMIT, "has replayed nothing since its start and is not level with its primary"
    return Reason.LIMIT, f"lags {lag:.1f} s behind, allowed are {allowed:g} s"


def _refused(error: asyncpg.PostgresError, otherwise: Reason) -> RefusedError:
    state = str(error.sqlstate or "")
    fits = [known for known in _STATES if state.startswith(known)]
    reason, detail = _STATES[max(fits, key=len)] if fits else (otherwise, "")
    said = str(getattr(error, "message", None) or error)
    return RefusedError(reason, detail or f"{said} ({state})")
