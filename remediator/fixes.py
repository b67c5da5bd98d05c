"""What mostly lies behind a known kind of fault, and what mends it. Pure; tests reproduce each line.

The first line that fits is suggested, so the particular ones stand before the general. An action is named
only where it is safe to take while nobody has understood the fault; whether it runs is up to playbooks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remediator.signals import Error, Member
from soulfra_monitor.problems import Problem

PYTHON = "https://docs.python.org/3/library"
RUNBOOKS = "https://github.com/Soulfra/soulfra-monitor/blob/main/docs/runbooks"
REDIS = "https://redis.io/docs/latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """One known pattern. Its texts may name facts of the error in braces: ``{target}``, ``{path}``."""

    name: str
    problems: frozenset[Problem] = frozenset()  # any of them; none: whatever the problem
    says: str = ""  # a regular expression that the types or messages have in them
    labels: Mapping[str, str] = field(default_factory=dict)  # what they must be
    cause: str
    fix: str
    knob: str | None = None  # the setting to turn
    link: str | None = None
    action: str | None = None  # of remediator.actions


_FILE = "services.{target}.paths"

FIXES: tuple[Fix, ...] = (
    Fix(
        name="read_only",
        says=r"Read-only file system",
        cause="The file system of {path} is read-only: mounted so, or remounted after an error of the disk.",
        fix="Look at `dmesg` and the mount's options; move what is written to a place that may be written.",
        link="https://man7.org/linux/man-pages/man8/mount.8.html",
    ),
    Fix(
        name="no_permission",
        problems=frozenset({Problem.PERMISSION_DENIED}),
        cause="The user that {target} runs as may not use {path}: its owner or mode, or that of a folder "
        "above.",
        fix="Give it the owner and mode that the service needs, and list it, so that it is mended next time.",
        knob=_FILE,
        link=f"{PYTHON}/os.html#os.chmod",
        action="file",
    ),
    Fix(
        name="no_file",
        problems=frozenset({Problem.MISSING_FILE}),
        cause="{path} is not there: never made, removed by a clean-up, or on a disk that is not mounted.",
        fix="Make it, or list it with `create`, so that it is made next time.",
        knob=_FILE,
        link=f"{PYTHON}/exceptions.html#FileNotFoundError",
        action="file",
    ),
    Fix(
        name="stale_lock",
        problems=frozenset({Problem.STALE_LOCK}),
        cause="{path} was left by a process that is dead.",
        fix="Remove it when nobody holds it, or list it with `kind: lock`; better, lock by flock(), "
        "which ends with its process.",
        knob=_FILE,
        link=f"{PYTHON}/fcntl.html#fcntl.flock",
        action="file",
    ),
    Fix(
        name="disk_full",
        problems=frozenset({Problem.DISK_FULL}),
        cause="The disk, or the quota, that {target} writes to is full.",
        fix="Make room: old logs, temporary files, dumps; then bound what grows.",
        link=f"{RUNBOOKS}/SoulfraTrouble.md",
    ),
    Fix(
        name="threads_exhausted",
        says=r"can't start new thread",
        cause="{target} has as many threads as it may have; mostly each request starts some that never end.",
        fix="Use a pool with a bound, and join what is started; a restart gains time.",
        knob="TasksMax= of the unit, pids.max of the container",
        link=f"{PYTHON}/concurrent.futures.html#threadpoolexecutor",
        action="restart",
    ),
    Fix(
        name="handles_exhausted",
        problems=frozenset({Problem.HANDLE_EXHAUSTION}),
        cause="{target} has as many files and connections open as it may have; it can take no connection.",
        fix="Close what is opened (`with`), one client for all requests; a restart gains time.",
        knob="LimitNOFILE= of the unit, ulimit -n",
        link=f"{RUNBOOKS}/SoulfraHandlesRunOut.md",
        action="restart",
    ),
    Fix(
        name="memory_full",
        problems=frozenset({Problem.MEMORY_PRESSURE}),
        cause="{target} uses nearly all the memory that it may use, or was refused more.",
        fix="Read in parts instead of whole; bound caches; a restart gains time.",
        knob="MemoryMax= of the unit, the container's limit",
        link=f"{RUNBOOKS}/SoulfraMemoryPressure.md",
        action="restart",
    ),
    Fix(
        name="memory_leak",
        problems=frozenset({Problem.MEMORY_LEAK}),
        cause="The memory of {target} grows and is not given back: a cache without a bound, or what is "
        "kept by mistake.",
        fix="Compare two snapshots of tracemalloc; a restart gains time.",
        link=f"{PYTHON}/tracemalloc.html",
        action="restart",
    ),
    Fix(
        name="killed",
        problems=frozenset({Problem.PROCESS_DIED}),
        labels={"signal": r"9|SIGKILL"},
        cause="{target} was killed: by the kernel for want of memory, or by somebody.",
        fix="`dmesg | grep -i oom` tells of the kernel's doing; then bound its memory or raise its limit.",
        knob="MemoryMax= of the unit, the container's limit",
        link=f"{RUNBOOKS}/SoulfraMemoryPressure.md",
        action="restart",
    ),
    Fix(
        name="crashed",
        problems=frozenset({Problem.PROCESS_DIED}),
        labels={"signal": r"4|6|7|8|11|SIG(?:ILL|ABRT|BUS|FPE|SEGV)"},
        cause="{target} crashed in native code: an extension, or the interpreter itself.",
        fix="The stack of faulthandler in its log names the call; bring the extension up to date.",
        link=f"{PYTHON}/faulthandler.html",
        action="restart",
    ),
    Fix(
        name="child_failed",
        problems=frozenset({Problem.PROCESS_DIED}),
        labels={"kind": "child"},
        cause="A program that {target} started failed (exit code {exit_code}), and nobody looked.",
        fix="Check the exit status: `subprocess.run(..., check=True)`, and read its output.",
        link=f"{PYTHON}/subprocess.html#subprocess.run",
    ),
    Fix(
        name="exited",
        problems=frozenset({Problem.PROCESS_DIED}),
        cause="{target} ended by itself (exit code {exit_code}).",
        fix="The last lines of its log say why; a service that may end needs who starts it again.",
        knob="services.{target}.restart",
        link=f"{RUNBOOKS}/SoulfraServiceDown.md",
        action="restart",
    ),
    Fix(
        name="redis_password",
        says=r"NOAUTH|WRONGPASS|HELLO must be called|Authentication required|invalid username-password",
        cause="Redis at {peer} wants a password, or another one than {target} has.",
        fix="Give the service the right one; a restart or a new connection does not help.",
        link=f"{REDIS}/operate/oss_and_stack/management/security/",
    ),
    Fix(
        name="redis_memory",
        says=r"OOM command not allowed|used memory > 'maxmemory'",
        cause="Redis at {peer} has reached its maxmemory, and may evict nothing.",
        fix="Let keys expire, raise maxmemory, or choose a policy that evicts.",
        knob="maxmemory, maxmemory-policy",
        link=f"{REDIS}/develop/reference/eviction/",
    ),
    Fix(
        name="redis_persistence",
        says=r"MISCONF",
        cause="Redis at {peer} cannot save to its disk, and takes no writes until it can.",
        fix="Look at its log and disk; `stop-writes-on-bgsave-error no` trades safety for going on.",
        knob="stop-writes-on-bgsave-error",
        link=f"{REDIS}/operate/oss_and_stack/management/persistence/",
    ),
    Fix(
        name="redis_replica",
        says=r"READONLY You can't write against a read only replica|ReadOnlyError",
        cause="{peer} is a replica of Redis; after a failover clients may still be connected to it.",
        fix="Connect anew, by a client that asks Sentinel or the cluster for the master.",
        link=f"{REDIS}/operate/oss_and_stack/management/sentinel/",
        action="hook",
    ),
    Fix(
        name="redis_away",
        problems=frozenset({Problem.REDIS_UNAVAILABLE}),
        cause="{target} has no connection to Redis at {peer}: it is down, restarting, or its connections "
        "were cut.",
        fix="Let the client retry and check connections when idle (retry_on_timeout, "
        "health_check_interval); offer the hook reconnect_redis.",
        knob="services.{target}.hooks.reconnect_redis",
        link=f"{REDIS}/develop/clients/redis-py/produsage/",
        action="hook",
    ),
    Fix(
        name="database_locked",
        says=r"database (?:table )?is locked",
        cause="Another connection is writing to the SQLite file for longer than {target} waits.",
        fix="Keep transactions short, write-ahead logging on, and a timeout of some seconds.",
        knob="PRAGMA journal_mode=WAL, sqlite3.connect(timeout=)",
        link="https://www.sqlite.org/wal.html",
    ),
    Fix(
        name="database_full",
        says=r"(?i)too many connections|remaining connection slots|sorry, too many clients",
        cause="The database takes no more connections: its clients' pools together are larger than its "
        "limit.",
        fix="Bound the pools so that their sum fits, or put a pooler before it.",
        knob="max_connections; the pool's size",
        link="https://www.postgresql.org/docs/current/runtime-config-connection.html",
    ),
    Fix(
        name="database_away",
        problems=frozenset({Problem.DATABASE_UNAVAILABLE}),
        cause="{target} has no connection to its database at {peer}: it is down, or cut connections that "
        "were idle.",
        fix="Let the pool test connections before it gives them out, and connect anew.",
        knob="the pool's pre-ping and recycle",
        link="https://docs.sqlalchemy.org/en/20/core/pooling.html#disconnect-handling-pessimistic",
    ),
    Fix(
        name="name_unresolved",
        says=r"gaierror|Name or service not known|Temporary failure in name resolution|getaddrinfo",
        cause="A name of a host is not resolved: misspelt, or the DNS server does not answer.",
        fix="`getent hosts NAME` on the service's machine; then /etc/resolv.conf.",
        link=f"{PYTHON}/socket.html#socket.gaierror",
    ),
    Fix(
        name="address_in_use",
        says=r"Address already in use",
        cause="Another process listens where {target} wants to: mostly its own predecessor.",
        fix="`ss -ltnp` names it; end it, or wait for it, before the start.",
        link=f"{PYTHON}/socket.html#socket.create_server",
    ),
    Fix(
        name="certificate",
        problems=frozenset({Problem.TLS_EXPIRY}),
        cause="A certificate has ended, or ends soon.",
        fix="Renew it, and reload who serves it.",
        link=f"{RUNBOOKS}/SoulfraCertificateEnds.md",
    ),
    Fix(
        name="quota",
        problems=frozenset({Problem.PROVIDER_QUOTA}),
        cause="The provider limits the rate of {target} (status 429): too many calls, or the quota is "
        "used up.",
        fix="Wait as Retry-After says, with jitter; keep answers; have a second provider.",
        link="https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Status/429",
    ),
    Fix(
        name="refused",
        problems=frozenset({Problem.CONNECTION_REFUSED}),
        cause="Nobody listens at {peer}: it is down, still starting, or the port is wrong.",
        fix="Look at that service first; let {target} try again with a growing pause.",
        knob="services.{target}.depends_on",
        link=f"{RUNBOOKS}/SoulfraServiceDown.md",
    ),
    Fix(
        name="network_timeout",
        problems=frozenset({Problem.NETWORK_TIMEOUT}),
        cause="{peer} did not answer in the time that {target} waits.",
        fix="Look at how busy it is; try again only what may be done twice, with a growing pause.",
        knob="the client's timeout",
        link=f"{RUNBOOKS}/SoulfraServiceSlow.md",
    ),
    Fix(
        name="loop_blocked",
        problems=frozenset({Problem.LOOP_BLOCKED}),
        cause="Something in {target} keeps the event loop from going on: a call that waits, or long "
        "computing.",
        fix="Move it off the loop (asyncio.to_thread), or use the library's asynchronous form.",
        link=f"{PYTHON}/asyncio-dev.html",
        action="restart",
    ),
    Fix(
        name="call_hung",
        problems=frozenset({Problem.SERVICE_TIMEOUT}),
        labels={"kind": "hung"},
        cause="A call of {method} has not come back: a lock that nobody gives back, or a request without "
        "a timeout.",
        fix="The stack in the event says where it waits; give every request a timeout. A restart gains time.",
        link=f"{PYTHON}/faulthandler.html",
        action="restart",
    ),
    Fix(
        name="never_awaited",
        labels={"kind": "never_awaited"},
        cause="A coroutine was made and never run: an `await` is missing.",
        fix="Await it, or make a task of it and keep that.",
        link=f"{PYTHON}/asyncio-dev.html",
    ),
    Fix(
        name="task_unread",
        labels={"kind": "task"},
        cause="A task ended with an exception, and nobody awaits it.",
        fix="Keep tasks and await them, or start them in an asyncio.TaskGroup.",
        link=f"{PYTHON}/asyncio-task.html#task-groups",
    ),
    Fix(
        name="future_unread",
        labels={"kind": "future"},
        cause="What was given to a pool failed, and nobody asks its future.",
        fix="Ask each future for its result(), or let a callback do so.",
        link=f"{PYTHON}/concurrent.futures.html#future-objects",
    ),
    Fix(
        name="rejection",
        problems=frozenset({Problem.UNHANDLED_REJECTION}),
        cause="A promise was rejected, and nothing handles it.",
        fix="Await it in a try, or end its chain with catch; in Express 4 hand errors of async handlers "
        "to next().",
        link="https://nodejs.org/api/process.html#event-unhandledrejection",
    ),
    Fix(
        name="swallowed",
        problems=frozenset({Problem.SWALLOWED_ERROR}),
        cause="An exception is caught, and nothing is done about it.",
        fix="Catch only what is expected there, and log or count it.",
        link="https://docs.python.org/3/tutorial/errors.html",
    ),
    Fix(
        name="unclosed",
        labels={"kind": "resource"},
        cause="A file or a connection is left to the garbage collector.",
        fix="Open it in a `with`, or close it where its owner ends.",
        link=f"{PYTHON}/contextlib.html",
    ),
)


def suggested(error: Error, members: Sequence[Member]) -> dict[str, str | None] | None:
    """Return what is suggested for *error*, with the reason, as the API tells it; None when nothing is."""
    sample = next((member.detail for member in members if member.detail), {})
    told = _told(error, sample)
    for known in FIXES:
        reason = _fits(known, error, told)
        if reason is not None:
            return _written(known, error, reason)
    return None


def _told(error: Error, sample: Mapping[str, Any]) -> str:
    chain = sample.get("raised") or ()
    parts = [f"{raised.get('type', '')}: {raised.get('message', '')}" for raised in chain]
    return "\n".join([error.message, str(sample.get("message", "")), *parts])


def _fits(known: Fix, error: Error, told: str) -> str | None:
    """Return why it fits; None when it does not."""
    reasons = []
    if known.problems:
        if error.problem not in known.problems:
            return None
        reasons.append(f"problem {error.problem}")
    if known.says:
        found = re.search(known.says, told)
        if found is None:
            return None
        reasons.append(f"it says {found[0]!r}")
    for label, wanted in known.labels.items():
        if re.fullmatch(wanted, error.labels.get(label, "")) is None:
            return None
        reasons.append(f"{label} {error.labels[label]}")
    return "known by " + ", ".join(reasons)


def _written(known: Fix, error: Error, reason: str) -> dict[str, str | None]:
    facts = _Facts({**error.labels, "target": error.target})
    return {
        "cause": known.cause.format_map(facts),
        "fix": known.fix.format_map(facts),
        "knob": known.knob.format_map(facts) if known.knob else None,
        "link": known.link,
        "action": known.action,
        "reason": reason,
    }


class _Facts(dict[str, str]):
    """What the texts may name; what is not known is said so."""

    def __missing__(self, key: str) -> str:
        return _UNKNOWN.get(key, f"(unknown {key})")


_UNKNOWN = {"path": "a path", "peer": "its address", "method": "a method", "exit_code": "unknown"}
