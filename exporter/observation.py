"""What a probe saw: the values that probes hand to the state machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from soulfra_monitor.redaction import harmless

DETAIL_LIMIT = 200


class Reason(StrEnum):
    """Why a probe failed. Closed: it is a label of metrics."""

    DNS = "dns"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_FAILED = "connect_failed"  # no route, no such socket file, and the like
    FORBIDDEN = "forbidden"  # an address that the configuration does not allow
    TLS_HANDSHAKE = "tls_handshake"
    TLS_VERIFY = "tls_verify"
    TLS_EXPIRED = "tls_expired"
    TIMEOUT = "timeout"  # connected, but no whole answer in time
    RESET = "reset"  # the peer dropped the connection
    PROTOCOL = "protocol"  # the answer is not what the protocol allows
    STATUS = "status"  # an HTTP or gRPC status, or a DNS response code, that is not expected
    REDIRECT = "redirect"  # too many, or one that is not to be followed
    HEADER = "header"
    BODY = "body"
    JSON = "json"
    TOO_LARGE = "too_large"
    ANSWER = "answer"  # what came back is not what is expected: TCP text, DNS records, a row
    AUTH = "auth"
    LOADING = "loading"
    ROLE = "role"
    QUERY = "query"  # the database refused the query
    EXIT = "exit"  # the command ended with another status than expected
    GONE = "gone"
    NOT_LISTENING = "not_listening"  # the process is there, its port is not
    STOPPED = "stopped"
    RESTARTING = "restarting"
    UNHEALTHY = "unhealthy"  # it says so itself
    PID_FILE = "pid_file"
    MISSING = "missing"  # the file is not there
    PERMISSION = "permission"  # another owner or mode than expected
    LIMIT = "limit"  # beyond a limit of the configuration: age, size, space, length, lag
    STUCK = "stuck"  # it waits and nothing moves
    INTERNAL = "internal"  # the exporter's own fault, or what it may not look at: no evidence either way


_CONNECT = (
    Reason.DNS,
    Reason.CONNECT_REFUSED,
    Reason.CONNECT_TIMEOUT,
    Reason.CONNECT_FAILED,
    Reason.FORBIDDEN,
)
_TLS = (Reason.TLS_HANDSHAKE, Reason.TLS_VERIFY, Reason.TLS_EXPIRED)
_TALK = (Reason.TIMEOUT, Reason.RESET, Reason.INTERNAL)
_OPEN = (Reason.MISSING, Reason.CONNECT_REFUSED, Reason.CONNECT_TIMEOUT, Reason.CONNECT_FAILED)
_SQL = (
    Reason.MISSING,  # the socket file
    Reason.PROTOCOL,
    Reason.AUTH,
    Reason.LOADING,
    Reason.STATUS,  # an error that is not about the query: no such database, too many connections
    Reason.ROLE,
    Reason.QUERY,
    Reason.ANSWER,
    Reason.LIMIT,
    Reason.TOO_LARGE,
)

_HTTP = (
    *_CONNECT,
    *_TLS,
    *_TALK,
    Reason.PROTOCOL,
    Reason.STATUS,
    Reason.REDIRECT,
    Reason.HEADER,
    Reason.BODY,
    Reason.JSON,
    Reason.TOO_LARGE,
)

REASONS: Mapping[str, tuple[Reason, ...]] = {
    "http": _HTTP,
    "steps": _HTTP,
    "tcp": (*_CONNECT, *_TLS, *_TALK, Reason.ANSWER, Reason.TOO_LARGE),
    "unix": (*_OPEN, *_TLS, *_TALK, Reason.ANSWER, Reason.TOO_LARGE),
    "dns": (*_CONNECT, *_TLS, *_TALK, Reason.PROTOCOL, Reason.STATUS, Reason.ANSWER),
    "grpc": (*_CONNECT, *_TLS, *_TALK, Reason.PROTOCOL, Reason.STATUS, Reason.UNHEALTHY),
    "postgres": (*_CONNECT, *_TLS, *_TALK, *_SQL),
    "mysql": (*_CONNECT, *_TLS, *_TALK, *_SQL),
    "redis": (
        *_CONNECT,
        *_TLS,
        *_TALK,
        Reason.PROTOCOL,
        Reason.AUTH,
        Reason.LOADING,
        Reason.UNHEALTHY,
        Reason.ROLE,
        Reason.LIMIT,
    ),
    "queue": (
        *_CONNECT,
        *_TLS,
        *_TALK,
        Reason.PROTOCOL,
        Reason.AUTH,
        Reason.LOADING,
        Reason.UNHEALTHY,
        Reason.QUERY,
        Reason.LIMIT,
        Reason.STUCK,
    ),
    "container": (
        Reason.GONE,
        Reason.MISSING,
        Reason.STOPPED,
        Reason.RESTARTING,
        Reason.UNHEALTHY,
        Reason.LIMIT,
        Reason.INTERNAL,
    ),
    "process": (
        Reason.GONE,
        Reason.NOT_LISTENING,
        Reason.STOPPED,
        Reason.PID_FILE,
        Reason.LIMIT,
        Reason.INTERNAL,
    ),
    "file": (Reason.MISSING, Reason.PERMISSION, Reason.LIMIT, Reason.INTERNAL),
    "filesystem": (Reason.MISSING, Reason.PERMISSION, Reason.LIMIT, Reason.INTERNAL),
    "command": (
        Reason.EXIT,
        Reason.ANSWER,
        Reason.PROTOCOL,
        Reason.TOO_LARGE,
        Reason.TIMEOUT,
        Reason.INTERNAL,
    ),
}
"""The reasons each kind of probe can give, so that their counters start at 0."""


class ProcessStatus(StrEnum):
    """What became of a watched process."""

    RUNNING = "running"
    STOPPED = "stopped"
    ZOMBIE = "zombie"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """Resources of a service's processes together; None where the kernel does not let us look."""

    pid: int  # of the main process: the oldest, or the one that the pid file names
    start_time: float  # of the main process
    status: ProcessStatus  # of the main process
    start_ticks: int = 0  # its start after the boot, which tells it from another process with its number
    cpu_seconds: float | None = None  # never falls, also when one of several processes ends
    resident_bytes: int | None = None
    memory_limit_bytes: int | None = None  # None: it has none
    open_fds: int | None = None
    max_fds: int | None = None
    worst_fd_ratio: float | None = None  # of the process that is nearest to its limit
    threads: int | None = None
    group_size: int = 1  # processes that share the port, match the pattern or descend from the pid file's
    zombies: int | None = None  # children that ended and were not waited for
    restarts: int = 0  # since the exporter watches
    oom_kills: int | None = None  # of its cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """What the peer of a TLS connection showed. Times are epoch seconds."""

    not_after: float  # the earliest end of validity in the chain the peer sent
    verified: bool
    version: str = ""  # for example TLSv1.3
    cipher: str = ""
    chain_not_after: float | None = None  # the earliest end in the verified chain
    fingerprint: str = ""  # SHA-256 of the peer's certificate, in hex


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFacts:
    """The head of the last HTTP answer."""

    status: int
    version: str = "1.1"
    redirects: int = 0  # that were followed
    redirects_met: int = 0  # and the one that was not to be followed any more
    content_length: int | None = None
    body_bytes: int = 0  # as they came
    unpacked_bytes: int | None = None  # where a packed body was asked for
    last_modified: float | None = None
    secure: bool = False  # the last answer came over TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A metric that a kind of probe fills; its samples carry target, probe and *labels*."""

    name: str  # without soulfra_ and without a counter's _total
    help: str
    type: Literal["gauge", "counter"] = "gauge"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of a measure."""

    measure: Measure
    value: float
    labels: tuple[str, ...] = ()  # the values of the measure's own labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a probe function returns; the scheduler adds when and how long."""

    reason: Reason | None = None  # None is success
    detail: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    address: str = ""  # the IP address it talked to last
    tls: TlsFacts | None = None
    http: HttpFacts | None = None
    process: ProcessFacts | None = None
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One run of one probe."""

    started: float  # monotonic; orders observations and measures how long a failure lasts
    at: float  # epoch seconds at its end
    seconds: float
    outcome: Outcome

    @property
    def healthy(self) -> bool:
        """Whether the probe succeeded."""
        return self.outcome.reason is None

    @property
    def reason(self) -> Reason | None:
        """Why it failed, or None."""
        return self.outcome.reason


def shorten(text: str, limit: int = DETAIL_LIMIT) -> str:
    """Put *text* on one line of at most *limit* characters, none of which steers a terminal."""
    line = harmless(" ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"
