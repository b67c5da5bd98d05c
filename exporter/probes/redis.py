"""Send PING to a Redis server, and look at its role when one is expected."""

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from exporter.config import RedisProbe
from exporter.observation import Outcome, Reason
from exporter.probes.context import Context, Progress, failure_of, guarded

_ROLES = {"master": "master", "slave": "replica"}
_AUTH_ERRORS = ("NOAUTH", "WRONGPASS", "NOPERM")


async def probe(config: RedisProbe, context: Context) -> Outcome:
    """Connect, PING, ask for the role, once. Never raises: a failure is the outcome."""
    progress = Progress()
    return await guarded(_ask(config, progress), progress, context.timeout)


async def _ask(config: RedisProbe, progress: Progress) -> Outcome:
    try:
        connection = _connection(config.redis)
    except (ValueError, TypeError, exceptions.RedisError):
        return progress.outcome(Reason.INTERNAL, "the address is not valid")
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        progress.connected = True
        progress.reach("connect")
        return await _talk(connection, config, progress)
    except exceptions.RedisError as error:
        return progress.outcome(*_reason_of(error, connected=progress.connected))
    finally:
        await connection.disconnect(nowait=True)


def _connection(url: str) -> AbstractConnection:
    # Protocol 2 spares the HELLO; a try is one try, because a retried success would hide the failure.
    pool = ConnectionPool.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), client_name=None)
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


async def _talk(connection: AbstractConnection, config: RedisProbe, progress: Progress) -> Outcome:
    await connection.send_command("PING", check_health=False)
    answer = await connection.read_response()
    progress.reach("processing")
    if _text(answer) != "PONG":
        return progress.outcome(Reason.PROTOCOL, "PING was not answered with PONG")
    if config.role is None:
        return progress.outcome(detail="PONG")
    await connection.send_command("ROLE", check_health=False)
    answer = await connection.read_response()
    said = _text(answer[0]) if isinstance(answer, list) and answer else ""
    role = _ROLES.get(said, said)
    if role != config.role:
        return progress.outcome(Reason.ROLE, f"is {role or 'without a role'}, expected {config.role}")
    return progress.outcome(detail=f"PONG from the {role}")


def _reason_of(error: exceptions.RedisError, *, connected: bool) -> tuple[Reason, str]:
    text = str(error)
    match error:
        case exceptions.BusyLoadingError():
            return Reason.LOADING, "is loading its data"
        case exceptions.AuthenticationError() | exceptions.NoPermissionError():
            return Reason.AUTH, "refused the credentials"
        case exceptions.ResponseError() if text.startswith(_AUTH_ERRORS) or "without any password" in text:
            return Reason.AUTH, "refused the credentials"
        case exceptions.ConnectionError() | exceptions.TimeoutError():
            if "Authentication required" in text:
                return Reason.AUTH, "refused the credentials"
            return failure_of(error, connected=connected)
        case _:
            return Reason.PROTOCOL, f"answered with an error: {text}"


def _text(answer: object) -> str:
    return answer.decode("utf-8", errors="replace") if isinstance(answer, bytes) else str(answer)
