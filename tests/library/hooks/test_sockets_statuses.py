"""Raw connections and exit statuses of ``os``: what is told, once, and what is none of ours."""

import asyncio
import inspect
import os
import smtplib
import socket
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from soulfra_monitor.events import Kind

Recorder = Any
Install = Callable[..., None]


@pytest.fixture
def closed() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def by_create(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=2).close()


def by_name(port: int) -> None:
    socket.create_connection(("localhost", port), timeout=2).close()


def by_socket(port: int) -> None:
    with socket.socket() as made:
        made.connect(("127.0.0.1", port))


def by_smtp(port: int) -> None:
    smtplib.SMTP("127.0.0.1", port, timeout=2)


def by_asyncio(port: int) -> None:
    asyncio.run(_streams("127.0.0.1", port))


def by_asyncio_name(port: int) -> None:
    asyncio.run(_streams("localhost", port))


def by_sock_connect(port: int) -> None:
    asyncio.run(_sock_connect(port))


async def _streams(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()


async def _sock_connect(port: int) -> None:
    with socket.socket() as made:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))


CONNECTS = (by_create, by_name, by_socket, by_smtp, by_asyncio, by_asyncio_name, by_sock_connect)


@pytest.mark.parametrize("connect", CONNECTS)
def test_a_refused_connection_is_told_once_with_its_peer(
    connect: Callable[[int], None], closed: int, install: Install, recorder: Recorder
) -> None:
    install("sockets")

    with pytest.raises(OSError, match=r"refused|Connect call failed|Multiple"):
        connect(closed)

    assert len(recorder.told) == 1
    told = recorder.told[0]
    assert told.kind is Kind.HTTP
    assert str(told.facts["peer"]).endswith(f":{closed}")


@pytest.mark.parametrize("connect", CONNECTS)
def test_the_traceback_is_the_same_as_without(
    connect: Callable[[int], None], closed: int, install: Install
) -> None:
    def shown() -> list[tuple[str, int | None]]:
        try:
            connect(closed)
        except OSError as error:
            return [(one.name, one.lineno) for one in traceback.extract_tb(error.__traceback__)]
        raise AssertionError

    plain = shown()
    install("sockets")

    assert shown() == plain


@pytest.mark.parametrize(
    "connect", [by_create, by_name, by_socket, by_asyncio, by_asyncio_name, by_sock_connect]
)
def test_a_connection_that_works_is_not_told(
    connect: Callable[[int], None], install: Install, recorder: Recorder
) -> None:
    install("sockets")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect(server.getsockname()[1])

    assert recorder.told == []


def by_urllib(port: int) -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)


def by_requests(port: int) -> None:
    requests.get(f"http://127.0.0.1:{port}/", timeout=2)


def by_redis(port: int) -> None:
    redis.Redis(port=port, socket_timeout=2).ping()


@pytest.mark.parametrize("ask", [by_urllib, by_requests, by_redis])
def test_clients_with_a_hook_of_their_own_are_left_to_it(
    ask: Callable[[int], None], closed: int, install: Install, recorder: Recorder
) -> None:
    install("sockets")

    with pytest.raises((OSError, redis.ConnectionError)):
        ask(closed)

    assert recorder.told == []


def test_asking_whether_somebody_is_there_is_no_error(
    closed: int, install: Install, recorder: Recorder, tmp_path: Path
) -> None:
    install("sockets")
    with socket.socket() as made:
        assert made.connect_ex(("127.0.0.1", closed)) != 0
    with socket.socket() as made:
        made.setblocking(False)
        with pytest.raises(BlockingIOError):
            made.connect(("127.0.0.1", closed))
    with socket.socket(socket.AF_UNIX) as made, pytest.raises(FileNotFoundError):
        made.connect(str(tmp_path / "none"))

    assert recorder.told == []


def test_an_unknown_name_and_a_timeout_are_told(install: Install, recorder: Recorder) -> None:
    install("sockets")
    with pytest.raises(socket.gaierror):
        socket.create_connection(("no-such-host.invalid", 80), timeout=2)

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        held = [socket.socket() for _ in range(8)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(TimeoutError):
            socket.create_connection(full.getsockname(), timeout=0.2)
        for one in held:
            one.close()

    assert [told.type for told in recorder.told] == ["gaierror", "TimeoutError"]


def test_what_is_patched_looks_as_before(install: Install) -> None:
    signature = inspect.signature(socket.create_connection)
    coroutine = inspect.iscoroutinefunction(asyncio.BaseEventLoop.create_connection)
    install("sockets", "statuses")

    assert inspect.signature(socket.create_connection) == signature
    assert inspect.iscoroutinefunction(asyncio.BaseEventLoop.create_connection) is coroutine
    assert socket.socket.connect.__name__ == "connect"
    assert os.system.__name__ == "system"


def test_an_ignored_status_is_told(install: Install, recorder: Recorder) -> None:
    install("statuses")

    os.system("exit 3")
    with os.popen("exit 4") as pipe:
        pipe.read()
    os.popen("exit 5").close()
    os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 6")
    os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", "kill -9 $$"])
    os.system("kill -9 $$")

    assert [told.kind for told in recorder.told] == [Kind.CHILD] * 6
    assert [told.facts.get("exit_code", told.facts.get("signal")) for told in recorder.told] == [
        3,
        4,
        5,
        6,
        9,
        9,
    ]
    assert all("test_sockets_statuses.py" in told.context["at"] for told in recorder.told)


def test_a_status_that_is_looked_at_or_fine_is_not_told(install: Install, recorder: Recorder) -> None:
    install("statuses")

    os.system("exit 0")
    os.system("kill $$")
    if os.system("exit 3") == 0:
        raise AssertionError
    seen = [os.popen("exit 4").close(), os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 6")]
    os.popen("exit 0").close()
    pid = os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", "exit 6")
    os.waitpid(pid, 0)

    assert seen == [4 << 8, 6]
    assert recorder.told == []


def test_a_wrong_call_of_system_fails_as_before(install: Install) -> None:
    install("statuses")
    wrong: Any = os.system

    with pytest.raises(TypeError, match="command"):
        wrong()
