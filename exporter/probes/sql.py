"""What the probes of databases have in common: the password, the limits, the judgement of rows."""

import math
import struct
import traceback
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from exporter.fields import Scalar
from exporter.kinds.sql import Between, SqlExpect, SqlProbe
from exporter.observation import Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress
from exporter.probes.own_files import OwnFileError, from_files, read_secret
from exporter.probes.unix import failure_of_path

VALUE_HELP = "The first value of the query's last answer, when it is a number."

ROWS_LIMIT = 1000
BYTES_LIMIT = 1 << 20
_SHOWN = 60  # characters of a value in a detail
GARBLED = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError, struct.error),
)
"""What drivers raise, besides their own errors, over bytes that are not their protocol."""
_DRIVERS = {"aiomysql", "asyncpg", "pymysql"}


class RefusedError(Exception):
    """The server does not do what it is asked."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def is_of_driver(error: BaseException) -> bool:
    """Whether *error* comes out of a driver at work on the peer's bytes; else it is our own fault."""
    frames = traceback.walk_tb(error.__traceback__)
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in frames]
    return not modules[-1].startswith("exporter.") and any(
        module.partition(".")[0] in _DRIVERS for module in modules
    )


async def password_of(config: SqlProbe, context: Context) -> str:
    """Return the password, or nothing. Raises RefusedError when its file cannot be used, or hangs."""
    if config.password is not None:
        return config.password.get_secret_value()
    if config.password_file is None:
        return config.url_password()
    try:
        return await from_files(partial(read_secret, config.password_file, "password_file"), context)
    except OwnFileError as error:
        raise RefusedError(Reason.INTERNAL, str(error)) from error


def without(secret: str, text: str) -> str:
    """Return *text* without *secret*: a server may repeat what it was sent."""
    return text.replace(secret, "***") if secret else text


def outcome_of_error(error: OSError, config: SqlProbe, progress: Progress) -> Outcome | None:
    """Say what is wrong with the socket file, when there is one and it is at fault."""
    known = failure_of_path(config.socket, error) if config.socket and not progress.connected else None
    return progress.outcome(*known) if known is not None else None


def statement_limit(context: Context) -> int:
    """Return the milliseconds that the server may spend on a statement: it ends it before we give up."""
    return max(1, int(context.timeout * 900))


def judge(rows: Sequence[Sequence[Any]], expect: SqlExpect) -> tuple[Reason, str] | None:
    """Say what is wrong with the answer to the query."""
    count = len(rows)
    if expect.rows is not None and not expect.rows.holds(count):
        many = f"{ROWS_LIMIT} rows or more" if count >= ROWS_LIMIT else f"{count} rows"
        return Reason.ANSWER, f"{many}, expected {expect.rows}"
    if not expect.asks_for_value():
        return None
    if not rows or not len(rows[0]):
        return Reason.ANSWER, "no row, so no value"
    value = rows[0][0]
    if _fits(value, expect.value):
        return None
    return Reason.ANSWER, f"is {str(value)[:_SHOWN]}, expected {expect.value}"


def readings_of(measure: Measure, rows: Sequence[Sequence[Any]]) -> tuple[Reading, ...]:
    """Return the value of the query as *measure*, when it is a number."""
    number = _number(rows[0][0]) if rows and len(rows[0]) else None
    return () if number is None else (Reading(measure, number),)


def _fits(value: Any, wanted: Between | Scalar) -> bool:
    number = _number(value)
    if isinstance(wanted, Between):
        return number is not None and wanted.holds(number)
    if wanted is None or value is None:
        return wanted is None and value is None
    if isinstance(wanted, bool):
        return number is not None and number == wanted
    if isinstance(wanted, int | float):
        return number is not None and number == float(wanted)
    return _text(value) == wanted


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # more than 300 digits; a NaN that signals
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
