"""What mostly lies behind a known kind of error, and what mends it. Pure.

One table. Of the patterns that fit, the one that asks for most is suggested: a message says more than a
type, a type more than a kind, a kind more than the problem. An action is named only where it is safe to take
before anybody has understood the error; whether it is taken is up to playbooks. docs/error-patterns.md has
the same table for people.
"""

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from soulfra_monitor.classify import Classification, library
from soulfra_monitor.events import Event, Kind
from soulfra_monitor.problems import Problem

TEXT_LENGTH = 1000

PYTHON = "https://docs.python.org/3/library"
NODE = "https://nodejs.org/api"
REDIS = "https://redis.io/docs/latest"
LINUX = "https://man7.org/linux/man-pages"

RESTART, RECONNECT, FILE, RETRY = "restart", "hook:reconnect_redis", "file", "hook:retry_failed"
"""Actions of playbooks: the action, and the hook's name after a colon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One known pattern. All that it asks for must be so; ``{name}`` in its texts stands for a fact."""

    name: str
    problems: tuple[Problem, ...] = ()  # any of them
    kinds: tuple[Kind, ...] = ()  # any of them
    types: tuple[str, ...] = ()  # last names of exceptions; one of the chain is any of them
    libraries: tuple[str, ...] = ()  # packages; one of the chain is from any of them
    codes: tuple[str, ...] = ()  # names of the system's errors; the fact errno is any of them
    facts: Mapping[str, str] = field(default_factory=dict)  # a regular expression for the whole of each
    says: str = ""  # a regular expression that is found in the message or in one of the chain
    cause: str
    fix: str  # one line
    knob: str = ""  # the setting to turn
    link: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What is suggested for one event, its facts filled in."""

    name: str
    cause: str
    fix: str
    knob: str
    link: str
    action: str
    reason: str  # by what it was known


def suggest(event: Event, classification: Classification) -> Fix | None:
    """Return the fix of the pattern that fits *event* best; None when none does. The same each time."""
    clues = _Clues.of(event, classification)
    fitting = [(sum(weights), pattern) for pattern in PATTERNS if (weights := _weights(pattern, clues))]
    if not fitting:
        return None
    _, pattern = max(fitting, key=lambda item: item[0])  # the first of equals
    return _filled(pattern, event, clues)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clues:
    problem: Problem
    kind: Kind
    types: frozenset[str]
    libraries: frozenset[str]
    code: str
    facts: Mapping[str, str]
    text: str

    @classmethod
    def of(cls, event: Event, classification: Classification) -> "_Clues":
        texts = [event.message, *(f"{raised.type}: {raised.message}" for raised in event.raised)]
        return cls(
            problem=classification.problem,
            kind=event.kind,
            types=frozenset(raised.type.rpartition(".")[2] for raised in event.raised),
            libraries=frozenset(library(raised.type) for raised in event.raised),
            code=_code(event.facts.get("errno", event.facts.get("code", ""))),
            facts={name: str(value)[:TEXT_LENGTH] for name, value in event.facts.items()},
            text="\n".join(text[:TEXT_LENGTH] for text in texts),
        )


def _code(value: str | float) -> str:
    if isinstance(value, int):
        return errno.errorcode.get(abs(value), "")
    return value if isinstance(value, str) else ""


def _weights(pattern: Pattern, clues: _Clues) -> list[int]:
    """Return what each thing that *pattern* asks for weighs; nothing when one of them is not so."""
    asked = (
        (10, pattern.says, re.search(pattern.says, clues.text) is not None),
        (7, pattern.facts, _has(pattern.facts, clues.facts)),
        (5, pattern.codes, clues.code in pattern.codes),
        (5, pattern.types, not clues.types.isdisjoint(pattern.types)),
        (3, pattern.libraries, not clues.libraries.isdisjoint(pattern.libraries)),
        (2, pattern.kinds, clues.kind in pattern.kinds),
        (1, pattern.problems, clues.problem in pattern.problems),
    )
    wanted = [(weight, is_so) for weight, what, is_so in asked if what]
    return [weight for weight, _ in wanted] if all(is_so for _, is_so in wanted) else []


def _has(wanted: Mapping[str, str], facts: Mapping[str, str]) -> bool:
    return all(re.fullmatch(pattern, facts.get(name, "")) is not None for name, pattern in wanted.items())


def _filled(pattern: Pattern, event: Event, clues: _Clues) -> Fix:
    facts = _Facts({**clues.facts, "service": event.service})
    return Fix(
        name=pattern.name,
        cause=pattern.cause.format_map(facts),
        fix=pattern.fix.format_map(facts),
        knob=pattern.knob.format_map(facts),
        link=pattern.link,
        action=pattern.action,
        reason=f"Known by {', '.join(_reasons(pattern, clues))}.",
    )


def _reasons(pattern: Pattern, clues: _Clues) -> list[str]:
    found = re.search(pattern.says, clues.text) if pattern.says else None
    return [
        *([f"{found[0][:80]!r} in its message"] if found else []),
        *(f"{name} {clues.facts[name]}" for name in pattern.facts),
        *([clues.code] if pattern.codes else []),
        *sorted(clues.types.intersection(pattern.types)),
        *(f"library {name}" for name in sorted(clues.libraries.intersection(pattern.libraries))),
        *([f"kind {clues.kind}"] if pattern.kinds else []),
        *([f"problem {clues.problem}"] if pattern.problems else []),
    ]


class _Facts(dict[str, str]):
    """What the texts may name. What is not known is said in words."""

    def __missing__(self, key: str) -> str:
        return _UNKNOWN[key]


_UNKNOWN = {
    "path": "the path",
    "peer": "the other side",
    "url": "the address",
    "method": "the method",
    "exit_code": "unknown",
    "signal": "a signal",
    "status": "5xx",
    "seconds": "some",
    "limit": "its limit",
    "value": "it",
}


PATTERNS: tuple[Pattern, ...] = (
    # -- Redis
    Pattern(
        name="redis_away",
        problems=(Problem.REDIS_UNAVAILABLE,),
        cause="{service} has no connection to Redis at {peer}: it is down, restarting, or cut the "
        "connection.",
        fix="Let the client retry with backoff and check idle connections; offer the hook reconnect_redis.",
        knob="redis.Redis(retry=, health_check_interval=30); services.{service}.hooks.reconnect_redis",
        link=f"{REDIS}/develop/clients/redis-py/produsage/",
        action=RECONNECT,
    ),
    Pattern(
        name="redis_slow",
        problems=(Problem.REDIS_UNAVAILABLE,),
        types=("TimeoutError",),
        libraries=("redis", "valkey"),
        cause="Redis at {peer} took longer than socket_timeout: a slow command (KEYS, big values, Lua) "
        "holds it.",
        fix="Look at SLOWLOG GET and LATENCY DOCTOR; replace KEYS by SCAN, split big values.",
        knob="socket_timeout",
        link=f"{REDIS}/operate/oss_and_stack/management/optimization/latency/",
        action=RECONNECT,
    ),
    Pattern(
        name="redis_password",
        says=r"NOAUTH|WRONGPASS|HELLO must be called|Authentication required|invalid username-password",
        cause="Redis at {peer} wants a password, or another one than {service} has.",
        fix="Give the service the right one; neither a restart nor a new connection helps.",
        knob="the password in the service's Redis address",
        link=f"{REDIS}/operate/oss_and_stack/management/security/acl/",
    ),
    Pattern(
        name="redis_memory",
        says=r"OOM command not allowed|used memory > 'maxmemory'",
        cause="Redis at {peer} has reached its maxmemory, and may evict nothing.",
        fix="Let keys expire, raise maxmemory, or choose a policy that evicts.",
        knob="maxmemory, maxmemory-policy",
        link=f"{REDIS}/develop/reference/eviction/",
    ),
    Pattern(
        name="redis_persistence",
        says=r"MISCONF",
        cause="Redis at {peer} could not save to its disk, and takes no writes until it can.",
        fix="Look at its log, its folder's space and owner; then BGSAVE.",
        knob="stop-writes-on-bgsave-error, dir",
        link=f"{REDIS}/operate/oss_and_stack/management/persistence/",
    ),
    Pattern(
        name="redis_replica",
        says=r"READONLY|[Yy]ou can't write against a read only replica",
        cause="{peer} is a replica of Redis; after a failover clients may still be connected to it.",
        fix="Connect anew, by a client that asks Sentinel or the cluster for the master.",
        knob="redis.sentinel.Sentinel(...).master_for()",
        link=f"{REDIS}/operate/oss_and_stack/management/sentinel/",
        action=RECONNECT,
    ),
    Pattern(
        name="redis_clients",
        says=r"max number of clients reached",
        cause="Redis at {peer} has as many clients as it takes: connections are leaked, or pools are "
        "too big.",
        fix="Use one pool for each process, and close clients; CLIENT LIST tells whose they are.",
        knob="maxclients; ConnectionPool(max_connections=)",
        link=f"{REDIS}/develop/reference/clients/",
        action=RECONNECT,
    ),
    Pattern(
        name="redis_type",
        says=r"WRONGTYPE",
        cause="A key of Redis holds another type of value than the command is for: two parts share its name.",
        fix="Find the other writer by the key's name (TYPE, OBJECT), and give each a prefix of its own.",
        link=f"{REDIS}/develop/data-types/",
    ),
    # -- databases
    Pattern(
        name="database_away",
        problems=(Problem.DATABASE_UNAVAILABLE,),
        cause="{service} has no connection to its database at {peer}: it is down, or cut idle connections.",
        fix="Let the pool test connections before it gives them out, and connect anew.",
        knob="pool_pre_ping, pool_recycle",
        link="https://docs.sqlalchemy.org/en/20/core/pooling.html#disconnect-handling-pessimistic",
    ),
    Pattern(
        name="database_connections",
        says=r"(?i)too many connections|remaining connection slots|too many clients",
        cause="The database takes no more connections: all pools together are larger than its limit.",
        fix="Bound the pools so that their sum fits, or put a pooler in front.",
        knob="max_connections; the pool's size",
        link="https://www.postgresql.org/docs/current/runtime-config-connection.html",
    ),
    Pattern(
        name="database_locked",
        says=r"database (?:table )?is locked",
        cause="Another connection writes to the SQLite file for longer than {service} waits.",
        fix="Keep transactions short, turn write-ahead logging on, wait some seconds.",
        knob="PRAGMA journal_mode=WAL, sqlite3.connect(timeout=)",
        link="https://www.sqlite.org/wal.html",
    ),
    Pattern(
        name="database_schema",
        says=r"no such (?:table|column)|relation \"[^\"]{1,200}\" does not exist|Unknown column",
        cause="The database lacks a table or column that the code expects: a migration has not run.",
        fix="Run the migrations before the new version starts.",
        link="https://alembic.sqlalchemy.org/en/latest/tutorial.html",
    ),
    Pattern(
        name="database_read_only",
        says=r"attempt to write a readonly database",
        cause="{service} may read the database file and not write it: owner, mode, or mode=ro.",
        fix="Give the file and its folder (for the journal) to the service's user.",
        knob="services.{service}.paths",
        link="https://www.sqlite.org/rescode.html#readonly",
    ),
    Pattern(
        name="database_full",
        says=r"database or disk is full",
        cause="The database file cannot grow: the disk, or its own limit of pages, is reached.",
        fix="Make room, or raise PRAGMA max_page_count.",
        knob="PRAGMA max_page_count",
        link="https://www.sqlite.org/rescode.html#full",
    ),
    # -- files and the system
    Pattern(
        name="no_permission",
        problems=(Problem.PERMISSION_DENIED,),
        cause="The user that {service} runs as may not use {path}: its owner or mode, or that of a "
        "folder above.",
        fix="Give it the owner and mode that the service needs, and list it, so that it is mended next time.",
        knob="services.{service}.paths",
        link=f"{LINUX}/man7/path_resolution.7.html",
        action=FILE,
    ),
    Pattern(
        name="read_only",
        problems=(Problem.PERMISSION_DENIED,),
        codes=("EROFS",),
        cause="The file system of {path} is read-only: mounted so, or remounted after an error of the disk.",
        fix="Look at `dmesg` and `findmnt -T {path}`; write to a place that may be written.",
        link=f"{LINUX}/man8/mount.8.html",
    ),
    Pattern(
        name="no_file",
        problems=(Problem.MISSING_FILE,),
        cause="{path} is not there: never made, removed by a clean-up, or on a disk that is not mounted.",
        fix="Make it at the start (os.makedirs(exist_ok=True)), or list it with `create`.",
        knob="services.{service}.paths",
        link=f"{PYTHON}/os.html#os.makedirs",
        action=FILE,
    ),
    Pattern(
        name="no_program",
        problems=(Problem.MISSING_FILE,),
        facts={"path": r"[^/\\]{1,255}"},
        says=r"No such file or directory: '[^/']{1,255}'|ENOENT.{0,200}spawn|spawn .{0,200}ENOENT",
        cause="There is no program {path} on PATH, or no such file in the folder that {service} runs in.",
        fix="Install it, or name it by its whole path; services started by systemd have a short PATH.",
        knob="PATH in the unit's Environment=",
        link=f"{PYTHON}/shutil.html#shutil.which",
    ),
    Pattern(
        name="stale_lock",
        problems=(Problem.STALE_LOCK,),
        cause="{path} was left by a process that is dead.",
        fix="Remove it when nobody holds it; better, lock by flock(), which ends with its process.",
        knob="services.{service}.paths",
        link=f"{PYTHON}/fcntl.html#fcntl.flock",
        action=FILE,
    ),
    Pattern(
        name="disk_full",
        problems=(Problem.DISK_FULL,),
        cause="The disk, or the quota, that {service} writes to is full.",
        fix="Make room (old logs, temporary files, dumps: `du -xhd1 /`), then bound what grows.",
        knob="SystemMaxUse= of journald, logrotate",
        link=f"{LINUX}/man1/df.1.html",
    ),
    Pattern(
        name="handles_exhausted",
        problems=(Problem.HANDLE_EXHAUSTION,),
        cause="{service} has as many files and connections open as it may have; it can take no connection.",
        fix="Close what is opened (`with`), use one client for all requests; a restart gains time.",
        knob="LimitNOFILE= of the unit, ulimit -n",
        link=f"{LINUX}/man2/getrlimit.2.html",
        action=RESTART,
    ),
    Pattern(
        name="threads_exhausted",
        says=r"can't start new thread",
        cause="{service} can start no more threads: mostly each request starts some that never end.",
        fix="Use a pool with a bound, and join what is started; a restart gains time.",
        knob="TasksMax= of the unit, pids.max of the container",
        link=f"{PYTHON}/concurrent.futures.html#threadpoolexecutor",
        action=RESTART,
    ),
    Pattern(
        name="threads_growing",
        kinds=(Kind.THREADS,),
        cause="{service} has {value} threads, and they grow: each request starts some that never end.",
        fix="Use a pool with a bound; the stacks of the threads tell what they wait for.",
        knob="ThreadPoolExecutor(max_workers=)",
        link=f"{PYTHON}/concurrent.futures.html#threadpoolexecutor",
        action=RESTART,
    ),
    Pattern(
        name="memory_full",
        problems=(Problem.MEMORY_PRESSURE,),
        cause="{service} uses nearly all the memory that it may use, or was refused more.",
        fix="Read in parts instead of whole, and bound caches; a restart gains time.",
        knob="MemoryMax= of the unit, the container's limit",
        link=f"{PYTHON}/tracemalloc.html",
        action=RESTART,
    ),
    Pattern(
        name="memory_leak",
        problems=(Problem.MEMORY_LEAK,),
        cause="The memory of {service} grows and is not given back: a cache without a bound, or a "
        "forgotten list.",
        fix="Compare two snapshots of tracemalloc; a restart gains time.",
        knob="functools.lru_cache(maxsize=)",
        link=f"{PYTHON}/tracemalloc.html#compute-differences",
        action=RESTART,
    ),
    Pattern(
        name="heap_limit",
        says=r"JavaScript heap out of memory|Reached heap limit",
        cause="Node reached the limit of its heap, which is far below that of the machine.",
        fix="Look for what is kept (--heapsnapshot-near-heap-limit=2), or give it more.",
        knob="NODE_OPTIONS=--max-old-space-size",
        link=f"{NODE}/cli.html#--max-old-space-sizesize-in-megabytes",
        action=RESTART,
    ),
    Pattern(
        name="address_in_use",
        says=r"Address already in use|EADDRINUSE",
        cause="Another process listens where {service} wants to: mostly its own predecessor.",
        fix="`ss -ltnp` names it; end it, or wait for its end, before the start.",
        knob="the port; SO_REUSEADDR",
        link=f"{PYTHON}/socket.html#socket.create_server",
    ),
    # -- the process
    Pattern(
        name="killed",
        kinds=(Kind.EXIT,),
        facts={"signal": r"9|SIGKILL"},
        cause="{service} was killed: by the kernel for want of memory, or by somebody.",
        fix="`dmesg | grep -i oom` tells of the kernel's doing; then bound its memory or raise its limit.",
        knob="MemoryMax= of the unit, the container's limit",
        link=f"{LINUX}/man5/proc_pid_oom_score.5.html",
        action=RESTART,
    ),
    Pattern(
        name="crashed",
        kinds=(Kind.EXIT,),
        facts={"signal": r"4|6|7|8|11|SIG(?:ILL|ABRT|BUS|FPE|SEGV)"},
        cause="{service} crashed in native code: an extension, or the interpreter itself.",
        fix="The stack that faulthandler wrote names the call; bring that extension up to date.",
        knob="PYTHONFAULTHANDLER=1",
        link=f"{PYTHON}/faulthandler.html",
        action=RESTART,
    ),
    Pattern(
        name="exited",
        kinds=(Kind.EXIT,),
        cause="{service} ended by itself (exit code {exit_code}).",
        fix="The last lines of its log say why; what may end needs somebody who starts it again.",
        knob="services.{service}.restart; Restart= of the unit",
        link=f"{PYTHON}/sys.html#sys.exit",
        action=RESTART,
    ),
    Pattern(
        name="child_failed",
        kinds=(Kind.CHILD,),
        cause="A program that {service} started failed (exit code {exit_code}), and nobody looked.",
        fix="Look at the exit status, `subprocess.run(..., check=True)`, and at what it wrote to stderr.",
        link=f"{PYTHON}/subprocess.html#subprocess.run",
    ),
    Pattern(
        name="child_killed",
        kinds=(Kind.CHILD,),
        facts={"signal": r".{1,20}"},
        cause="A process that {service} started was ended by {signal}: killed for want of memory, or "
        "crashed.",
        fix="Bound what it reads and how many run at once; look at its exit status.",
        knob="ProcessPoolExecutor(max_workers=, max_tasks_per_child=)",
        link=f"{PYTHON}/multiprocessing.html#multiprocessing.Process.exitcode",
    ),
    Pattern(
        name="pool_broken",
        types=("BrokenProcessPool",),
        cause="A worker of a process pool died: all work of the pool is lost, and it takes none any more.",
        fix="Make a new pool after this error, and find why the worker died (memory, a crash).",
        knob="ProcessPoolExecutor(max_tasks_per_child=)",
        link=f"{PYTHON}/concurrent.futures.html#concurrent.futures.process.BrokenProcessPool",
        action=RESTART,
    ),
    Pattern(
        name="program_slow",
        types=("TimeoutExpired",),
        libraries=("subprocess",),
        cause="A program that {service} started did not end in the time it was given.",
        fix="End its whole group (start_new_session=True, os.killpg), and look at what it waits for: "
        "often input.",
        knob="subprocess.run(timeout=, stdin=DEVNULL)",
        link=f"{PYTHON}/subprocess.html#subprocess.TimeoutExpired",
    ),
    Pattern(
        name="loop_blocked",
        problems=(Problem.LOOP_BLOCKED,),
        cause="Something in {service} kept the event loop from going on for {seconds} s: a call that "
        "waits, or computing.",
        fix="Move it off the loop (asyncio.to_thread), or use the library's asynchronous form.",
        link=f"{PYTHON}/asyncio-dev.html#running-blocking-code",
    ),
    Pattern(
        name="call_hung",
        kinds=(Kind.HUNG,),
        cause="{method} has not come back: a lock that nobody gives back, or a request without a timeout.",
        fix="The stack in the event says where it waits; give every request and lock a timeout.",
        knob="timeout= of requests, locks and queues",
        link=f"{PYTHON}/faulthandler.html#faulthandler.dump_traceback_later",
        action=RESTART,
    ),
    Pattern(
        name="call_slow",
        kinds=(Kind.SLOW,),
        cause="{method} took {seconds} s: what it calls is slow, or it has more to do than before.",
        fix="Compare with the latencies of what it calls; bound the work of one call.",
        knob="services.{service}.timeout_threshold",
        link=f"{PYTHON}/profile.html",
    ),
    # -- network
    Pattern(
        name="refused",
        problems=(Problem.CONNECTION_REFUSED,),
        cause="Nobody listens at {peer}: it is down, still starting, or the port is wrong.",
        fix="Look at that service first; try again with a growing pause.",
        knob="services.{service}.depends_on",
        link="https://urllib3.readthedocs.io/en/stable/reference/urllib3.util.html#urllib3.util.Retry",
        action=RETRY,
    ),
    Pattern(
        name="network_timeout",
        problems=(Problem.NETWORK_TIMEOUT,),
        cause="{peer} did not answer in the time that {service} waits.",
        fix="Look at how busy it is; try again only what may be done twice, with a growing pause and "
        "a limit.",
        knob="the client's timeout",
        link="https://requests.readthedocs.io/en/latest/user/advanced/#timeouts",
        action=RETRY,
    ),
    Pattern(
        name="provider_timeout",
        says=r"(?i)\b(?:openai|anthropic|claude|gemini|mistral|cohere|ollama|bedrock"
        r"|provider)\b.{0,80}time(?:d |-)?out",
        cause="A provider of language models did not answer in time: long answers and busy hours take "
        "minutes.",
        fix="Stream the answer, bound its length, fall back to a second provider.",
        knob="timeout=, max_tokens; the order of providers",
        link="https://platform.openai.com/docs/guides/error-codes",
        action=RETRY,
    ),
    Pattern(
        name="dropped",
        says=r"(?i)connection reset|broken pipe|server disconnected|remote end closed"
        r"|socket hang up|IncompleteRead",
        cause="{peer} dropped the connection: it restarted, ran into its own limit, or closed an idle one.",
        fix="Retry once what may be done twice; keep connections shorter than the other side's idle limit.",
        knob="keepalive_timeout of server and client",
        link="https://docs.aiohttp.org/en/stable/client_reference.html#aiohttp.TCPConnector",
        action=RETRY,
    ),
    Pattern(
        name="name_unresolved",
        says=r"gaierror|Name or service not known|name resolution|getaddrinfo|ENOTFOUND|EAI_AGAIN",
        cause="A name of a host is not resolved: misspelt, or the DNS server does not answer.",
        fix="`getent hosts NAME` on the service's machine; then /etc/resolv.conf.",
        link=f"{PYTHON}/socket.html#socket.gaierror",
    ),
    Pattern(
        name="certificate_expired",
        problems=(Problem.TLS_EXPIRY,),
        cause="The certificate of {peer} has expired.",
        fix="Renew it and reload who serves it; an automatic renewal mostly failed weeks ago.",
        link="https://eff-certbot.readthedocs.io/en/stable/using.html#automated-renewals",
    ),
    Pattern(
        name="certificate_untrusted",
        says=r"self.signed certificate|unable to get (?:local )?issuer|UNABLE_TO_VERIFY_LEAF",
        cause="{service} does not trust who signed the certificate of {peer}.",
        fix="Give it the authority's certificate; never turn verification off.",
        knob="SSL_CERT_FILE, REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS",
        link=f"{PYTHON}/ssl.html#ssl.SSLContext.load_verify_locations",
    ),
    Pattern(
        name="certificate_name",
        says=r"(?i)hostname mismatch|certificate is not valid for|ERR_TLS_CERT_ALTNAME_INVALID|doesn't match",
        problems=(Problem.DEPENDENCY_FAILURE,),
        cause="The certificate of {peer} is for another name than the one that {service} asks for.",
        fix="Use the name in the certificate, or add this one to it (subjectAltName).",
        link=f"{PYTHON}/ssl.html#ssl.SSLContext.check_hostname",
    ),
    Pattern(
        name="quota",
        problems=(Problem.PROVIDER_QUOTA,),
        cause="The provider limits the rate of {service} (429): too many calls, or the quota is used up.",
        fix="Wait as Retry-After says, with jitter; keep answers; have a second provider.",
        knob="the number of calls at once; the provider's plan",
        link="https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Status/429",
    ),
    Pattern(
        name="answered_badly",
        kinds=(Kind.HTTP_STATUS,),
        problems=(Problem.DEPENDENCY_FAILURE,),
        cause="{peer} answered {status}, and {service} went on as if it had not.",
        fix="Look at the status (raise_for_status()); retry 502, 503 and 504 with a growing pause.",
        knob="Retry(status_forcelist=[502, 503, 504])",
        link="https://requests.readthedocs.io/en/latest/api/#requests.Response.raise_for_status",
        action=RETRY,
    ),
    Pattern(
        name="dependency",
        problems=(Problem.DEPENDENCY_FAILURE,),
        cause="{service} got no usable answer from {peer}.",
        fix="Look at that service first; let calls to it fail soon and fall back.",
        knob="services.{service}.depends_on",
    ),
    # -- code
    Pattern(
        name="never_awaited",
        kinds=(Kind.NEVER_AWAITED,),
        cause="A coroutine was made and never run: an `await` is missing, and its work was not done.",
        fix="Await it, or make a task of it and keep that.",
        knob="ruff check --select RUF006,ASYNC",
        link=f"{PYTHON}/asyncio-dev.html#detect-never-awaited-coroutines",
    ),
    Pattern(
        name="task_unread",
        kinds=(Kind.TASK,),
        cause="A task ended with an exception, and nobody awaits it.",
        fix="Keep tasks and await them, or start them in an asyncio.TaskGroup.",
        link=f"{PYTHON}/asyncio-task.html#task-groups",
    ),
    Pattern(
        name="future_unread",
        kinds=(Kind.FUTURE,),
        cause="What was given to a pool failed, and nobody asks its future.",
        fix="Ask each future for its result(), or let a callback do so.",
        link=f"{PYTHON}/concurrent.futures.html#future-objects",
    ),
    Pattern(
        name="thread_died",
        kinds=(Kind.THREAD,),
        cause="An exception ended a thread; the program goes on without what it did.",
        fix="Catch in the thread's own loop, count, go on; or hand the work to a pool.",
        link=f"{PYTHON}/threading.html#threading.excepthook",
        action=RESTART,
    ),
    Pattern(
        name="finaliser",
        kinds=(Kind.UNRAISABLE, Kind.ATEXIT),
        cause="A __del__, a weak reference's callback or an exit handler failed, where nobody can catch it.",
        fix="Release things in a `with`, not in __del__; catch inside exit handlers.",
        link=f"{PYTHON}/sys.html#sys.unraisablehook",
    ),
    Pattern(
        name="rejection",
        kinds=(Kind.REJECTION,),
        cause="A promise was rejected, and nothing handles it; Node ends the process for it.",
        fix="Await it in a try, or end its chain with catch; in Express 4 hand errors of async "
        "handlers to next().",
        link=f"{NODE}/process.html#event-unhandledrejection",
    ),
    Pattern(
        name="swallowed",
        problems=(Problem.SWALLOWED_ERROR,),
        kinds=(Kind.SWALLOWED,),
        cause="An exception is caught, and nothing is done about it.",
        fix="Catch only what is expected there, and log or count it.",
        knob="ruff check --select BLE,S110,SIM105",
        link="https://docs.python.org/3/tutorial/errors.html#handling-exceptions",
    ),
    Pattern(
        name="logged",
        problems=(Problem.SWALLOWED_ERROR,),
        kinds=(Kind.LOGGED,),
        cause="An exception is caught and only logged: whoever asked gets an answer that may be wrong.",
        fix="Answer with a failure after logging it, or mark what is a normal case as such (info).",
        link=f"{PYTHON}/logging.html#logging.Logger.exception",
    ),
    Pattern(
        name="unclosed",
        kinds=(Kind.RESOURCE,),
        cause="A file or a connection is left to the garbage collector.",
        fix="Open it in a `with`, or close it where its owner ends.",
        knob="python -W default::ResourceWarning",
        link=f"{PYTHON}/contextlib.html#contextlib.closing",
    ),
    Pattern(
        name="no_module",
        types=("ModuleNotFoundError",),
        cause="A module is not installed where {service} runs, or hidden by a file of its name.",
        fix="Install it into the same environment (`python -m pip install`), and pin it.",
        link="https://packaging.python.org/en/latest/guides/installing-using-pip-and-virtual-environments/",
    ),
    Pattern(
        name="none_attribute",
        says=r"'NoneType' object (?:has no attribute|is not)|Cannot read propert(?:y"
        r"|ies) of (?:undefined|null)",
        cause="Something is None (undefined) that the code takes to be there: a lookup that found nothing.",
        fix="Check where the value comes from, and answer the case that it is not there.",
        knob="mypy --strict; TypeScript's strictNullChecks",
        link="https://mypy.readthedocs.io/en/stable/kinds_of_types.html#optional-types-and-the-none-type",
    ),
    Pattern(
        name="no_json",
        types=("JSONDecodeError",),
        cause="What came is no JSON: mostly an empty answer or an error page of a proxy.",
        fix="Look at status and Content-Type before reading the body; log its first characters.",
        link=f"{PYTHON}/json.html#json.JSONDecodeError",
    ),
    Pattern(
        name="no_utf8",
        types=("UnicodeDecodeError",),
        cause="Bytes are read as text of an encoding that they are not in.",
        fix="Name the encoding where files and answers are opened, and decide what becomes of wrong bytes.",
        knob="open(encoding=, errors=), PYTHONUTF8=1",
        link="https://docs.python.org/3/howto/unicode.html#reading-and-writing-unicode-data",
    ),
    Pattern(
        name="recursion",
        types=("RecursionError",),
        cause="A function calls itself without an end, or data are nested deeper than the stack.",
        fix="Bound the depth, or use a list of what is left to do; a larger limit only crashes later.",
        knob="sys.setrecursionlimit",
        link=f"{PYTHON}/sys.html#sys.setrecursionlimit",
    ),
    Pattern(
        name="changed_while_read",
        says=r"changed size during iteration|mutated during iteration",
        cause="A dict, set or deque is changed while another thread, or the loop itself, goes through it.",
        fix="Go through a copy (list(...)), or hold a lock around both.",
        link=f"{PYTHON}/stdtypes.html#dictionary-view-objects",
    ),
    Pattern(
        name="loop_closed",
        says=r"Event loop is closed|attached to a different loop|no running event loop",
        cause="Something asynchronous is used in, or after, another event loop than the one it was made in.",
        fix="Make clients inside the loop that uses them, and close them before it ends; one asyncio.run().",
        link=f"{PYTHON}/asyncio-runner.html#asyncio.run",
    ),
    # -- what applications declare
    Pattern(
        name="queue_stuck",
        problems=(Problem.QUEUE_STUCK,),
        cause="Work comes in and none gets done: the worker hangs, or one item fails again and again.",
        fix="Look at the oldest item; put what failed several times aside.",
        link=f"{PYTHON}/queue.html",
        action=RETRY,
    ),
    Pattern(
        name="state_inconsistent",
        problems=(Problem.STATE_INCONSISTENT,),
        cause="Two places say different things about the same: a write reached only one of them.",
        fix="Name one place the true one and rebuild the other from it; write both in one transaction.",
        link=f"{REDIS}/develop/using-commands/transactions/",
    ),
)
"""Of equals the first is taken."""
