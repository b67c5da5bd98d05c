"""Each known pattern, by a fault that is really made: it is found, and nothing else is."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from remediator.actions import ACTIONS
from remediator.events import signal_of_event
from remediator.fixes import FIXES, suggested
from remediator.signals import Member, Status, open_error
from soulfra_monitor.events import Event, Kind, Raised

NOBODY = 65534


def name_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def event(kind: Kind, message: str, raised: tuple[Raised, ...] = (), **facts: Any) -> Event:
    problem = facts.pop("problem", "")
    return Event(
        id="0" * 32,
        at=1.0,
        kind=kind,
        service="shop",
        message=message,
        raised=raised,
        facts=facts,
        problem=problem,
    )


def caught(kind: Kind, fault: Callable[[], object], **facts: Any) -> Event:
    """Make the event of what *fault* raises, as the library would."""
    try:
        fault()
    except BaseException as error:  # noqa: BLE001 - that is what it is for
        if isinstance(error, OSError) and error.errno is not None:
            facts = {"errno": error.errno, **({"path": error.filename} if error.filename else {}), **facts}
        return event(kind, str(error), (Raised(type=name_of(error), message=str(error)),), **facts)
    pytest.fail("the fault did not happen")


PROGRAM = """
import json, sys
try:
    exec(sys.argv[1])
except BaseException as error:
    facts = {"errno": error.errno} if getattr(error, "errno", None) else {}
    print(json.dumps([type(error).__name__, str(error), facts]), flush=True)
    import os; os._exit(0)
"""


def in_a_program(kind: Kind, code: str) -> Event:
    """Make the event of what *code* raises in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, code], capture_output=True, text=True, timeout=30, check=True
    )
    name, message, facts = json.loads(done.stdout.splitlines()[-1])
    return event(kind, message, (Raised(type=name, message=message),), **facts)


def ended(*code: str, kill: int | None = None) -> dict[str, Any]:
    """Return how a program ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", *code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()
    if kill is not None:
        process.send_signal(kill)
    code_seen = process.wait(30)
    process.stdout.close()
    return {"signal": -code_seen} if code_seen < 0 else {"exit_code": code_seen}


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


# -- faults that need a place ------------------------------------------------------------------------


def read_only(folder: Path) -> Event:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("nothing can be mounted here")
        pytest.skip("nothing can be mounted here")
    try:
        return caught(Kind.FILE, (folder / "x").touch)
    finally:
        subprocess.run(["umount", folder], check=True)


def no_permission(folder: Path) -> Event:
    secret = folder / "secret"
    secret.touch(mode=0o000)
    for above in (folder, *folder.parents[:3]):
        above.chmod(0o755)
    if os.geteuid() != 0:
        return caught(Kind.FILE, secret.read_text)
    os.seteuid(NOBODY)
    try:
        return caught(Kind.FILE, secret.read_text)
    finally:
        os.seteuid(0)


def stale_lock(folder: Path) -> Event:
    lock = folder / "app.lock"
    lock.write_text("4194305")
    return caught(
        Kind.REPORTED, lambda: os.open(lock, os.O_CREAT | os.O_EXCL), path=str(lock), problem="stale_lock"
    )


def database_locked(folder: Path) -> Event:
    def write(database: sqlite3.Connection) -> object:
        return database.execute("BEGIN IMMEDIATE")

    with (
        contextlib.closing(sqlite3.connect(folder / "a.db", timeout=0, isolation_level=None)) as one,
        contextlib.closing(sqlite3.connect(folder / "a.db", timeout=0, isolation_level=None)) as other,
    ):
        write(one)
        return caught(Kind.DATABASE, lambda: write(other))


def address_in_use(_: Path) -> Event:
    with socket.create_server(("127.0.0.1", 0)) as first:
        return caught(Kind.UNCAUGHT, lambda: socket.create_server(first.getsockname()))


def network_timeout(_: Path) -> Event:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_connection(silent.getsockname()) as asks,
    ):
        asks.settimeout(0.01)
        return caught(Kind.HTTP, lambda: asks.recv(1), peer="127.0.0.1:80")


def refused(_: Path) -> Event:
    port = closed_port()
    return caught(
        Kind.HTTP, lambda: socket.create_connection(("127.0.0.1", port), 1), peer=f"127.0.0.1:{port}"
    )


# -- Redis -------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., redis.Redis]]:
    """Return a function that starts a Redis with options and returns a client."""
    started: list[tuple[subprocess.Popen[bytes], redis.Redis]] = []

    def start(*options: str, **client: Any) -> redis.Redis:
        port = closed_port()
        home = tmp_path / "redis"
        home.mkdir()
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", home, *options],
            stdout=subprocess.DEVNULL,
        )
        found = redis.Redis(port=port, socket_timeout=5, **client)
        started.append((process, found))
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 0.1):
                    return found
            except OSError:
                if time.monotonic() > deadline:
                    pytest.fail("Redis did not start")

    yield start
    for process, client in started:
        client.close()
        process.kill()
        process.wait(10)


def redis_password(server: Callable[..., redis.Redis], _: Path) -> Event:
    return caught(Kind.REDIS, server("--requirepass", "a" * 20).ping)


def redis_memory(server: Callable[..., redis.Redis], _: Path) -> Event:
    client = server("--maxmemory", "1", "--save", "")
    return caught(Kind.REDIS, lambda: client.set("a", "b"))


def redis_persistence(server: Callable[..., redis.Redis], folder: Path) -> Event:
    client = server("--save", "3600 1000000")
    client.set("a", "b")
    (folder / "redis").rmdir()
    with contextlib.suppress(redis.ResponseError):
        client.bgsave()
    deadline = time.monotonic() + 10
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        assert time.monotonic() < deadline
    return caught(Kind.REDIS, lambda: client.set("a", "c"))


def redis_replica(server: Callable[..., redis.Redis], _: Path) -> Event:
    client = server("--replicaof", f"127.0.0.1 {closed_port()}", "--save", "")
    return caught(Kind.REDIS, lambda: client.set("a", "b"))


def redis_away(_: Callable[..., redis.Redis], __: Path) -> Event:
    client = redis.Redis(port=closed_port(), socket_timeout=1)
    try:
        return caught(Kind.REDIS, client.ping, peer="127.0.0.1:6379")
    finally:
        client.close()


# -- the table ---------------------------------------------------------------------------------------

WITH_REDIS = {
    found.__name__: found
    for found in (redis_password, redis_memory, redis_persistence, redis_replica, redis_away)
}
WITH_FOLDER = {
    found.__name__: found
    for found in (
        read_only,
        no_permission,
        stale_lock,
        database_locked,
        address_in_use,
        network_timeout,
        refused,
    )
}
EXPIRED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)"


def _fail(error: BaseException) -> object:
    raise error


FAULTS: dict[str, Callable[[], Event]] = {
    "no_file": lambda: caught(Kind.FILE, lambda: Path("/no/such/file").read_text()),
    "disk_full": lambda: caught(Kind.FILE, lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"x")),
    "threads_exhausted": lambda: in_a_program(
        Kind.UNCAUGHT,
        "import resource, threading, time\n"
        "threading.stack_size(64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "for _ in range(50): threading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
    ),
    "handles_exhausted": lambda: in_a_program(
        Kind.FILE,
        "import resource, os\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
        "while True: os.open('/', os.O_RDONLY)",
    ),
    "memory_full": lambda: caught(Kind.UNCAUGHT, lambda: bytearray(1 << 60)),
    "memory_leak": lambda: event(Kind.MEMORY, "memory grows by 3 MB a minute", value=10**8, limit=10**9),
    "killed": lambda: event(
        Kind.EXIT,
        "ended by SIGKILL",
        **ended("print('ready', flush=True); import time; time.sleep(60)", kill=signal.SIGKILL),
    ),
    "crashed": lambda: event(
        Kind.EXIT, "ended by a signal", **ended("print(flush=True); import ctypes; ctypes.string_at(0)")
    ),
    "child_failed": lambda: event(Kind.CHILD, "ffmpeg failed", **ended("import sys; sys.exit(3)")),
    "exited": lambda: event(Kind.EXIT, "ended", **ended("import sys; sys.exit(1)")),
    "database_full": lambda: caught(
        Kind.DATABASE, lambda: _fail(RuntimeError("FATAL: sorry, too many clients already"))
    ),
    "database_away": lambda: caught(
        Kind.DATABASE, lambda: socket.create_connection(("127.0.0.1", closed_port()), 1)
    ),
    "name_unresolved": lambda: caught(Kind.HTTP, lambda: socket.getaddrinfo("no.such.host.invalid", 80)),
    "certificate": lambda: caught(Kind.HTTP, lambda: _fail(ssl.SSLCertVerificationError(1, EXPIRED))),
    "quota": lambda: event(Kind.HTTP_STATUS, "429 Too Many Requests", status=429),
    "loop_blocked": lambda: event(Kind.LOOP_BLOCKED, "the loop stood still for 3 s", seconds=3.0),
    "call_hung": lambda: event(Kind.HUNG, "Cart.pay has not come back for 60 s", method="Cart.pay"),
    "never_awaited": lambda: event(Kind.NEVER_AWAITED, "coroutine 'save' was never awaited"),
    "task_unread": lambda: caught(Kind.TASK, lambda: 1 / 0),
    "future_unread": lambda: caught(Kind.FUTURE, lambda: dict[str, int]()["missing"]),
    "rejection": lambda: event(Kind.REJECTION, "Error: no", (Raised(type="Error", message="no"),)),
    "swallowed": lambda: caught(Kind.SWALLOWED, lambda: int("x")),
    "unclosed": lambda: event(Kind.RESOURCE, "unclosed file <_io.TextIOWrapper name='a'>"),
}


def suggestion(found: Event) -> dict[str, str | None]:
    signal_ = signal_of_event(found, 1000.0)
    error = open_error(signal_, "SE_00000001")
    member = Member(
        fingerprint=signal_.fingerprint,
        status=Status.FIRING,
        first_seen=1.0,
        last_seen=1.0,
        times=1,
        labels=signal_.labels,
        detail=signal_.detail,
    )
    told = suggested(error, [member])
    assert told is not None, (error.problem, error.message, error.labels)
    return told


def check(name: str, found: Event) -> None:
    (known,) = [fix for fix in FIXES if fix.name == name]
    told = suggestion(found)

    assert told["link"] == known.link, told
    assert told["cause"] == known.cause or "{" in known.cause
    assert "{" not in f"{told['cause']}{told['fix']}{told['knob']}"
    assert told["action"] == known.action
    assert str(told["reason"]).startswith("known by ")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_fix(name: str) -> None:
    check(name, FAULTS[name]())


@pytest.mark.parametrize("name", WITH_FOLDER)
def test_a_fault_of_files_and_sockets_has_its_fix(name: str, tmp_path: Path) -> None:
    check(name, WITH_FOLDER[name](tmp_path))


@pytest.mark.parametrize("name", WITH_REDIS)
def test_a_fault_of_redis_has_its_fix(name: str, tmp_path: Path, server: Callable[..., redis.Redis]) -> None:
    check(name, WITH_REDIS[name](server, tmp_path))


def test_every_known_pattern_is_tried() -> None:
    names = [fix.name for fix in FIXES]

    assert len(set(names)) == len(names)
    assert set(names) == {*FAULTS, *WITH_FOLDER, *WITH_REDIS}


def test_what_is_suggested_to_do_can_be_done() -> None:
    assert {fix.action for fix in FIXES} - {None} <= set(ACTIONS)


def test_the_reason_and_the_facts_are_told() -> None:
    told = suggestion(caught(Kind.FILE, lambda: Path("/no/such/file").read_text()))

    assert str(told["cause"]).startswith("/no/such/file is not there")
    assert (told["knob"], told["reason"]) == ("services.shop.paths", "known by problem missing_file")


def test_what_is_not_known_has_no_fix() -> None:
    found = signal_of_event(caught(Kind.METHOD, lambda: _fail(ValueError("no"))), 1000.0)

    assert suggested(open_error(found, "SE_00000001"), []) is None


def test_braces_in_facts_are_no_templates() -> None:
    told = suggestion(event(Kind.FILE, "[Errno 2]", path="{target.__class__}", errno=2))

    assert str(told["cause"]).startswith("{target.__class__} is not there")
