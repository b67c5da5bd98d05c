"""Each known pattern, by an error that is really made: it is the one that is suggested, and no other."""

import asyncio
import contextlib
import email.message
import errno
import gzip
import http.client
import http.server
import json
import os
import resource
import shutil
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pymysql
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from soulfra_monitor.classify import classify
from soulfra_monitor.events import Batch, Event, Kind, Raised, Relation
from soulfra_monitor.fixes import PATTERNS, Fix, suggest
from soulfra_monitor.problems import Problem
from soulfra_monitor.redaction import redact_event
from soulfra_monitor.wire import read_body

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0
NOBODY = 65534
ACTIONS = {"", "restart", "file", "hook:reconnect_redis", "hook:retry_failed"}

Fault = Callable[[], object]


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not there")
        pytest.skip(f"{program} is not there")
    return found


def event(kind: Kind, message: str, *raised: Raised, problem: str = "", **facts: Any) -> Event:
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


def caught(kind: Kind, fault: Fault, **facts: Any) -> Event:
    """Make the event of what *fault* raises, as a library would."""
    try:
        fault()
    except Exception as error:  # noqa: BLE001 - whatever it raises
        return told(kind, error, **facts)
    raise AssertionError("the fault did not happen")


def told(kind: Kind, error: BaseException, **facts: Any) -> Event:
    chain: list[Raised] = []
    at: BaseException | None = error
    relation = Relation.RAISED
    while at is not None:
        if isinstance(at, OSError) and isinstance(at.errno, int):
            facts = {"errno": at.errno, **({"path": str(at.filename)} if at.filename else {}), **facts}
        name = type(at).__qualname__
        name = name if type(at).__module__ == "builtins" else f"{type(at).__module__}.{name}"
        chain.append(Raised(type=name, message=str(at), relation=relation))
        relation = Relation.CAUSE if at.__cause__ is not None else Relation.CONTEXT
        at = at.__cause__ or at.__context__
    return event(kind, str(error) or chain[0].type, *chain, **facts)


def suggestion(found: Event) -> Fix | None:
    clean = redact_event(found)
    return suggest(clean, classify(clean))


def check(name: str, found: Event) -> None:
    fix = suggestion(found)

    assert fix is not None, (classify(found), found)
    assert fix.name == name, (fix, classify(found), found)
    assert "{" not in fix.cause + fix.fix + fix.knob


# -- faults in this process --------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@contextlib.contextmanager
def answering(answer: bytes, *, reset: bool = False) -> Iterator[int]:
    """Listen, give each who connects *answer*, and hang up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    with peer, contextlib.suppress(OSError):
                        if reset:
                            peer.recv(1)
                            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            continue
                        peer.sendall(answer)
                        peer.shutdown(socket.SHUT_WR)
                        while peer.recv(4096):
                            pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)


def as_nobody(fault: Fault) -> Fault:
    def run() -> None:
        if os.geteuid() != 0:
            fault()
            return
        os.seteuid(NOBODY)
        try:
            fault()
        finally:
            os.seteuid(0)

    return run


def redis_client(port: int, **options: Any) -> redis.Redis:
    return redis.Redis(port=port, retry=Retry(NoBackoff(), 0), **options)


def redis_away(_: Path) -> Event:
    with redis_client(closed_port()) as client:
        return caught(Kind.REDIS, client.ping)


def redis_slow(_: Path) -> Event:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        redis_client(silent.getsockname()[1], socket_timeout=0.05) as client,
    ):
        return caught(Kind.REDIS, client.ping)


def database_away(_: Path) -> Event:
    port = closed_port()
    return caught(Kind.DATABASE, lambda: pymysql.connect(host="127.0.0.1", port=port, user="bob"))


def database_connections(_: Path) -> Event:
    packet = b"\xff" + struct.pack("<H", 1040) + b"Too many connections"
    with answering(struct.pack("<I", len(packet)) + packet) as port:
        return caught(Kind.DATABASE, lambda: pymysql.connect(host="127.0.0.1", port=port, user="bob"))


def database_locked(folder: Path) -> Event:
    with (
        contextlib.closing(sqlite3.connect(folder / "a.db", timeout=0, isolation_level=None)) as one,
        contextlib.closing(sqlite3.connect(folder / "a.db", timeout=0, isolation_level=None)) as other,
    ):
        one.execute("BEGIN IMMEDIATE")
        return caught(Kind.DATABASE, lambda: other.execute("BEGIN IMMEDIATE"))


def database_schema(_: Path) -> Event:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        return caught(Kind.DATABASE, lambda: database.execute("SELECT * FROM carts"))


def database_read_only(folder: Path) -> Event:
    sqlite3.connect(folder / "a.db").close()
    (folder / "a.db").touch()
    with contextlib.closing(sqlite3.connect(f"file:{folder}/a.db?mode=ro", uri=True)) as database:
        return caught(Kind.DATABASE, lambda: database.execute("CREATE TABLE t(a)"))


def database_full(folder: Path) -> Event:
    with contextlib.closing(sqlite3.connect(folder / "a.db")) as database:
        database.execute("CREATE TABLE t(a)")
        database.execute("PRAGMA max_page_count = 2")
        return caught(Kind.DATABASE, lambda: database.execute("INSERT INTO t VALUES (zeroblob(100000))"))


def no_permission(folder: Path) -> Event:
    out = folder / "out"
    out.mkdir(mode=0o000)
    for above in (folder, *folder.parents):  # pytest lets nobody else into its folders
        above.chmod(0o755)
        if above.name.startswith("pytest-of-"):
            break
    return caught(Kind.FILE, as_nobody((out / "book.epub").touch))


def read_only(folder: Path) -> Event:
    return caught(Kind.FILE, lambda: fail(OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))))


def no_file(folder: Path) -> Event:
    return caught(Kind.FILE, (folder / "no" / "such").read_text)


def no_program(_: Path) -> Event:
    return caught(Kind.FILE, lambda: subprocess.run(["no-such-program"], check=False))


def stale_lock(folder: Path) -> Event:
    (folder / "app.lock").write_text("4194305")
    lock = str(folder / "app.lock")
    return caught(Kind.REPORTED, lambda: os.open(lock, os.O_CREAT | os.O_EXCL), problem="stale_lock")


def disk_full(_: Path) -> Event:
    with Path("/dev/full").open("wb", buffering=0) as full:
        return caught(Kind.FILE, lambda: full.write(b"x"))


def handles_exhausted(_: Path) -> Event:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept: list[int] = []

    def leak() -> None:
        while True:
            kept.append(os.open("/", os.O_RDONLY))

    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 50, hard))
    try:
        return caught(Kind.FILE, leak)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in kept:
            os.close(handle)


def address_in_use(_: Path) -> Event:
    with socket.create_server(("127.0.0.1", 0)) as first:
        return caught(Kind.UNCAUGHT, lambda: socket.create_server(first.getsockname()))


def memory_full(_: Path) -> Event:
    return caught(Kind.UNCAUGHT, lambda: bytearray(1 << 60))


def pool_broken(_: Path) -> Event:
    code = (
        "import concurrent.futures, os, sys\n"
        "if __name__ == '__main__':\n"
        "    try: concurrent.futures.ProcessPoolExecutor(1).submit(os._exit, 1).result()\n"
        "    except Exception as error:\n"
        "        print(type(error).__module__, type(error).__qualname__, str(error), sep='|')\n"
    )
    module, name, message = run(code).strip().split("|")
    return event(Kind.FUTURE, message, Raised(type=f"{module}.{name}", message=message))


def threads_exhausted(_: Path) -> Event:
    code = (
        "import os, resource, threading, time\n"
        "threading.stack_size(64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "try:\n"
        "    for _ in range(50): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "except RuntimeError as error: print(error, flush=True); os._exit(0)\n"
    )
    message = run(code).strip()
    return event(Kind.UNCAUGHT, message, Raised(type="RuntimeError", message=message))


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def program_slow(_: Path) -> Event:
    return caught(Kind.METHOD, lambda: subprocess.run(["sleep", "9"], timeout=0.05, check=False))


def refused(_: Path) -> Event:
    port = closed_port()
    return caught(Kind.HTTP, lambda: socket.create_connection(("127.0.0.1", port)), peer=f"127.0.0.1:{port}")


def network_timeout(_: Path) -> Event:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        return caught(Kind.HTTP, lambda: urllib.request.urlopen(url, timeout=0.05))


def provider_timeout(_: Path) -> Event:
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def ask() -> None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.05)
            except TimeoutError as error:
                raise RuntimeError("OpenAI API timeout") from error

        return caught(Kind.METHOD, ask)


def dropped(_: Path) -> Event:
    with answering(b"", reset=True) as port:
        return caught(Kind.HTTP, lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=9))


def name_unresolved(_: Path) -> Event:
    return caught(Kind.HTTP, lambda: socket.getaddrinfo("no.such.host.invalid", 80))


def certificate(folder: Path, name: str = "localhost") -> ssl.SSLContext:
    key, file = folder / "key.pem", folder / "cert.pem"
    options = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command = [need("openssl"), *options, *names, "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context


def handshake(folder: Path, name: str, *, trusted: bool) -> Event:
    """Shake hands with a server whose certificate is for *name*, by the name localhost."""
    server_context = certificate(folder, name)
    client_context = ssl.create_default_context(cafile=str(folder / "cert.pem") if trusted else None)
    client, server = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(OSError), server_context.wrap_socket(server, server_side=True):
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client:
            return caught(Kind.HTTP, lambda: client_context.wrap_socket(client, server_hostname="localhost"))
    finally:
        thread.join(DEADLINE)
        server.close()


def certificate_untrusted(folder: Path) -> Event:
    return handshake(folder, "localhost", trusted=False)


def certificate_name(folder: Path) -> Event:
    return handshake(folder, "other.example", trusted=True)


def certificate_expired(_: Path) -> Event:
    text = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)"
    return caught(Kind.HTTP, lambda: fail(ssl.SSLCertVerificationError(1, text)))


def answered(status: str) -> Event:
    with answering(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()) as port:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=9)
        except urllib.error.HTTPError as error:
            with error:
                return told(Kind.HTTP_STATUS, error, status=error.code, peer=f"127.0.0.1:{port}")
    raise AssertionError


def quota(_: Path) -> Event:
    return answered("429 Too Many Requests")


def answered_badly(_: Path) -> Event:
    return answered("503 Service Unavailable")


def dependency(_: Path) -> Event:
    with answering(b"no HTTP\r\n\r\n") as port:
        return caught(Kind.HTTP, lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=9))


def no_module(_: Path) -> Event:
    return caught(Kind.UNCAUGHT, lambda: __import__("no_such_module"))


def none_attribute(_: Path) -> Event:
    missing: Any = None
    return caught(Kind.METHOD, lambda: missing.name)  # what the type checker would have told


def no_json(_: Path) -> Event:
    return caught(Kind.METHOD, lambda: json.loads("<html>"))


def no_utf8(_: Path) -> Event:
    return caught(Kind.METHOD, b"\xff".decode)


def recursion(_: Path) -> Event:
    def again(depth: int) -> int:
        return again(depth + 1)

    return caught(Kind.METHOD, lambda: again(0))


def changed_while_read(_: Path) -> Event:
    def change() -> None:
        known = {1: 1}
        for key in known:
            known[key + 1] = 1

    return caught(Kind.THREAD, change)


def loop_closed(_: Path) -> Event:
    loop = asyncio.new_event_loop()
    loop.close()
    return caught(Kind.CALLBACK, lambda: loop.call_soon(print))


def queue_stuck(_: Path) -> Event:
    return event(Kind.REPORTED, "the oldest job waits for 900 s", problem="queue_stuck")


def state_inconsistent(_: Path) -> Event:
    return event(Kind.REPORTED, "3 trust scores differ", problem="state_inconsistent")


def memory_leak(_: Path) -> Event:
    return event(Kind.MEMORY, "resident memory grows by 3 MB a minute", value=10**8, limit=10**9)


def threads_growing(_: Path) -> Event:
    return event(Kind.THREADS, "threads: 900 of 1000", value=900, limit=1000)


def rejection(_: Path) -> Event:
    done = subprocess.run(
        [need("node"), "-e", "Promise.reject(new RangeError('planted'))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("RangeError")]
    name, _colon, message = line.partition(": ")
    return event(Kind.REJECTION, message, Raised(type=name, message=message))


def heap_limit(_: Path) -> Event:
    code = "const kept = []; for (;;) kept.push(new Array(1000).fill('x' + Math.random()))"
    done = subprocess.run(
        [need("node"), "--max-old-space-size=20", "-e", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if "FATAL ERROR" in line]
    return event(Kind.EXIT, line, signal=-done.returncode)


def fail(error: BaseException) -> object:
    raise error


HERE = {
    found.__name__: found
    for found in (
        redis_away, redis_slow, database_away, database_connections, database_locked, database_schema,
        database_read_only, database_full, no_permission, read_only, no_file, no_program, stale_lock,
        disk_full, handles_exhausted, address_in_use, memory_full, pool_broken, threads_exhausted,
        program_slow, refused, network_timeout, provider_timeout, dropped, name_unresolved,
        certificate_untrusted, certificate_name, certificate_expired, quota, answered_badly, dependency,
        no_module, none_attribute, no_json, no_utf8, recursion, changed_while_read, loop_closed,
        queue_stuck, state_inconsistent, memory_leak,
        threads_growing, rejection, heap_limit,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", HERE)
def test_an_error_has_its_fix(name: str, tmp_path: Path) -> None:
    check(name, HERE[name](tmp_path))


# -- a real Redis ------------------------------------------------------------------------------------

Server = Callable[..., redis.Redis]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a function that starts a Redis with options and returns a client of it."""
    with contextlib.ExitStack() as ends:

        def start(*options: str, **client: Any) -> redis.Redis:
            port = closed_port()
            (tmp_path / "redis").mkdir()
            command = [need("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
            process = subprocess.Popen(
                [*command, "--dir", str(tmp_path / "redis"), *options], stdout=subprocess.DEVNULL
            )
            ends.callback(process.wait, DEADLINE)
            ends.callback(process.kill)
            deadline = time.monotonic() + DEADLINE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
            found = redis_client(port, socket_timeout=DEADLINE, **client)
            ends.callback(found.close)
            return found

        yield start


def redis_password(server: Server, _: Path) -> Event:
    return caught(Kind.REDIS, server("--requirepass", "a" * 20).ping)


def redis_memory(server: Server, _: Path) -> Event:
    client = server("--maxmemory", "1", "--save", "")
    return caught(Kind.REDIS, lambda: client.set("a", "b"))


def redis_persistence(server: Server, folder: Path) -> Event:
    client = server("--save", "3600 1000000")
    client.set("a", "b")
    (folder / "redis").rmdir()
    with contextlib.suppress(redis.ResponseError):
        client.bgsave()
    deadline = time.monotonic() + DEADLINE
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        assert time.monotonic() < deadline
    return caught(Kind.REDIS, lambda: client.set("a", "c"))


def redis_replica(server: Server, _: Path) -> Event:
    client = server("--replicaof", f"127.0.0.1 {closed_port()}", "--save", "")
    return caught(Kind.REDIS, lambda: client.set("a", "b"))


def redis_clients(server: Server, _: Path) -> Event:
    client = server("--save", "")
    client.config_set("maxclients", 1)
    with redis_client(client.get_connection_kwargs()["port"]) as other:
        return caught(Kind.REDIS, other.ping)


def redis_type(server: Server, _: Path) -> Event:
    client = server("--save", "")
    client.set("a", "b")
    return caught(Kind.REDIS, lambda: client.lpush("a", "c"))


WITH_REDIS = {
    found.__name__: found
    for found in (redis_password, redis_memory, redis_persistence, redis_replica, redis_clients, redis_type)
}


@pytest.mark.parametrize("name", WITH_REDIS)
def test_an_error_of_redis_has_its_fix(name: str, server: Server, tmp_path: Path) -> None:
    check(name, WITH_REDIS[name](server, tmp_path))


# -- unchanged programs, watched ---------------------------------------------------------------------

_SLOW_CALL = """
        import time
        from soulfra_monitor import ErrorMonitor
        class Cart:
            def pay(self): time.sleep(2)
        with ErrorMonitor(service="shop") as monitor:
            monitor.add_service("shop", Cart(), timeout=0.3).pay()
            time.sleep(1)
        """

PROGRAMS = {
    "call_hung": (Kind.HUNG, _SLOW_CALL),
    "call_slow": (Kind.SLOW, _SLOW_CALL),  # it comes back after all
    "loop_blocked": (
        Kind.LOOP_BLOCKED,
        """
        import asyncio, time
        async def main():
            await asyncio.sleep(1)
            time.sleep(2)
        asyncio.run(main())
        """,
    ),
    "never_awaited": (
        Kind.NEVER_AWAITED,
        """
        async def save(): pass
        save()
        """,
    ),
    "task_unread": (
        Kind.TASK,
        """
        import asyncio
        async def save(): raise LookupError("planted")
        async def main():
            task = asyncio.create_task(save())
            await asyncio.sleep(2)
        asyncio.run(main())
        """,
    ),
    "future_unread": (
        Kind.FUTURE,
        """
        import concurrent.futures, time
        def save(): raise LookupError("planted")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(save)
        time.sleep(2)
        """,
    ),
    "thread_died": (
        Kind.THREAD,
        """
        import threading
        def save(): raise LookupError("planted")
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
        """,
    ),
    "finaliser": (
        Kind.UNRAISABLE,
        """
        class Kept:
            def __del__(self): raise LookupError("planted")
        kept = Kept()
        del kept
        """,
    ),
    "swallowed": (
        Kind.SWALLOWED,
        """
        try: raise RuntimeError("planted")
        except RuntimeError: pass
        """,
    ),
    "logged": (
        Kind.LOGGED,
        """
        import logging
        try: {}["planted"]
        except KeyError: logging.exception("cannot save")
        """,
    ),
    "unclosed": (
        Kind.RESOURCE,
        """
        import socket
        first = socket.socket()
        del first
        """,
    ),
    "child_failed": (
        Kind.CHILD,
        """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import sys; sys.exit(3)"])
        """,
    ),
    "child_killed": (
        Kind.CHILD,
        """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
        """,
    ),
    "killed": (
        Kind.EXIT,
        """
        import os
        os.kill(os.getpid(), 9)
        """,
    ),
    "crashed": (
        Kind.EXIT,
        """
        import ctypes
        ctypes.string_at(0)
        """,
    ),
    "exited": (
        Kind.EXIT,
        """
        import os
        os._exit(3)
        """,
    ),
}


@pytest.fixture
def collector() -> Iterator["Collector"]:
    with contextlib.closing(Collector()) as one:
        yield one


class Collector:
    """Stands where a remediator would, and keeps the events of what it is sent."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = threading.Condition()
        take = self._take

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                take(self.rfile.read(int(self.headers["Content-Length"])), self.headers)
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _take(self, body: bytes, headers: email.message.Message) -> None:
        text = gzip.decompress(body) if headers["Content-Encoding"] == "gzip" else body
        batch = read_body(json.loads(text), now=time.time())
        with self._came:
            self.events += batch.events if isinstance(batch, Batch) else (batch,)
            self._came.notify_all()

    def first(self, kind: Kind) -> Event:
        with self._came:
            assert self._came.wait_for(lambda: self._of(kind), DEADLINE), self.events
            return self._of(kind)[0]

    def _of(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_error_of_a_watched_program_has_its_fix(name: str, collector: Collector, tmp_path: Path) -> None:
    kind, code = PROGRAMS[name]
    (tmp_path / "app.py").write_text(dedent(code))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SOULFRA", "PYTHON"))}
    paths = {"PYTHONPATH": str(ROOT), "SOULFRA_SPOOL": str(tmp_path / "spool")}
    runner = [] if code is _SLOW_CALL else ["-m", "soulfra_monitor"]
    process = subprocess.Popen(
        [sys.executable, *runner, str(tmp_path / "app.py")],
        env={**kept, **paths, "SOULFRA_URL": collector.url, "SOULFRA_SERVICE": "shop"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        check(name, collector.first(kind))
    finally:
        process.kill()
        process.wait(DEADLINE)


# -- the table ---------------------------------------------------------------------------------------


def test_every_known_pattern_is_tried() -> None:
    names = [pattern.name for pattern in PATTERNS]

    assert len(set(names)) == len(names)
    assert set(names) == {*HERE, *WITH_REDIS, *PROGRAMS}


def test_only_actions_that_are_safe_are_suggested() -> None:
    assert {pattern.action for pattern in PATTERNS} == ACTIONS


def test_the_facts_are_filled_in_and_the_reason_is_told() -> None:
    fix = suggestion(event(Kind.FILE, "no", Raised(type="PermissionError"), path="/srv/out"))

    assert fix is not None
    assert fix.cause.startswith("The user that shop runs as may not use /srv/out:")
    assert (fix.knob, fix.action) == ("services.shop.paths", "file")
    assert fix.reason == "Known by problem permission_denied."


def test_the_pattern_that_asks_for_most_wins() -> None:
    fix = suggestion(event(Kind.FILE, "no", Raised(type="OSError"), errno=errno.EROFS, path="/srv"))

    assert fix is not None
    assert (fix.name, fix.reason) == ("read_only", "Known by EROFS, problem permission_denied.")


def test_braces_in_facts_are_no_templates() -> None:
    fix = suggestion(event(Kind.FILE, "no", Raised(type="FileNotFoundError"), path="/{service.__class__}"))

    assert fix is not None
    assert fix.cause.startswith("/{service.__class__} is not there")


def test_what_is_not_known_has_no_fix() -> None:
    assert suggestion(caught(Kind.METHOD, lambda: fail(ValueError("no")))) is None


def test_the_documentation_has_the_same_table() -> None:
    written = (ROOT / "docs" / "error-patterns.md").read_text()

    missing = [row(pattern.name) for pattern in PATTERNS if row(pattern.name) not in written]
    assert missing == []
    assert written.count("\n| `") == len(PATTERNS)


def row(name: str) -> str:
    """Return the line of a pattern in the table for people."""
    (pattern,) = [pattern for pattern in PATTERNS if pattern.name == name]
    cells = [pattern.cause, pattern.fix, f"`{pattern.knob}`" if pattern.knob else "", pattern.action]
    for fact in _FACTS:
        cells[:2] = [cell.replace(f"{{{fact}}}", f"*{fact}*") for cell in cells[:2]]
    link = f"[more]({pattern.link})" if pattern.link else ""
    return f"| `{name}` | {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} | {link} |"


_FACTS = (
    "service",
    "path",
    "peer",
    "url",
    "method",
    "exit_code",
    "signal",
    "status",
    "seconds",
    "limit",
    "value",
)


def test_a_problem_without_a_pattern_is_no_mistake() -> None:
    assert suggestion(event(Kind.REPORTED, "odd", problem=Problem.ANOMALY)) is None
