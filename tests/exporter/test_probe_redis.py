"""The Redis probe against real servers, and against peers that misbehave."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds.redis import RedisProbe
from exporter.loading import load_config
from exporter.observation import REASONS, Outcome, Reason
from exporter.probes import redis
from exporter.probes.context import Context, Note, Tools
from exporter.probes.redis_peer import Peer, TooLargeError

SECRET = "open" + "sesame"  # built from pieces

Until = Callable[..., Awaitable[object]]
Start = Callable[..., Awaitable["Server"]]


class Server:
    """A real Redis server, on a port or a socket file."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Any]:
        async with Redis(port=self.port, decode_responses=True, **options) as client:
            yield client


async def ask(context: Context, address: str, **more: Any) -> Outcome:
    outcome = await redis.probe(RedisProbe.model_validate({"redis": address, **more}), context)
    assert outcome.reason in {None, *REASONS["redis"]}
    return outcome


def values(outcome: Outcome) -> dict[str, float]:
    return {reading.measure.name: reading.value for reading in outcome.readings}


@pytest.fixture
def start(
    launch: Callable[..., "subprocess.Popen[bytes]"],
    binary: Callable[[str], str],
    free_port: Callable[[], int],
    until: Until,
    tmp_path: Path,
) -> Start:
    async def run(*options: str, tls: bool = False) -> Server:
        port = free_port()
        ports = ("--port", "0", "--tls-port", str(port)) if tls else ("--port", str(port))
        folder = tmp_path / str(port)
        folder.mkdir()
        fixed = ("--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
        server = Server(launch(binary("redis-server"), *ports, *fixed, *options), port)

        def listens() -> bool:
            assert server.process.poll() is None, "redis-server ended by itself"
            with socket.socket() as tried:
                return tried.connect_ex(("127.0.0.1", port)) == 0

        await until(listens)
        return server

    return run


@pytest.fixture
async def server(start: Start) -> Server:
    return await start()


@pytest.mark.parametrize(("role", "reason"), [(None, None), ("master", None), ("replica", Reason.ROLE)])
async def test_pong_and_the_expected_role_are_healthy(
    server: Server, context: Context, role: str | None, reason: Reason | None
) -> None:
    assert (await ask(context, server.url, role=role)).reason is reason


async def test_info_becomes_readings_and_the_start_time_stays_the_same(
    server: Server, context: Context
) -> None:
    first, second = await ask(context, server.url), await ask(context, server.url)

    assert set(values(first)) == {
        "redis_memory_used_bytes",
        "redis_connected_clients",
        "redis_max_clients",
        "redis_blocked_clients",
        "redis_rejected_connections",
        "redis_evicted_keys",
        "redis_connected_replicas",
        "redis_last_save_timestamp_seconds",
        "redis_start_time_seconds",
        "redis_last_save_success",
        "redis_master",
    }
    assert values(first)["redis_start_time_seconds"] == values(second)["redis_start_time_seconds"]
    assert values(first)["redis_master"] == 1
    assert values(first)["redis_connected_clients"] == 1


async def test_each_step_is_noted_and_no_note_has_the_password(server: Server, tools: Tools) -> None:
    async with server.client() as client:
        await client.config_set("requirepass", SECRET)
    notes: list[Note] = []

    await ask(Context(timeout=2.0, tools=tools, notes=notes), f"redis://:{SECRET}@127.0.0.1:{server.port}/1")

    texts = " | ".join(note.text for note in notes)
    assert "connecting to 127.0.0.1" in texts
    assert "logging in as the default user" in texts
    assert "PING was answered with PONG" in texts
    assert "redis_memory_used_bytes" in texts
    assert SECRET not in texts


async def test_memory_is_held_against_maxmemory_where_there_is_one(server: Server, context: Context) -> None:
    boundless = await ask(context, server.url, max_memory="1%")
    async with server.client() as client:
        await client.config_set("maxmemory", "3mb")
        await client.config_set("maxmemory-policy", "allkeys-lru")
        for number in range(40):
            await client.set(number, "x" * 100_000)
    full = await ask(context, server.url, max_memory="40%")

    assert boundless.reason is None
    assert "redis_memory_max_bytes" not in values(boundless)
    assert (full.reason, values(full)["redis_memory_max_bytes"]) == (Reason.LIMIT, 3 * 1024 * 1024)
    assert "memory" in full.detail
    assert values(full)["redis_evicted_keys"] > 0


async def test_a_share_of_the_clients_that_are_let_in_is_a_limit(start: Start, context: Context) -> None:
    server = await start("--maxclients", "2")

    outcome = await ask(context, server.url, max_clients="40%")

    assert outcome.reason is Reason.LIMIT
    assert outcome.detail == "clients: 1 of 2, allowed are 40%"


async def test_maxclients_reached_is_told_and_counted_by_the_server(start: Start, context: Context) -> None:
    server = await start("--maxclients", "1")
    async with server.client(single_connection_client=True) as client:
        before = (await client.info("stats"))["rejected_connections"]
        turned_away = await ask(context, server.url)
    let_in = await ask(context, server.url)

    assert turned_away.reason is Reason.LIMIT
    assert "maxclients" in turned_away.detail
    assert values(let_in)["redis_rejected_connections"] == before + 1


async def test_missing_and_wrong_passwords_are_auth_and_stay_out_of_the_detail(
    server: Server, context: Context
) -> None:
    async with server.client() as client:
        await client.config_set("requirepass", SECRET)

    none = await ask(context, server.url)
    wrong = await ask(context, f"redis://:{SECRET}x@127.0.0.1:{server.port}/0")
    right = await ask(context, f"redis://:{SECRET}@127.0.0.1:{server.port}/0")
    apart = await ask(context, server.url, password=SECRET)

    assert [seen.reason for seen in (none, wrong, right, apart)] == [Reason.AUTH, Reason.AUTH, None, None]
    assert SECRET not in repr((none, wrong, right, apart))


async def test_a_password_file_is_read_anew_for_every_probe(
    server: Server, context: Context, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    async with server.client() as client:
        await client.acl_setuser("watcher", enabled=True, passwords=["+" + SECRET], commands=["+ping"])
    login = {"username": "watcher", "password_file": str(file)}

    file.write_text("another\n")
    wrong = await ask(context, server.url, **login)
    file.write_text(f"{SECRET}\n")
    right = await ask(context, server.url, **login)

    assert (wrong.reason, right.reason) == (Reason.AUTH, None)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
async def test_a_password_file_that_cannot_be_used_says_nothing_about_the_server(
    context: Context, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)

    outcome = await ask(context, "redis://127.0.0.1:1/0", password_file=str(file))

    assert outcome.reason is Reason.INTERNAL


async def test_a_user_who_may_not_ask_for_info_still_sees_pong(server: Server, context: Context) -> None:
    async with server.client() as client:
        await client.acl_setuser("watcher", enabled=True, passwords=["+" + SECRET], commands=["+ping"])
    login = {"username": "watcher", "password": SECRET}

    pong = await ask(context, server.url, **login)
    role = await ask(context, server.url, role="master", **login)

    assert (pong.reason, pong.readings) == (None, ())
    # What we may not look at is no evidence.
    assert (role.reason, role.detail) == (Reason.INTERNAL, "INFO is refused to this user, and role needs it")


async def test_a_user_who_may_not_ping_is_refused(server: Server, context: Context) -> None:
    async with server.client() as client:
        await client.acl_setuser("watcher", enabled=True, passwords=["+" + SECRET], commands=["+get"])

    outcome = await ask(context, server.url, username="watcher", password=SECRET)

    assert (outcome.reason, outcome.detail) == (Reason.AUTH, "refused the permission")


async def test_a_server_that_loads_its_data_says_so(start: Start, context: Context) -> None:
    slowly = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    server = await start()
    async with server.client() as client:
        await client.mset({f"key-{number}": "x" * 50 for number in range(4000)})
        await client.save()
        folder = (await client.config_get("dir"))["dir"]
    server.process.kill()
    again = await start("--dir", folder, *slowly)

    outcome = await ask(context, again.url)

    assert (outcome.reason, outcome.detail) == (Reason.LOADING, "is loading its data")


async def test_a_server_that_is_busy_with_a_script_says_so(
    start: Start, context: Context, until: Until
) -> None:
    server = await start("--busy-reply-threshold", "10")
    async with server.client() as client, server.client() as killer:
        script = asyncio.create_task(client.eval("while true do end", 0))

        async def busy() -> bool:
            return (await ask(context, server.url)).reason is Reason.UNHEALTHY

        await until(busy)
        await killer.script_kill()
        with pytest.raises(Exception, match="killed"):
            await script


async def test_a_server_that_hangs_is_a_timeout(server: Server, tools: Tools) -> None:
    server.process.send_signal(signal.SIGSTOP)

    outcome = await ask(Context(timeout=0.3, tools=tools), server.url)

    assert outcome.reason is Reason.TIMEOUT


async def test_nobody_listening_is_connect_refused(context: Context, free_port: Callable[[], int]) -> None:
    outcome = await ask(context, f"redis://127.0.0.1:{free_port()}/0")

    assert outcome.reason is Reason.CONNECT_REFUSED


async def test_a_socket_file_is_asked_and_a_missing_one_is_connect_failed(
    start: Start, context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "redis.sock"
    await start("--unixsocket", str(path))

    there = await ask(context, f"unix://{path}?db=1", role="master")
    missing = await ask(context, f"unix://{path}x")

    assert (there.reason, missing.reason) == (None, Reason.CONNECT_FAILED)


# Replication


@pytest.fixture
async def pair(start: Start, context: Context, until: Until) -> tuple[Server, Server]:
    """Start a master with a replica that has all."""
    master = await start("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    replica = await start("--replicaof", "127.0.0.1", str(master.port))

    async def linked() -> bool:
        ready = await ask(context, master.url, min_replicas=1)
        return ready.reason is None and values(await ask(context, replica.url))["redis_master_link_up"] == 1

    await until(linked)
    return master, replica


async def test_a_pair_in_step_is_healthy_on_both_sides(pair: tuple[Server, Server], context: Context) -> None:
    master, replica = pair

    leads = await ask(context, master.url, role="master", min_replicas=1, max_lag="30s", max_lag_bytes="1MiB")
    follows = await ask(context, replica.url, role="replica", max_lag="30s")

    assert (leads.reason, follows.reason) == (None, None)
    assert values(leads)["redis_connected_replicas"] == 1
    assert values(leads)["redis_replication_lag_bytes"] < 1000
    assert values(follows)["redis_master"] == 0
    assert "redis_master_last_io_timestamp_seconds" in values(follows)


async def test_a_replica_that_hangs_is_behind_in_bytes_then_in_seconds_then_gone(
    pair: tuple[Server, Server], context: Context, until: Until
) -> None:
    master, replica = pair
    replica.process.send_signal(signal.SIGSTOP)
    async with master.client() as client:
        await client.set("key", "x" * 100_000)

    bytes_behind = await ask(context, master.url, max_lag_bytes="50kB")

    async def silent() -> object:
        return "silent" in (await ask(context, master.url, max_lag="1s")).detail

    await until(silent)
    replica.process.kill()

    async def gone() -> bool:
        seen = await ask(context, master.url, min_replicas=1)
        return seen.detail == "has 0 replicas online, expected 1 at least"

    assert bytes_behind.reason is Reason.LIMIT
    assert values(bytes_behind)["redis_replication_lag_bytes"] > 50_000
    await until(gone)


async def test_a_replica_without_its_master_fails_by_its_limit_only(
    pair: tuple[Server, Server], context: Context, until: Until
) -> None:
    master, replica = pair
    master.process.kill()

    async def cut_off() -> bool:
        return (await ask(context, replica.url, role="replica", max_lag="1s")).reason is Reason.LIMIT

    await until(cut_off)
    unlimited = await ask(context, replica.url, role="replica")

    # That the master is dead is no fault that a restart of the replica would mend.
    assert unlimited.reason is None
    assert values(unlimited)["redis_master_link_up"] == 0


# TLS


def tls_options(key: Path, pem: Path, clients: str) -> tuple[str, ...]:
    files = ("--tls-cert-file", str(pem), "--tls-key-file", str(key), "--tls-ca-cert-file", str(pem))
    return (*files, "--tls-auth-clients", clients)


async def test_a_redis_with_tls_is_asked_and_its_certificate_shown(
    start: Start, context: Context, make_certificate: Callable[[int], tuple[Path, Path]]
) -> None:
    key, pem = make_certificate(30)
    server = await start(*tls_options(key, pem, "yes"), tls=True)
    url = server.url.replace("redis://", "rediss://")
    known = {"ca_file": str(pem), "server_name": "localhost"}

    trusted = await ask(context, url, tls={**known, "cert_file": str(pem), "key_file": str(key)})
    unknown = await ask(context, url)
    nameless = await ask(context, url, tls=known)

    assert trusted.reason is None
    assert trusted.tls is not None
    assert trusted.tls.verified
    assert unknown.reason is Reason.TLS_VERIFY
    assert unknown.tls is not None
    assert unknown.tls.not_after == trusted.tls.not_after
    # With TLS 1.3 a missing client certificate is refused after the handshake.
    assert nameless.reason in {Reason.TLS_HANDSHAKE, Reason.RESET}


async def test_an_expired_certificate_is_told_with_its_date(
    start: Start, context: Context, make_certificate: Callable[[int], tuple[Path, Path]]
) -> None:
    key, pem = make_certificate(-1)
    server = await start(*tls_options(key, pem, "no"), tls=True)
    url = server.url.replace("redis://", "rediss://")

    outcome = await ask(context, url, tls={"ca_file": str(pem), "server_name": "localhost"})

    assert outcome.reason is Reason.TLS_EXPIRED
    assert outcome.tls is not None


async def test_a_ca_file_that_is_missing_says_nothing_about_the_server(context: Context) -> None:
    outcome = await ask(context, "rediss://127.0.0.1:1/0", tls={"ca_file": "/nowhere/ca.pem"})

    assert outcome.reason is Reason.INTERNAL


# Peers that misbehave


@asynccontextmanager
async def stranger(*answers: bytes | None) -> AsyncIterator[str]:
    """Answer one command after the other; after the last the connection ends, after None it hangs."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for answer in answers:
                if not await reader.read(4096):
                    break
                if answer is None:
                    await reader.read()
                    break
                writer.write(answer)
            writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", Reason.LOADING),
        (b"-DENIED Redis is running in protected mode\r\n", Reason.AUTH),
        (b"-MASTERDOWN Link with MASTER is down\r\n", Reason.UNHEALTHY),
        (b"+WELCOME\r\n", Reason.PROTOCOL),
        (b"-ERR unknown\r\n", Reason.PROTOCOL),
        (b"*2147483647\r\n", Reason.PROTOCOL),
        (b"*1\r\n*1000000000\r\n", Reason.PROTOCOL),
        (b"$99999999999\r\n", Reason.PROTOCOL),
        (b"*1_0\r\n", Reason.PROTOCOL),
        (b"%1\r\n*1\r\n+a\r\n+b\r\n", Reason.PROTOCOL),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Reason.PROTOCOL),
        (b"+" + b"x" * 5000, Reason.PROTOCOL),
        (b"", Reason.RESET),
        (None, Reason.TIMEOUT),
    ],
)
async def test_answers_that_are_no_pong_are_named(tools: Tools, answer: bytes | None, reason: Reason) -> None:
    async with stranger(answer) as address:
        outcome = await ask(Context(timeout=0.5, tools=tools), address)

    assert outcome.reason is reason, outcome.detail


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b":7\r\n", Reason.PROTOCOL),
        (b"$70000\r\n" + b"x" * 70_000, Reason.PROTOCOL),
        (b"$12\r\nno line here\r\n", None),
        (b"$30\r\nmaxmemory:99999999999999999999\r\n\r\n"[:-2], None),
        (b"-ERR unknown command 'INFO'\r\n", None),
        (b"-NOPERM this user has no permissions\r\n", None),
    ],
)
async def test_answers_to_info_cost_the_readings_or_are_the_peers_fault(
    context: Context, answer: bytes, reason: Reason | None
) -> None:
    async with stranger(b"+PONG\r\n", answer) as address:
        outcome = await ask(context, address)

    assert outcome.reason is reason, outcome.detail
    assert len(outcome.readings) <= 1


async def test_a_server_before_redis_7_is_asked_for_all_sections_and_only_that_from_then_on(
    context: Context,
) -> None:
    info = b"role:master\r\nconnected_clients:3\r\n"
    text = b"$%d\r\n%b\r\n" % (len(info), info)
    async with stranger(b"+PONG\r\n", b"-ERR syntax error\r\n", text) as address:
        first = await ask(context, address)
    async with stranger(b"+PONG\r\n", text) as address:
        second = await ask(context, address)

    assert values(first) == values(second) == {"redis_connected_clients": 3, "redis_master": 1}


async def test_a_server_that_repeats_what_it_was_sent_does_not_tell_the_password(context: Context) -> None:
    echo = f"-ERR unknown command 'AUTH', with args beginning with: '{SECRET}'\r\n".encode()
    async with stranger(echo) as address:
        outcome = await ask(context, address, password=SECRET)

    assert (outcome.reason, outcome.detail) == (Reason.AUTH, "refused the credentials")


class _Deaf:
    def write(self, data: bytes) -> None:
        """Let the question go nowhere."""


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"*", b"$", b"9", b"\r\n", b"-1", b"+", b":"])),
        max_size=30,
    ).map(b"".join)
)
async def test_no_bytes_of_a_peer_get_through_as_anything_but_an_answer_or_its_fault(data: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    peer = Peer(reader, _Deaf())  # type: ignore[arg-type] # all that is used of a writer

    with suppress(hiredis.ReplyError, hiredis.ProtocolError, TooLargeError, ConnectionResetError):
        assert isinstance(await peer.ask("PING"), str | int | list | None)


# Configuration


@pytest.mark.parametrize(
    ("probe", "mistake"),
    [
        ("redis: 'redis://h/zero'", "the database must be a number, for example redis://127.0.0.1:6379/0"),
        ("redis: 'redis://h:99999'", "Port out of range 0-65535"),
        ("redis: 'redis://h', tls: {}", "tls needs a rediss:// address"),
        (
            "redis: 'redis://:a@h', password: b",
            "give the password once: in the address, as password or as password_file",
        ),
        ("redis: 'redis://a:b@h', username: c", "give the user once: in the address or as username"),
        (
            "redis: 'redis://h', username: c",
            "a user needs a password; password_file names a file that has it",
        ),
        (
            "redis: 'redis://h', role: replica, max_lag_bytes: 1",
            "only the master knows max_lag_bytes: put it to the probe of the master",
        ),
        (
            "redis: 'redis://h', role: replica, min_replicas: 1",
            "only the master knows min_replicas: put it to the probe of the master",
        ),
    ],
)
def test_each_rule_names_its_mend(tmp_path: Path, probe: str, mistake: str) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(f"services: {{a: {{probes: [{{{probe}}}]}}}}")

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig, {})

    assert [(found.place, found.message) for found in caught.value.mistakes] == [
        ("services.a.probes[0]", mistake)
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_memory", "0.9", "a share is written in percent, for example 10%"),
        ("max_clients", "101%", "a share is written in percent, for example 10%"),
        ("min_replicas", "0", "must be at least 1"),
        ("max_lag", "5", "a duration is written with its unit, for example 500ms, 5s or 1m30s"),
    ],
)
def test_each_limit_names_its_unit(tmp_path: Path, key: str, value: str, message: str) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(f"services: {{a: {{probes: [{{redis: 'redis://h', {key}: {value}}}]}}}}")

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig, {})

    assert [(found.place, found.message) for found in caught.value.mistakes] == [
        (f"services.a.probes[0].{key}", message)
    ]


@pytest.mark.parametrize("kind", ["redis", "queue", "container"])
def test_the_example_in_the_documentation_is_accepted(tmp_path: Path, kind: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    file = tmp_path / "soulfra.yml"
    file.write_text(text.split(f"\n### {kind}\n")[1].split("```yaml\n")[1].split("```")[0])

    config = load_config(file, WatchConfig, {})

    assert kind in {probe.kind for service in config.services.values() for probe in service.probes}
    assert config.warnings() == []
