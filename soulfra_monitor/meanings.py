"""What names of exceptions, system errors, kinds and messages mean: the tables that classification reads.

Types are known by their names, so that nothing has to be imported to know them. A new one is one line here.
"""

import re
from dataclasses import dataclass
from enum import IntEnum

from soulfra_monitor.events import Kind
from soulfra_monitor.problems import Problem

MESSAGE_LENGTH = 1000
"""Characters of a message that are looked at."""


class Weight(IntEnum):
    """How much the name of a type says; the weightiest of a chain decides."""

    VAGUE = 1  # some failure of a connection
    SPECIFIC = 2  # what the system refused
    NAMED = 3  # which dependency, or that it is none


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name stands for, in a few words for people."""

    problem: Problem | None  # None: a fault in code, whatever library found it
    says: str
    weight: Weight = Weight.SPECIFIC


REDIS = Meaning(Problem.REDIS_UNAVAILABLE, "Redis does not serve", Weight.NAMED)
DATABASE = Meaning(Problem.DATABASE_UNAVAILABLE, "the database does not serve", Weight.NAMED)
QUOTA = Meaning(Problem.PROVIDER_QUOTA, "the provider limits the rate", Weight.NAMED)
CODE = Meaning(None, "a fault in code or data", Weight.NAMED)
TIMEOUT = Meaning(Problem.NETWORK_TIMEOUT, "no answer came in time")
LATE = Meaning(Problem.NETWORK_TIMEOUT, "no answer came in time", Weight.VAGUE)
REFUSED = Meaning(Problem.CONNECTION_REFUSED, "nobody listens there")
DROPPED = Meaning(Problem.DEPENDENCY_FAILURE, "the other side dropped the connection")
UNRESOLVED = Meaning(Problem.DEPENDENCY_FAILURE, "the name of the host is not resolved")
ANSWERED_BADLY = Meaning(Problem.DEPENDENCY_FAILURE, "a dependency answered with a failure")
UNREACHED = Meaning(Problem.DEPENDENCY_FAILURE, "no answer from a dependency", Weight.VAGUE)
DENIED = Meaning(Problem.PERMISSION_DENIED, "the system refuses access")
MISSING = Meaning(Problem.MISSING_FILE, "a file or folder is not there")
FULL = Meaning(Problem.DISK_FULL, "no space is left")
HANDLES = Meaning(Problem.HANDLE_EXHAUSTION, "no file handle is left")
MEMORY = Meaning(Problem.MEMORY_PRESSURE, "no memory is left")
TLS = Meaning(Problem.DEPENDENCY_FAILURE, "TLS failed")
EXPIRED = Meaning(Problem.TLS_EXPIRY, "a certificate has expired", Weight.NAMED)

ANY_PACKAGE = "*"
BUILTIN = ""
_DRIVERS = (
    "psycopg", "psycopg2", "pymysql", "MySQLdb", "aiomysql", "mysql", "sqlalchemy", "django", "peewee",
    "oracledb", "pyodbc", "sqlite3", "apsw",
)  # fmt: skip
"""Packages that name their errors as the DB-API does."""

_NAMES: tuple[tuple[str, str, Meaning], ...] = (
    (BUILTIN, "TimeoutError", TIMEOUT),
    (BUILTIN, "ConnectionRefusedError", REFUSED),
    (BUILTIN, "ConnectionResetError BrokenPipeError ConnectionAbortedError", DROPPED),
    (BUILTIN, "ConnectionError", UNREACHED),
    (BUILTIN, "PermissionError", DENIED),
    (BUILTIN, "FileNotFoundError NotADirectoryError", MISSING),
    (BUILTIN, "MemoryError", MEMORY),
    ("socket", "timeout", TIMEOUT),
    ("socket", "gaierror herror", UNRESOLVED),
    ("asyncio", "TimeoutError", TIMEOUT),
    ("asyncio", "IncompleteReadError", DROPPED),
    ("concurrent", "TimeoutError", TIMEOUT),
    ("concurrent", "BrokenProcessPool", Meaning(Problem.DEPENDENCY_FAILURE, "a worker of the pool died")),
    ("multiprocessing", "TimeoutError", TIMEOUT),
    ("ssl", "SSLError SSLEOFError SSLZeroReturnError SSLSyscallError SSLCertVerificationError", TLS),
    ("http", "RemoteDisconnected IncompleteRead BadStatusLine", DROPPED),
    ("urllib", "URLError", UNREACHED),
    ("subprocess", "TimeoutExpired", Meaning(Problem.DEPENDENCY_FAILURE, "a program did not end in time")),
    (
        "subprocess",
        "CalledProcessError",
        Meaning(Problem.DEPENDENCY_FAILURE, "a program ended with a failure"),
    ),
    (
        "redis",
        "ConnectionError TimeoutError BusyLoadingError ReadOnlyError MasterDownError TryAgainError",
        REDIS,
    ),
    ("redis", "ClusterDownError MaxConnectionsError MasterNotFoundError SlaveNotFoundError", REDIS),
    ("redis", "AuthenticationError AuthorizationError NoPermissionError", REDIS),
    ("redis", "OutOfMemoryError", Meaning(Problem.MEMORY_PRESSURE, "Redis is full", Weight.NAMED)),
    ("redis", "ResponseError DataError InvalidResponse WatchError NoScriptError LockError", CODE),
    ("valkey", "ConnectionError TimeoutError BusyLoadingError ReadOnlyError", REDIS),
    *((driver, "OperationalError InterfaceError InternalError", DATABASE) for driver in _DRIVERS),
    *((driver, "IntegrityError ProgrammingError DataError NotSupportedError", CODE) for driver in _DRIVERS),
    (
        "psycopg",
        "ConnectionTimeout AdminShutdown CrashShutdown CannotConnectNow TooManyConnections",
        DATABASE,
    ),
    ("psycopg2", "AdminShutdown CrashShutdown CannotConnectNow TooManyConnections", DATABASE),
    ("psycopg_pool", "PoolTimeout PoolClosed TooManyRequests", DATABASE),
    ("sqlalchemy", "TimeoutError DBAPIError DisconnectionError", DATABASE),
    ("asyncpg", "ConnectionDoesNotExistError CannotConnectNowError TooManyConnectionsError", DATABASE),
    ("asyncpg", "PostgresConnectionError ConnectionFailureError ConnectionRejectionError", DATABASE),
    ("asyncpg", "AdminShutdownError CrashShutdownError InterfaceError", DATABASE),
    ("asyncpg", "UniqueViolationError UndefinedTableError PostgresSyntaxError DataError", CODE),
    ("pymongo", "ServerSelectionTimeoutError AutoReconnect ConnectionFailure NetworkTimeout", DATABASE),
    ("elasticsearch", "ConnectionError ConnectionTimeout", DATABASE),
    ("httpx", "ConnectTimeout ReadTimeout WriteTimeout PoolTimeout TimeoutException", TIMEOUT),
    ("httpx", "ConnectError NetworkError TransportError ReadError WriteError ProxyError", UNREACHED),
    ("httpx", "RemoteProtocolError CloseError", DROPPED),
    ("httpcore", "ConnectTimeout ReadTimeout WriteTimeout PoolTimeout", TIMEOUT),
    ("httpcore", "ConnectError ReadError WriteError NetworkError", UNREACHED),
    ("requests", "Timeout ConnectTimeout ReadTimeout", TIMEOUT),
    ("requests", "SSLError", TLS),
    ("requests", "ChunkedEncodingError", DROPPED),
    ("requests", "ConnectionError ProxyError RetryError", UNREACHED),
    ("aiohttp", "ServerTimeoutError ConnectionTimeoutError SocketTimeoutError", TIMEOUT),
    ("aiohttp", "ServerDisconnectedError ClientPayloadError ClientConnectionResetError", DROPPED),
    ("aiohttp", "ClientConnectorDNSError", UNRESOLVED),
    ("aiohttp", "ClientConnectorCertificateError ClientConnectorSSLError ClientSSLError", TLS),
    ("aiohttp", "ClientConnectorError ClientOSError ClientConnectionError", UNREACHED),
    ("urllib3", "ConnectTimeoutError ReadTimeoutError TimeoutError", TIMEOUT),
    ("urllib3", "ProtocolError IncompleteRead", DROPPED),
    ("urllib3", "NameResolutionError", UNRESOLVED),
    ("urllib3", "SSLError", TLS),
    ("urllib3", "MaxRetryError NewConnectionError ProxyError HTTPError", UNREACHED),
    ("grpc", "RpcError AioRpcError _InactiveRpcError", UNREACHED),
    ("kombu", "OperationalError", UNREACHED),
    ("pika", "AMQPConnectionError ConnectionClosed StreamLostError", UNREACHED),
    ("botocore", "ConnectTimeoutError ReadTimeoutError", TIMEOUT),
    ("botocore", "EndpointConnectionError ConnectionClosedError", UNREACHED),
    ("anyio", "BrokenResourceError ClosedResourceError EndOfStream", DROPPED),
    # What other languages and the SDKs of providers call it.
    (ANY_PACKAGE, "RateLimitError RateLimitExceeded TooManyRequests TooManyRequestsError", QUOTA),
    (ANY_PACKAGE, "QuotaExceeded QuotaExceededError ResourceExhausted ThrottlingException", QUOTA),
    (ANY_PACKAGE, "APITimeoutError RequestTimeout DeadlineExceeded", TIMEOUT),
    (ANY_PACKAGE, "APIConnectionError ServiceUnavailable InternalServerError", UNREACHED),
    (ANY_PACKAGE, "TimeoutError Timeout ConnectTimeout ReadTimeout ConnectTimeoutError", LATE),
    (ANY_PACKAGE, "HeadersTimeoutError BodyTimeoutError", LATE),
    (ANY_PACKAGE, "MaxRetriesPerRequestError ClientClosedError SocketClosedUnexpectedlyError", REDIS),
    (ANY_PACKAGE, "MongoNetworkError MongoServerSelectionError MongoNetworkTimeoutError", DATABASE),
    (ANY_PACKAGE, "SequelizeConnectionError SequelizeConnectionRefusedError", DATABASE),
    (ANY_PACKAGE, "SequelizeConnectionAcquireTimeoutError SequelizeHostNotFoundError", DATABASE),
)
"""Package, names of its types in one text, and what they mean."""

TYPES = {(package, name): meaning for package, names, meaning in _NAMES for name in names.split()}

CODES: dict[str, Meaning] = {
    "ENOSPC": FULL,
    "EDQUOT": FULL,
    "EMFILE": HANDLES,
    "ENFILE": HANDLES,
    "EACCES": DENIED,
    "EPERM": DENIED,
    "EROFS": DENIED,
    "ENOENT": MISSING,
    "ENOTDIR": MISSING,
    "ENOMEM": MEMORY,
    "ECONNREFUSED": REFUSED,
    "EHOSTUNREACH": Meaning(Problem.CONNECTION_REFUSED, "no way leads to the host"),
    "ENETUNREACH": Meaning(Problem.CONNECTION_REFUSED, "no way leads to the network"),
    "EHOSTDOWN": Meaning(Problem.CONNECTION_REFUSED, "the host is down"),
    "ETIMEDOUT": TIMEOUT,
    "ESOCKETTIMEDOUT": TIMEOUT,
    "UND_ERR_CONNECT_TIMEOUT": TIMEOUT,
    "UND_ERR_HEADERS_TIMEOUT": TIMEOUT,
    "UND_ERR_BODY_TIMEOUT": TIMEOUT,
    "ECONNRESET": DROPPED,
    "ECONNABORTED": DROPPED,
    "EPIPE": DROPPED,
    "UND_ERR_SOCKET": DROPPED,
    "ENOTFOUND": UNRESOLVED,
    "EAI_AGAIN": UNRESOLVED,
    "EAI_NONAME": UNRESOLVED,
    "CERT_HAS_EXPIRED": EXPIRED,
    "ERR_TLS_CERT_ALTNAME_INVALID": TLS,
    "DEPTH_ZERO_SELF_SIGNED_CERT": TLS,
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": TLS,
    "NR_CLOSED": REDIS,
    "UNCERTAIN_STATE": REDIS,
}
"""Names of the system's errors, and Node's codes."""

CERTAIN: dict[Kind, Meaning] = {
    Kind.EXIT: Meaning(Problem.PROCESS_DIED, "the process ended"),
    Kind.CHILD: Meaning(Problem.DEPENDENCY_FAILURE, "a program that this one has started failed"),
    Kind.HUNG: Meaning(Problem.SERVICE_TIMEOUT, "a call has not come back"),
    Kind.SLOW: Meaning(Problem.SERVICE_TIMEOUT, "a call took longer than it may"),
    Kind.LOOP_BLOCKED: Meaning(Problem.LOOP_BLOCKED, "the event loop stood still"),
    Kind.HANDLES: Meaning(Problem.HANDLE_EXHAUSTION, "file handles run out"),
    Kind.THREADS: Meaning(Problem.HANDLE_EXHAUSTION, "threads run out"),
    Kind.MEMORY: Meaning(Problem.MEMORY_LEAK, "memory grows and is not given back"),
    Kind.NEVER_AWAITED: Meaning(Problem.UNCAUGHT_EXCEPTION, "a coroutine never ran: its work is lost"),
}
"""What a kind says whatever else is known."""

UNHANDLED = Meaning(Problem.UNCAUGHT_EXCEPTION, "nobody caught it")
SWALLOWED = Meaning(Problem.SWALLOWED_ERROR, "it was caught, and the program went on")
LEFT = Meaning(Problem.UNCAUGHT_EXCEPTION, "only the framework caught it, and logged it")
USUAL: dict[Kind, Meaning] = {
    Kind.UNCAUGHT: UNHANDLED,
    Kind.THREAD: UNHANDLED,
    Kind.FUTURE: Meaning(Problem.UNCAUGHT_EXCEPTION, "nobody asked the future for it"),
    Kind.TASK: Meaning(Problem.UNCAUGHT_EXCEPTION, "nobody asked the task for it"),
    Kind.CALLBACK: UNHANDLED,
    Kind.UNRAISABLE: Meaning(Problem.UNCAUGHT_EXCEPTION, "it was raised where nobody can catch it"),
    Kind.ATEXIT: UNHANDLED,
    Kind.REJECTION: Meaning(Problem.UNHANDLED_REJECTION, "no handler waits for the promise"),
    Kind.LOGGED: Meaning(Problem.SWALLOWED_ERROR, "it was caught and logged"),
    Kind.SWALLOWED: SWALLOWED,
    Kind.RETURNED: Meaning(Problem.SERVICE_DEGRADED, "a call returned what means failure"),
    Kind.HTTP: Meaning(Problem.DEPENDENCY_FAILURE, "a request got no answer"),
    Kind.HTTP_STATUS: ANSWERED_BADLY,
    Kind.REDIS: REDIS,
    Kind.DATABASE: DATABASE,
    Kind.RESOURCE: Meaning(Problem.OTHER, "something was left open"),
}
"""What a kind means when nothing else says more."""

PLAIN_FAULTS = frozenset(
    {
        "ArithmeticError", "AssertionError", "AttributeError", "EOFError", "ImportError", "IndexError",
        "KeyError", "LookupError", "ModuleNotFoundError", "NameError", "NotImplementedError", "OverflowError",
        "RangeError", "RecursionError", "ReferenceError", "StopIteration", "SyntaxError", "TypeError",
        "UnboundLocalError", "UnicodeDecodeError", "UnicodeEncodeError", "UnicodeError", "ValueError",
        "ZeroDivisionError",
    }
)  # fmt: skip
"""Built-in types that mean a fault in code or data, whatever their message says."""

_TEXTS = (
    (r"too many requests|rate.?limit(?:ed| exceeded| reached)", QUOTA),
    (r"\bquota\b.{0,60}(?:exceeded|exhausted|used up|reached)|\banswered 429\b", QUOTA),
    (r"exceeded your .{0,40}quota|(?:status|http|error|code)\W{0,3}429\b|\b429\W{0,3}client error", QUOTA),
    (r"\bno space left\b|\bdisk (?:is )?full\b|\bENOSPC\b|database or disk is full", FULL),
    (r"\btoo many open files\b|\bE[MN]FILE\b", HANDLES),
    (r"\bout of memory\b|\bcannot allocate memory\b|\bheap limit\b|\bENOMEM\b|\boom.?kill", MEMORY),
    (r"certificate (?:has |is )?expired|\bCERT_HAS_EXPIRED\b", EXPIRED),
    (r"certificate verify failed|\bself.signed certificate\b|\bSSL: [A-Z_]{4,60}\]", TLS),
    (r"\bredis\b.{0,80}(?:refused|timed? ?out|unavailable|closed|lost|reset|loading|not connected)", REDIS),
    (r"(?:refused|timed? ?out|unavailable|lost|cannot connect|error connecting).{0,80}\bredis\b", REDIS),
    (
        r"\b(?:postgres\w{0,5}|mysql|mariadb|database|db)\b.{0,80}(?:refused|timed? ?out|unavailable)",
        DATABASE,
    ),
    (r"\bdatabase is locked\b|mysql server has gone away|lost connection to mysql", DATABASE),
    (r"too many (?:connections|clients)\b|remaining connection slots", DATABASE),
    (
        r"\[Errno (?:1|13|30)\]|\bE(?:ACCES|PERM|ROFS)\b|permission denied: ?['\"/]|read-only file system",
        DENIED,
    ),
    (r"\[Errno 2\]|\bno such file or directory\b|\bENOENT\b", MISSING),
    (r"\bconnection refused\b|\bECONNREFUSED\b", REFUSED),
    (r"\bname or service not known\b|\bname resolution\b|\bENOTFOUND\b|\bEAI_AGAIN\b", UNRESOLVED),
    (r"\bconnection (?:was )?(?:reset|closed|lost|aborted|dropped)|\bbroken pipe\b", DROPPED),
    (r"\bECONNRESET\b|\bsocket hang up\b|\bEPIPE\b|\bserver disconnected\b", DROPPED),
    (r"\btimed out\b|\btime-?out (?:after|of|exceeded|expired|waiting|while)|deadline exceeded", TIMEOUT),
    (r"\b(?:api|request|gateway|read|connect|connection|response|query|upstream) time-?out\b", TIMEOUT),
    (r"\bETIMEDOUT\b|\bdid not answer (?:in|within)\b", TIMEOUT),
    (r"\bcannot be reached\b|\bis unreachable\b", UNREACHED),
    (r"\b5\d\d (?:server error|internal server error|bad gateway|service unavailable)", ANSWERED_BADLY),
    (
        r"server error '5\d\d|\bhttp error 5\d\d\b|\bstatus(?: code)?\W{0,3}5\d\d\b|\banswered 5\d\d\b",
        ANSWERED_BADLY,
    ),
)

TEXTS = tuple((re.compile(pattern, re.IGNORECASE), meaning) for pattern, meaning in _TEXTS)
"""What messages say, tried in this order. The gaps are bounded: no time grows faster than the length."""
