"""Requests, Redis and databases that fail over real sockets, in a program that catches everything."""

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiomysql
import asyncpg
import httpx
import psycopg
import psycopg2  # type: ignore[import-untyped,unused-ignore]
import pymysql
import pytest
import redis
import redis.asyncio
import requests
import urllib3

from soulfra_monitor.events import Kind

Recorder = Any
Install = Callable[..., None]
Port = Callable[[], int]
Binary = Callable[[str], str]
Get = Callable[[str], object]

HOOKS = ("http_stdlib", "http_aiohttp", "http_httpx", "redis", "databases")
QUICK = 0.2


def by_urllib(url: str) -> object:
    with urllib.request.urlopen(url, timeout=QUICK) as answer:
        return answer.read()


def by_requests(url: str) -> object:
    return requests.get(url, timeout=QUICK).content


def by_urllib3(url: str) -> object:
    with urllib3.PoolManager(retries=False, timeout=QUICK) as pool:
        return pool.request("GET", url).data


def by_httpx(url: str) -> object:
    with httpx.Client(timeout=QUICK, trust_env=False) as client:
        return client.get(url).content


def by_httpx_async(url: str) -> object:
    async def get() -> object:
        async with httpx.AsyncClient(timeout=QUICK, trust_env=False) as client:
            return (await client.get(url)).content

    return asyncio.run(get())


def by_aiohttp(url: str) -> object:
    async def get() -> object:
        limit = aiohttp.ClientTimeout(total=QUICK)
        async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as answer:
            return await answer.read()

    return asyncio.run(get())


CLIENTS = {
    "urllib": by_urllib,
    "requests": by_requests,
    "urllib3": by_urllib3,
    "httpx": by_httpx,
    "async httpx": by_httpx_async,
    "aiohttp": by_aiohttp,
}

pytestmark = pytest.mark.usefixtures("watched")


@pytest.fixture
def watched(install: Install) -> None:
    install(*HOOKS)


@pytest.fixture(params=CLIENTS)
def get(request: pytest.FixtureRequest) -> Get:
    return CLIENTS[request.param]


def test_a_refused_connection_is_told_although_it_is_caught(
    get: Get, recorder: Recorder, free_port: Port
) -> None:
    port = free_port()

    with contextlib.suppress(Exception):
        get(f"http://127.0.0.1:{port}/cart?token=" + "x" * 8)

    assert recorder.kinds == [Kind.HTTP]
    assert recorder.told[0].facts["peer"] == f"127.0.0.1:{port}"
    assert str(recorder.told[0].facts["url"]).startswith(f"http://127.0.0.1:{port}/")
    assert "token" not in str(recorder.told[0].facts)


def test_a_server_that_hangs_is_told(get: Get, recorder: Recorder, web: str) -> None:
    with contextlib.suppress(Exception):
        get(f"{web}/hang?a=1")

    assert recorder.kinds == [Kind.HTTP]
    assert recorder.told[0].facts["url"] == f"{web}/hang"
    assert 0.1 < recorder.told[0].facts["seconds"] < 5


def test_a_connection_that_is_dropped_is_told(get: Get, recorder: Recorder, web: str) -> None:
    with contextlib.suppress(Exception):
        get(f"{web}/reset")

    assert set(recorder.kinds) == {Kind.HTTP}


def test_an_answer_that_ends_early_is_told(get: Get, recorder: Recorder, web: str) -> None:
    with contextlib.suppress(Exception):
        get(f"{web}/short")

    assert recorder.kinds == [Kind.HTTP]
    assert recorder.told[0].facts["url"] == f"{web}/short"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_status_that_nobody_looks_at_is_told(get: Get, recorder: Recorder, web: str, status: int) -> None:
    with contextlib.suppress(Exception):
        get(f"{web}/{status}?q=1")

    assert recorder.kinds == [Kind.HTTP_STATUS]
    assert recorder.told[0].facts["status"] == status
    assert recorder.told[0].facts["url"] == f"{web}/{status}"
    assert recorder.told[0].facts["method"] == "GET"


@pytest.mark.parametrize("status", [200, 404])
def test_other_answers_are_not_told(get: Get, recorder: Recorder, web: str, status: int) -> None:
    with contextlib.suppress(Exception):
        get(f"{web}/{status}")

    assert recorder.told == []


def test_a_name_that_nobody_knows_is_told(get: Get, recorder: Recorder) -> None:
    with contextlib.suppress(Exception):
        get("http://nobody.invalid/")

    assert recorder.kinds == [Kind.HTTP]
    assert recorder.told[0].facts["peer"] == "nobody.invalid:80"


def test_a_handshake_that_fails_is_told(get: Get, recorder: Recorder, web: str) -> None:
    with contextlib.suppress(Exception):
        get(web.replace("http://", "https://"))

    assert recorder.kinds == [Kind.HTTP]


def test_exceptions_are_the_same_as_without_hooks(get: Get, free_port: Port) -> None:
    url = f"http://127.0.0.1:{free_port()}/"

    with pytest.raises(Exception, match=r"(?i)refused|attempts failed|connect") as caught:
        get(url)

    assert type(caught.value).__module__.partition(".")[0] in (
        "urllib",
        "requests",
        "urllib3",
        "httpx",
        "aiohttp",
    )


def test_each_retry_of_urllib3_counts(recorder: Recorder, web: str) -> None:
    again = urllib3.Retry(2, status_forcelist=[503], backoff_factor=0)
    with urllib3.PoolManager() as pool, contextlib.suppress(urllib3.exceptions.MaxRetryError):
        pool.request("GET", f"{web}/503", retries=again)

    assert recorder.kinds == [Kind.HTTP_STATUS] * 3


def test_an_error_made_of_a_status_is_told_as_a_status(recorder: Recorder, web: str) -> None:
    async def get(path: str) -> None:
        async with aiohttp.ClientSession(base_url=web, raise_for_status=True) as session:
            await session.get(path)

    for path in ("/404", "/500"):
        with contextlib.suppress(aiohttp.ClientResponseError):
            asyncio.run(get(path))

    assert recorder.kinds == [Kind.HTTP_STATUS]
    assert recorder.told[0].facts["url"] == f"{web}/500"


def test_transports_of_tests_are_left_alone(recorder: Recorder) -> None:
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(500))) as client:
        client.get("http://shop.test/")

    assert recorder.told == []


def test_a_request_that_is_cancelled_is_no_error(recorder: Recorder, web: str) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            task = asyncio.create_task(session._request("GET", f"{web}/hang"))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())

    assert recorder.told == []


# -- Redis --


class RedisServer:
    """A real Redis that can be killed."""

    def __init__(self, program: str, port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        end = time.monotonic() + 15
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < end, "redis-server does not listen"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(binary: Binary, free_port: Port) -> Iterator[RedisServer]:
    made = RedisServer(binary("redis-server"), free_port())
    made.wait()
    yield made
    made.kill()


def once() -> Any:
    """Return the policy of trying once: redis-py's default is to try for seconds."""
    return redis.retry.Retry(redis.backoff.NoBackoff(), 0)


def test_redis_that_dies_under_a_connection_is_told(recorder: Recorder, server: RedisServer) -> None:
    client = redis.Redis(port=server.port, retry=once())
    client.set("a", 1)
    server.kill()

    with contextlib.suppress(redis.ConnectionError):
        client.get("a")
    client.close()

    assert set(recorder.kinds) == {Kind.REDIS}
    assert recorder.told[0].facts["peer"] == f"localhost:{server.port}"


def test_redis_that_refuses_is_told(recorder: Recorder, free_port: Port) -> None:
    client = redis.Redis(port=free_port(), retry=once())

    with contextlib.suppress(redis.ConnectionError):
        client.ping()
    with contextlib.suppress(redis.ConnectionError):
        pipeline = client.pipeline()
        pipeline.set("a", 1)
        pipeline.execute()
    client.close()

    assert recorder.kinds == [Kind.REDIS, Kind.REDIS]


def test_redis_that_hangs_is_told(recorder: Recorder, server: RedisServer) -> None:
    client = redis.Redis(port=server.port, socket_timeout=QUICK, retry=once())
    client.ping()
    server.process.send_signal(signal.SIGSTOP)

    with contextlib.suppress(redis.TimeoutError):
        client.get("a")
    client.close()

    assert set(recorder.kinds) == {Kind.REDIS}
    assert recorder.told[0].type == "TimeoutError"


def test_a_subscription_that_is_dropped_is_told(recorder: Recorder, server: RedisServer) -> None:
    client = redis.Redis(port=server.port, retry=once())
    channel: Any = client.pubsub()  # type: ignore[no-untyped-call]
    channel.subscribe("news")
    channel.get_message(timeout=5)
    server.kill()

    with contextlib.suppress(redis.ConnectionError):
        channel.get_message(timeout=5)
    channel.close()
    client.close()

    assert set(recorder.kinds) == {Kind.REDIS}


def test_asyncio_redis_that_dies_is_told(recorder: Recorder, server: RedisServer) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(
            port=server.port, retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
        )
        await client.set("a", 1)
        server.kill()
        with contextlib.suppress(redis.ConnectionError):
            await client.get("a")
        await client.aclose()

    asyncio.run(main())

    assert set(recorder.kinds) == {Kind.REDIS}


def test_a_connection_that_redis_has_closed_and_a_retry_mends_is_not_told(
    recorder: Recorder, server: RedisServer
) -> None:
    client = redis.Redis(port=server.port, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 3))
    client.ping()
    other = redis.Redis(port=server.port)
    other.client_kill_filter(_type="normal", skipme=True)

    assert client.ping()
    client.close()
    other.close()

    assert recorder.told == []


def test_what_redis_says_of_a_command_is_not_told(recorder: Recorder, server: RedisServer) -> None:
    client = redis.Redis(port=server.port)
    client.set("a", "text")

    with contextlib.suppress(redis.ResponseError):
        client.incr("a")
    client.close()

    assert recorder.told == []


# -- databases --


def test_a_refused_database_is_told_by_each_driver(recorder: Recorder, free_port: Port) -> None:
    port = free_port()

    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect(host="127.0.0.1", port=port, dbname="shop")
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=port, dbname="shop")
    with contextlib.suppress(pymysql.OperationalError):
        pymysql.connect(host="127.0.0.1", port=port)

    assert [one.context["driver"] for one in recorder.told] == ["psycopg2", "psycopg", "pymysql"]
    assert set(recorder.kinds) == {Kind.DATABASE}
    assert all(__file__ in one.context["at"] for one in recorder.told)


def test_a_database_refused_to_asyncio_is_told(recorder: Recorder, free_port: Port) -> None:
    async def main() -> None:
        port = free_port()
        with contextlib.suppress(OSError):
            await asyncpg.connect(host="127.0.0.1", port=port, user="shop", database="shop")
        with contextlib.suppress(aiomysql.OperationalError):
            await aiomysql.connect(host="127.0.0.1", port=port)

    asyncio.run(main())

    assert [one.context["driver"] for one in recorder.told] == ["asyncpg", "pymysql"]


def test_a_locked_file_is_told_and_a_missing_table_is_not(recorder: Recorder, tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415 - late, as a program may

    first = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    second = sqlite3.connect(tmp_path / "shop.db", timeout=0)
    first.execute("begin exclusive")

    with contextlib.suppress(sqlite3.OperationalError):
        second.execute("create table things (name)")
    with contextlib.suppress(sqlite3.OperationalError):
        first.execute("select * from nothing")
    first.close()
    second.close()

    assert [one.message for one in recorder.told] == ["database is locked"]
    assert recorder.kinds == [Kind.DATABASE]


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    """Start a real PostgreSQL, and give its port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found or os.geteuid() != 0:
        message = "PostgreSQL is not installed" if not found else "only root can start a server as its user"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    account = pwd.getpwnam("postgres")
    other: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base:
        Path(base).chmod(0o711)
        folder = Path(base) / "data"
        folder.mkdir()
        os.chown(folder, account.pw_uid, account.pw_gid)
        made = [str(found[-1].with_name("initdb")), "-D", str(folder), "-A", "trust", "-N"]
        subprocess.run(made, check=True, capture_output=True, timeout=60, **other)
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            port = int(chosen.getsockname()[1])
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
        words = [word for setting in settings for word in ("-c", setting)]
        other |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([str(found[-1]), "-D", str(folder), "-p", str(port), *words], **other)
        end = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(host="127.0.0.1", port=port, user="postgres").close()
            except psycopg.OperationalError:
                assert time.monotonic() < end, "PostgreSQL does not listen"
                time.sleep(0.05)
            else:
                break
        yield port
        process.send_signal(signal.SIGQUIT)
        process.wait(30)


def connect(driver: Any, port: int, options: str = "") -> Any:
    return driver.connect(host="127.0.0.1", port=port, user="postgres", options=options)


@pytest.mark.parametrize("driver", [psycopg2, psycopg])
def test_a_connection_that_the_server_ends_is_told(recorder: Recorder, postgres: int, driver: Any) -> None:
    victim, killer = connect(driver, postgres), connect(driver, postgres)
    pid = victim.info.backend_pid
    killer.cursor().execute("select pg_terminate_backend(%s)", (pid,))
    recorder.told.clear()

    with contextlib.suppress(driver.OperationalError):
        victim.cursor().execute("select 1")
    victim.close()
    killer.close()

    assert set(recorder.kinds) == {Kind.DATABASE}
    assert recorder.told[0].context["driver"] == driver.__name__


@pytest.mark.parametrize("driver", [psycopg2, psycopg])
def test_a_statement_out_of_time_is_told_and_a_wrong_one_is_not(
    recorder: Recorder, postgres: int, driver: Any
) -> None:
    connection = connect(driver, postgres, "-c statement_timeout=50")
    recorder.told.clear()

    with contextlib.suppress(driver.OperationalError):
        connection.cursor().execute("select pg_sleep(5)")
    connection.rollback()
    with contextlib.suppress(driver.ProgrammingError):
        connection.cursor().execute("select nothing from nowhere")
    connection.close()

    assert [one.type for one in recorder.told] == ["QueryCanceled"]


def test_asyncpg_that_loses_its_server_or_its_patience_is_told(recorder: Recorder, postgres: int) -> None:
    async def main() -> None:
        place: dict[str, Any] = {"host": "127.0.0.1", "port": postgres, "user": "postgres"}
        victim, killer = await asyncpg.connect(**place), await asyncpg.connect(**place)
        recorder.told.clear()
        with contextlib.suppress(TimeoutError):
            await victim.execute("select pg_sleep(5)", timeout=0.1)
        with contextlib.suppress(TimeoutError):
            await victim.fetch("select pg_sleep(5)", timeout=0.1)
        await killer.execute(f"select pg_terminate_backend({victim.get_server_pid()})")
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await victim.fetch("select 1")
        await killer.close()

    asyncio.run(main())

    assert set(recorder.kinds) == {Kind.DATABASE}
    assert len(recorder.told) >= 3
