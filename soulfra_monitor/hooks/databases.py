"""Databases that cannot be reached, drop the connection or take too long.

The drivers are of C, Cython and Python, with and without asyncio; what they have in common are the exceptions
of DB-API (PEP 249). So the classes are changed, not the calls: an exception is told when it is made, whoever
catches it, and a query that succeeds costs nothing.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import here, leave

_DB_API = ("OperationalError", "InterfaceError")

EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "sqlite3": ("OperationalError",),
    "psycopg2": _DB_API,
    "psycopg.errors": _DB_API,
    "pymysql.err": _DB_API,
    "MySQLdb._exceptions": _DB_API,
    "mysql.connector.errors": _DB_API,
    "mariadb": _DB_API,
    "pyodbc": _DB_API,
    "oracledb.exceptions": _DB_API,
    "asyncpg.exceptions": (
        "PostgresConnectionError",
        "InterfaceError",
        "CannotConnectNowError",
        "AdminShutdownError",
        "CrashShutdownError",
        "TooManyConnectionsError",
        "QueryCanceledError",
        "DiskFullError",
    ),
    "sqlalchemy.exc": ("TimeoutError",),  # its pool is exhausted; other errors are the driver's
}
"""By module, the exceptions that speak of the server and not of the statement."""

OF_THE_FILE = ("locked", "busy", "unable to open", "disk i/o", "full", "readonly", "malformed")
"""SQLite has one exception for all; these words are in the messages that are not about a statement."""


def install(reporter: Reporter) -> Undo:
    """Report operational errors and timeouts of the drivers in ``EXCEPTIONS`` when they are made."""
    patches = Patches(reporter, "databases")
    for name in EXCEPTIONS:
        patches.on_import(name, lambda module: _fit(patches, module))
    patches.on_import("asyncpg.connect_utils", lambda module: _fit_asyncpg(patches, module, "_connect"))
    patches.on_import(
        "asyncpg.connection", lambda module: _fit_asyncpg(patches, module.Connection, "execute")
    )
    patches.on_import(
        "asyncpg.connection", lambda module: _fit_asyncpg(patches, module.Connection, "_do_execute")
    )
    return patches.undo


def _fit(patches: Patches, module: ModuleType) -> None:
    driver = module.__name__.partition(".")[0]
    tells: Callable[[BaseException], bool] = _of_the_file if driver == "sqlite3" else _always
    for name in EXCEPTIONS[module.__name__]:
        found = getattr(module, name, None)
        if isinstance(found, type):
            _fit_exception(patches, found, driver, tells)


def _fit_exception(
    patches: Patches, exception: Any, driver: str, tells: Callable[[BaseException], bool]
) -> None:
    own = vars(exception).get("__init__")

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it becomes one
        if own is not None:
            own(self, *args, **kwargs)
        else:
            super(exception, self).__init__(*args, **kwargs)
        patches.safely(_made, patches, self, driver, tells)

    patches.replace(exception, "__init__", __init__)


def _made(
    patches: Patches, error: BaseException, driver: str, tells: Callable[[BaseException], bool]
) -> None:
    if tells(error):
        context = {"driver": driver, "at": here()}  # it has no traceback yet
        patches.outlet.raised(Kind.DATABASE, error, context=context)


def _always(_error: BaseException) -> bool:
    return True


def _of_the_file(error: BaseException) -> bool:
    said = str(error).lower()
    return any(word in said for word in OF_THE_FILE)


def _fit_asyncpg(patches: Patches, owner: Any, name: str) -> None:
    """See to what asyncpg hands on as the system raised it: refused connections and its own timeouts."""

    def make(function: Any) -> Any:
        async def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except OSError as error:  # TimeoutError is one
                patches.outlet.raised(Kind.DATABASE, error, context={"driver": "asyncpg", "at": here()})
                leave(error)
                raise

        return watched

    patches.wrap(owner, name, make)
