"""What libraries tell the remediator: error events, and the batches they travel in.

The wire format is these values as JSON, key by key, empty ones left out; clients in other languages write the
same (docs/api.md, "Events in"). Reading is strict about types and lenient about unknown keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FRAMES_LIMIT = 50
"""Frames kept of one exception: half of them from each end."""

CHAIN_LIMIT = 8
"""Exceptions kept of a chain of causes, contexts and members."""

MESSAGE_LIMIT = 1000
TEXT_LIMIT = 4096


class Kind(StrEnum):
    """How an error was noticed. Says nothing about what is wrong: that is the problem."""

    UNCAUGHT = "uncaught"  # it ended the program
    THREAD = "thread"  # it ended a thread
    FUTURE = "future"  # a pool kept it for somebody who never asked
    TASK = "task"  # an asyncio task kept it for somebody who never asked
    CALLBACK = "callback"  # raised where an event loop or a library calls
    NEVER_AWAITED = "never_awaited"  # a coroutine that never ran
    UNRAISABLE = "unraisable"  # __del__, weak references, the garbage collector
    ATEXIT = "atexit"
    REJECTION = "rejection"  # an unhandled promise rejection
    LOGGED = "logged"  # written to a log, or printed, by who caught it
    SWALLOWED = "swallowed"  # caught, and nothing done about it
    METHOD = "method"  # raised by a watched method
    RETURNED = "returned"  # a watched method returned what means failure
    SLOW = "slow"  # a watched call took longer than it may
    HUNG = "hung"  # a watched call has not come back
    LOOP_BLOCKED = "loop_blocked"
    HTTP = "http"  # a request got no answer
    HTTP_STATUS = "http_status"  # a request got a 5xx
    REDIS = "redis"
    DATABASE = "database"
    FILE = "file"  # the operating system refused a file
    CHILD = "child"  # a child process failed
    EXIT = "exit"  # the process ended, seen from outside or read at the next start
    HANDLES = "handles"
    THREADS = "threads"
    MEMORY = "memory"
    RESOURCE = "resource"  # a file or a connection nobody closed
    REPORTED = "reported"  # the application said so


class Relation(StrEnum):
    """How an exception of a chain belongs to the one before it."""

    RAISED = "raised"  # the one that was seen
    CAUSE = "cause"  # raise ... from
    CONTEXT = "context"  # raised while handling
    MEMBER = "member"  # of a group


class EventError(ValueError):
    """An event or a batch that cannot be read; the message names the place and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One place in a stack, outermost first in a list of them."""

    module: str = ""  # dotted, as imported; the file's path where there is none
    function: str = ""
    file: str = ""
    line: int = 0
    in_app: bool = True  # the program's own code, not an installed package


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """One exception of a chain."""

    type: str  # qualified by its module unless that is builtins
    message: str = ""
    relation: Relation = Relation.RAISED
    frames: tuple[Frame, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One error, or ``count`` alike, as seen inside (or from outside of) a process."""

    id: str  # 32 hexadecimal digits; the same id is taken once
    at: float  # epoch seconds, the sender's clock
    kind: Kind
    service: str
    message: str
    raised: tuple[Raised, ...] = ()  # what was seen first, then what led to it
    handled: bool = False  # the program went on as if nothing had happened
    count: int = 1
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    """What classification and playbooks use: ``errno``, ``path``, ``peer`` (host:port), ``url``,
    ``status`` (HTTP), ``exit_code``, ``signal``, ``seconds``, ``limit``, ``value``, ``method``."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What else helps a person; JSON."""
    system: Mapping[str, Any] = field(default_factory=dict)
    """State of process and host when it happened; JSON."""
    release: str = ""  # the version of the program
    severity: str = ""  # an opinion of the sender; classification hears it
    problem: str = ""  # likewise
    fingerprint: str = ""  # set by people who know better; else computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls of one method of a watched service, or from one service to another, since the last batch."""

    service: str  # the called one
    method: str
    caller: str = ""  # "" where nobody knows
    count: int = 0
    failures: int = 0
    seconds: float = 0.0  # sum
    buckets: tuple[int, ...] = ()  # by BOUNDS, not cumulative, one more for what is above


BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds of the buckets of ``Calls``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A gauge (its value now) or a counter (what came to it since the last batch) of an application."""

    service: str
    name: str
    value: float
    counter: bool = False
    low: float | None = None  # below it people want to know
    high: float | None = None
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Which life of which process a batch is from."""

    boot: str  # 32 hexadecimal digits, new with each process
    service: str = ""  # the one that the process is of
    name: str = ""  # for example soulfra-python/0.1.0
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one process sends at once. (sender.boot, seq) is taken once; seq grows by one from 1."""

    sender: Sender
    seq: int
    events: tuple[Event, ...] = ()
    calls: tuple[Calls, ...] = ()
    declared: tuple[Declared, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)  # by reason, since the last batch
    shedding: bool = False  # the library does less than it could, to stay below its limit of overhead
