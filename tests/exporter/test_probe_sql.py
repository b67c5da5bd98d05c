"""The probes of databases against a real PostgreSQL and a real MariaDB, and against servers that lie."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiomysql
import asyncpg
import psutil
import pytest
import uvloop

from exporter.gate import gate_of
from exporter.kinds.mysql import MysqlProbe
from exporter.kinds.postgres import PostgresProbe
from exporter.kinds.sql import SqlExpect
from exporter.observation import Outcome, Reason
from exporter.probes import mysql, postgres, sql
from exporter.probes.context import Context, Note, Tools

SECRET = "open" + "-sesame-1"  # built from pieces
DEADLINE = 30.0

Until = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A database server of this module, and how it is asked."""

    kind: str
    port: int
    socket: Path
    process: "subprocess.Popen[bytes]"
    ca_file: Path

    async def ask(
        self, context: Context, place: str | None = None, database: str = "shop", **more: Any
    ) -> Outcome:
        host = f"127.0.0.1:{self.port}" if place is None else place
        return await ask(self.kind, context, f"prober@{host}/{database}", **{"password": SECRET, **more})


async def ask(kind: str, context: Context, place: str, **more: Any) -> Outcome:
    if kind == "postgres":
        config = PostgresProbe.model_validate({"postgres": f"postgresql://{place}", **more})
        return await postgres.probe(config, context)
    return await mysql.probe(MysqlProbe.model_validate({"mysql": f"mysql://{place}", **more}), context)


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def needed(name: str, *folders: str) -> str:
    found = shutil.which(name, path=os.pathsep.join((*folders, os.environ["PATH"], "/usr/sbin")))
    if found is None or os.geteuid() != 0:
        message = f"{name} is not installed" if found is None else "only root can start a server as its user"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextlib.contextmanager
def owned_folder(user: str) -> Iterator[Path]:
    """Make a folder for *user*, not below pytest's, which it keeps to ourselves."""
    account = pwd.getpwnam(user)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base:
        Path(base).chmod(0o711)
        folder = Path(base) / "data"
        folder.mkdir()
        os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder


def certify(folder: Path, user: str) -> tuple[Path, Path]:
    key, pem = folder / "server.key", folder / "server.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    run("openssl", "req", "-x509", *curve, *subject, "-keyout", str(key), "-out", str(pem))
    account = pwd.getpwnam(user)
    for file in (key, pem):
        os.chown(file, account.pw_uid, account.pw_gid)
    key.chmod(0o600)
    return key, pem


def run(*argv: str, **options: Any) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == 0, done.stderr


def start(*argv: str, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + DEADLINE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "the server ended by itself"
        assert time.monotonic() < end, "the server does not listen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[Server]:
    folders = sorted(str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin"))
    program = needed("postgres", *reversed(folders))
    other: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
    with owned_folder("postgres") as folder:
        secret = folder.parent / "secret"
        secret.write_text(SECRET)
        made = ["-D", str(folder), "-A", "scram-sha-256", "-N", f"--pwfile={secret}"]
        run(str(Path(program).parent / "initdb"), *made, **other)
        key, pem = certify(folder, "postgres")
        port = free_port()
        place = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
        place += ["ssl=on", f"ssl_cert_file={pem}", f"ssl_key_file={key}"]
        settings = [word for setting in place for word in ("-c", setting)]
        process = start(program, "-D", str(folder), "-p", str(port), *settings, **other)
        try:
            wait_for(port, process)
            asyncio.run(fill_postgres(port))
            file = folder / f".s.PGSQL.{port}"
            yield Server(kind="postgres", port=port, socket=file, process=process, ca_file=pem)
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(DEADLINE)


async def fill_postgres(port: int) -> None:
    end = time.monotonic() + DEADLINE
    while True:
        try:
            admin = await asyncpg.connect(
                host="127.0.0.1", port=port, user="postgres", password=SECRET, ssl=False
            )
        except asyncpg.CannotConnectNowError:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        else:
            break
    await admin.execute(f"CREATE USER prober PASSWORD '{SECRET}'")
    await admin.execute("CREATE DATABASE shop OWNER prober")
    await admin.close()


@pytest.fixture(scope="module")
def mysql_server() -> Iterator[Server]:
    program, install = needed("mariadbd"), needed("mariadb-install-db")
    with owned_folder("mysql") as folder:
        made = [f"--datadir={folder}", "--user=mysql", "--skip-test-db"]
        run(install, "--no-defaults", *made, "--auth-root-authentication-method=normal", cwd="/")
        key, pem = certify(folder, "mysql")
        first = folder / "first.sql"
        # One statement a line; an anonymous user of localhost would go before one of any host.
        lines = ["CREATE DATABASE shop;"]
        for host in ("%", "localhost"):
            lines += [f"CREATE USER prober@'{host}' IDENTIFIED BY '{SECRET}';"]
            lines += [f"GRANT SELECT, CREATE ON shop.* TO prober@'{host}';"]
        first.write_text("\n".join(lines) + "\n")
        port = free_port()
        place = [f"--datadir={folder}", f"--socket={folder}/my.sock", f"--port={port}"]
        place += ["--bind-address=127.0.0.1", f"--pid-file={folder}/pid", f"--init-file={first}"]
        place += [f"--ssl-cert={pem}", f"--ssl-key={key}", "--skip-name-resolve"]
        fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=8M"]
        process = start(program, "--no-defaults", "--user=mysql", *place, *fast, cwd="/")
        try:
            wait_for(port, process)
            yield Server(kind="mysql", port=port, socket=folder / "my.sock", process=process, ca_file=pem)
        finally:
            process.kill()
            process.wait(DEADLINE)


@pytest.fixture(params=["postgres", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    """Run a test on each of the servers."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


def value_of(outcome: Outcome, name: str) -> float:
    return next(reading.value for reading in outcome.readings if reading.measure.name == name)


async def test_a_query_is_answered(server: Server, context: Context) -> None:
    outcome = await server.ask(context, expect={"value": 1, "rows": {"at_least": 1}})

    assert outcome.reason is None, outcome.detail
    assert outcome.address == "127.0.0.1"
    assert {"connect", "processing"} <= outcome.phases.keys()
    assert value_of(outcome, f"{server.kind}_query_value") == 1


async def test_connections_and_their_limit_are_read(server: Server, context: Context) -> None:
    outcome = await server.ask(context)

    used, allowed = {
        "postgres": ("postgres_connections", "postgres_max_connections"),
        "mysql": ("mysql_threads_connected", "mysql_max_connections"),
    }[server.kind]
    assert 1 <= value_of(outcome, used) < value_of(outcome, allowed)


async def test_a_socket_file_does_as_well(server: Server, context: Context, tmp_path: Path) -> None:
    right = await server.ask(context, place="", socket=str(server.socket))
    missing = await server.ask(context, place="", socket=str(tmp_path / "none.sock"))

    assert [right.reason, missing.reason] == [None, Reason.MISSING]


@pytest.mark.parametrize(
    ("query", "expect", "reason"),
    [
        ("SELECT 1 WHERE 1 = 0", {"rows": {"at_most": 0}}, None),
        ("SELECT 1 WHERE 1 = 0", {"rows": {"at_least": 1}}, Reason.ANSWER),
        ("SELECT 1 WHERE 1 = 0", {"value": 1}, Reason.ANSWER),
        ("SELECT 42", {"value": 41}, Reason.ANSWER),
        ("SELECT 42", {"value": {"at_least": 40, "at_most": 43}}, None),
        ("SELECT 42", {"value": {"at_most": 41}}, Reason.ANSWER),
        ("SELECT 'fine'", {"value": "fine"}, None),
        ("SELECT NULL", {"value": None}, None),
        ("SELECT NULL", {"value": 0}, Reason.ANSWER),
        ("SELECT 1.50", {"value": 1.5}, None),
        ("SELECT nonsense FROM nowhere", {}, Reason.QUERY),
        ("SELECT 1; SELECT 2", {}, Reason.QUERY),
        ("CREATE TABLE written (a int)", {}, Reason.QUERY),
    ],
)
async def test_answers_are_held_against_what_is_expected(
    server: Server, context: Context, query: str, expect: dict[str, Any], reason: Reason | None
) -> None:
    outcome = await server.ask(context, query=query, expect=expect)

    assert outcome.reason is reason, outcome.detail


async def test_wrong_credentials_and_databases_are_named_and_stay_secret(
    server: Server, context: Context, tmp_path: Path
) -> None:
    notes: list[Note] = []
    noting = Context(timeout=2.0, tools=context.tools, notes=notes)
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    place = f"127.0.0.1:{server.port}/shop"
    outcomes = {
        "file": await server.ask(noting, password=None, password_file=str(file)),
        "in the address": await ask(server.kind, noting, f"prober:{SECRET}@{place}"),
        "wrong": await server.ask(noting, password=SECRET + "x"),
        "none": await server.ask(noting, password=None),
        "stranger": await ask(server.kind, noting, f"stranger:{SECRET}@{place}"),
        "no file": await server.ask(noting, password=None, password_file=str(tmp_path / "none")),
        "no database": await server.ask(noting, database="nowhere"),
    }

    assert {name: outcome.reason for name, outcome in outcomes.items()} == {
        "file": None,
        "in the address": None,
        "wrong": Reason.AUTH,
        "none": Reason.AUTH,
        "stranger": Reason.AUTH,
        "no file": Reason.INTERNAL,
        # MariaDB tells only those who may see all databases that there is none of that name.
        "no database": {"postgres": Reason.STATUS, "mysql": Reason.AUTH}[server.kind],
    }
    assert SECRET not in repr((outcomes, notes))


async def test_a_statement_that_hangs_leaves_nothing_behind(
    server: Server, tools: Tools, until: Until
) -> None:
    """The server ends it itself: our own end of the connection says nothing to a backend at work."""
    sleep, running = {
        "postgres": ("SELECT pg_sleep(60)", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'prober'"),
        "mysql": (
            "SELECT SLEEP(60)",
            "SELECT count(*) FROM information_schema.processlist WHERE user = 'prober'",
        ),
    }[server.kind]
    started = time.monotonic()
    outcome = await server.ask(Context(timeout=1.0, tools=tools), query=sleep)
    seconds = time.monotonic() - started

    async def alone() -> bool:
        seen = await server.ask(Context(timeout=2.0, tools=tools), query=running, expect={"value": 1})
        return seen.reason is None

    assert outcome.reason is Reason.TIMEOUT, outcome.detail
    assert seconds < 5
    await until(alone)


async def test_results_without_end_are_capped(server: Server, context: Context) -> None:
    many = {
        "postgres": "SELECT generate_series(1, 100000000)",
        "mysql": "SELECT seq FROM seq_1_to_100000000",
    }[server.kind]
    large = {
        "postgres": "SELECT repeat('x', 50000000)",
        "mysql": "SELECT CONCAT(REPEAT('x', 9000000), '')",
    }[server.kind]

    counted = await server.ask(context, query=many, expect={"rows": {"at_most": 10}})
    heavy = await server.ask(context, query=large)

    assert counted.reason is Reason.ANSWER
    assert counted.detail.startswith("1000 rows or more")
    assert heavy.reason is Reason.TOO_LARGE


async def test_tls_is_verified_and_the_expiry_known(server: Server, context: Context) -> None:
    place = f"localhost:{server.port}"
    ours = {"ca_file": str(server.ca_file)}
    right = await server.ask(context, place, tls=ours)
    other_name = await server.ask(context, place, tls={**ours, "server_name": "db.example"})
    stranger = await server.ask(context, place, tls={})
    no_file = await server.ask(context, place, tls={"ca_file": "/no/such/file"})

    assert no_file.reason is Reason.INTERNAL, "our own fault would have the server restarted"
    reasons = [outcome.reason for outcome in (right, other_name, stranger)]
    assert reasons == [None, Reason.TLS_VERIFY, Reason.TLS_VERIFY], right.detail
    assert right.phases["tls"] > 0
    for outcome in (right, other_name, stranger):
        assert outcome.tls is not None
        assert outcome.tls.not_after == pytest.approx(time.time() + 30 * 86400, abs=300)


async def test_tls_works_on_the_loop_that_the_exporter_runs_on(server: Server) -> None:
    async def within() -> Outcome:
        tools = Tools()
        try:
            return await server.ask(
                Context(timeout=3.0, tools=tools),
                f"localhost:{server.port}",
                tls={"ca_file": str(server.ca_file)},
            )
        finally:
            await tools.close()

    outcome = await asyncio.to_thread(uvloop.run, within())

    assert outcome.reason is None, outcome.detail
    assert outcome.tls is not None


async def test_the_gate_is_asked(server: Server, tools: Tools) -> None:
    narrow = Context(timeout=1.0, tools=tools, gate=gate_of(["192.0.2.1"]))

    assert (await server.ask(narrow)).reason is Reason.FORBIDDEN


async def test_a_server_that_is_stopped_is_a_timeout_in_time(server: Server, tools: Tools) -> None:
    main = server.process.pid
    stopped = [main, *(child.pid for child in psutil.Process(main).children(recursive=True))]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    try:
        outcome = await server.ask(Context(timeout=0.5, tools=tools))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    assert outcome.reason is Reason.TIMEOUT, outcome.detail
    assert time.monotonic() - started < 5


async def test_a_primary_says_that_it_is_one(postgres_server: Server, context: Context) -> None:
    primary = await postgres_server.ask(context, role="primary", max_lag="1s")
    replica = await postgres_server.ask(context, role="replica")

    assert [primary.reason, replica.reason] == [None, Reason.ROLE]
    assert replica.detail == "is a primary, expected replica"
    assert value_of(primary, "postgres_is_replica") == 0


@pytest.fixture
def replica_server(postgres_server: Server) -> Iterator[Server]:
    """Start a replica of the server, which streams from it."""
    tools = Path(needed("pg_basebackup", *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin"))))).parent
    environment = {**os.environ, "PGPASSWORD": SECRET}
    other: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
    with owned_folder("postgres") as folder:
        folder.chmod(0o700)
        source = ["-h", "127.0.0.1", "-p", str(postgres_server.port), "-U", "postgres", "-c", "fast", "-N"]
        run(str(tools / "pg_basebackup"), "-D", str(folder), "-R", *source, env=environment, **other)
        port = free_port()
        place = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
        settings = [word for setting in place for word in ("-c", setting)]
        program = str(tools / "postgres")
        process = start(program, "-D", str(folder), "-p", str(port), *settings, **other)
        try:
            wait_for(port, process)
            file = folder / f".s.PGSQL.{port}"
            yield Server(
                kind="postgres", port=port, socket=file, process=process, ca_file=postgres_server.ca_file
            )
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(DEADLINE)


async def run_as_admin(server: Server, statement: str) -> None:
    admin = await asyncpg.connect(
        host="127.0.0.1", port=server.port, user="postgres", password=SECRET, ssl=False, database="shop"
    )
    await admin.execute(statement)
    await admin.close()


async def test_a_replica_tells_how_far_it_is_behind(
    postgres_server: Server, replica_server: Server, context: Context, until: Until
) -> None:
    async def asked(**more: Any) -> Outcome:
        return await replica_server.ask(context, role="replica", max_lag="1ms", **more)

    async def level() -> Outcome | None:
        outcome = await asked(query="SELECT count(*) FROM first", expect={"value": 1})
        return outcome if outcome.reason is None else None

    await run_as_admin(postgres_server, "CREATE TABLE first AS SELECT 1; GRANT SELECT ON first TO prober")
    followed = await until(level)
    await run_as_admin(replica_server, "SELECT pg_wal_replay_pause()")
    await run_as_admin(postgres_server, "CREATE TABLE more AS SELECT generate_series(1, 1000)")

    async def lags() -> bool:
        return (await asked()).reason is Reason.LIMIT

    await until(lags)
    behind = await asked()
    primary = await replica_server.ask(context, role="primary")

    assert isinstance(followed, Outcome)
    assert value_of(followed, "postgres_is_replica") == 1
    assert value_of(followed, "postgres_replication_lag_seconds") == 0
    assert value_of(behind, "postgres_replication_lag_seconds") > 0
    assert behind.detail.endswith("allowed are 0.001 s")
    assert primary.reason is Reason.ROLE


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
async def test_nobody_listening_is_connect_refused(context: Context, kind: str) -> None:
    outcome = await ask(kind, context, f"prober@127.0.0.1:{free_port()}/shop")

    assert outcome.reason is Reason.CONNECT_REFUSED


TOO_MANY = b"long" + b"SFATAL\0C53300\0Msorry, too many clients already\0\0"
GREETING = b"5.5.5-10.11\0" + b"\1\0\0\0" + b"a" * 8 + b"\0" + b"\xff\xf7" + b"\x21\2\0" + b"\xff\x81\x15"
GREETING = b"\x0a" + GREETING + b"\0" * 10 + b"b" * 12 + b"\0" + b"mysql_native_password\0"


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


@pytest.mark.parametrize(
    ("kind", "first", "then", "reason"),
    [
        ("postgres", b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", Reason.PROTOCOL),
        ("postgres", b"", b"R\0\0\0\x08\0\0\0\x63", Reason.PROTOCOL),
        ("postgres", b"", b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", Reason.PROTOCOL),
        ("postgres", b"", b"E" + len(TOO_MANY).to_bytes(4, "big") + TOO_MANY[4:], Reason.STATUS),
        ("postgres", b"", b"N\x7f\xff\xff\xff" + b"x" * (2 << 20), Reason.TOO_LARGE),
        ("postgres", b"", None, Reason.RESET),
        ("mysql", b"SSH-2.0-OpenSSH_9.2\r\n", b"", Reason.PROTOCOL),
        ("mysql", packet(0, b"\x0a"), b"", Reason.PROTOCOL),
        ("mysql", b"", None, Reason.TIMEOUT),
        ("mysql", b"\xff\xff\xff\0" + b"x" * 100_000, b"", Reason.TOO_LARGE),
        ("mysql", packet(0, b"\xff\x10\x04#08004Too many connections"), b"", Reason.STATUS),
        ("mysql", packet(0, GREETING), packet(2, b"\xfemysql_clear_password\0"), Reason.AUTH),
        ("mysql", packet(0, GREETING), packet(2, b"\xfe"), Reason.PROTOCOL),
        ("mysql", packet(0, GREETING), packet(7, b"\0"), Reason.PROTOCOL),
        ("mysql", packet(0, GREETING), None, Reason.RESET),
    ],
)
async def test_servers_that_lie_are_named(
    tools: Tools, kind: str, first: bytes, then: bytes | None, reason: Reason
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        try:
            if await reader.read(65536) and then is not None:
                writer.write(then)
                await writer.drain()
                await reader.read()
        except ConnectionError:
            return
        finally:
            writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        place = f"prober@127.0.0.1:{listening.sockets[0].getsockname()[1]}/shop"
        outcome = await ask(kind, Context(timeout=0.5, tools=tools), place, password=SECRET)

    assert outcome.reason is reason, outcome.detail
    assert SECRET not in outcome.detail


@pytest.mark.parametrize(
    ("value", "expected", "fits"),
    [
        (True, True, True),
        (0, False, True),
        (1, True, True),
        (Decimal("0.1"), 0.1, True),
        (Decimal("NaN"), 0.1, False),
        (b"fine", "fine", True),
        ("1", 1, False),
        (1, "1", True),
        (None, None, True),
        ("", None, False),
        ("text", {"at_least": 1}, False),
    ],
)
def test_values_are_compared_by_what_they_mean(value: object, expected: object, fits: bool) -> None:
    failure = sql.judge([(value,)], SqlExpect.model_validate({"value": expected}))

    assert (failure is None) is fits, failure


async def test_a_fault_in_our_own_code_is_not_the_servers(
    server: Server, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(sql, "judge", broken)
        with pytest.raises(TypeError, match="broken"):
            await server.ask(context)
    monkeypatch.setattr(postgres if server.kind == "postgres" else mysql, "_open", None)
    with pytest.raises(TypeError, match="NoneType"):
        await server.ask(context)


async def test_a_driver_without_what_we_use_of_it_is_not_the_servers_fault(
    mysql_server: Server, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(aiomysql.Connection, "_request_authentication")

    with pytest.raises(AttributeError, match="_request_authentication"):
        await mysql_server.ask(context)


async def test_a_query_that_the_driver_refuses_says_nothing_about_the_server(
    postgres_server: Server, context: Context
) -> None:
    outcome = await postgres_server.ask(context, query="SELECT $1::int")

    assert outcome.reason is Reason.INTERNAL, outcome.detail
    assert "expects 1 argument" in outcome.detail


def test_a_number_that_no_float_holds_is_none() -> None:
    failure = sql.judge([(10**400,)], SqlExpect.model_validate({"value": {"at_least": 1}}))

    assert failure is not None
    assert failure[0] is Reason.ANSWER
