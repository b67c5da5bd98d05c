"""Starts the services of the example platform for real, each as a process on a free port."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import requests

PLATFORM = Path(__file__).parents[2] / "examples" / "platform"


def wait_until(fact: Callable[[], bool], *, within: float = 10.0, what: str = "it") -> None:
    deadline = time.monotonic() + within
    while not fact():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {within:g} s")
        time.sleep(0.02)


@dataclass
class Running:
    """A service under test."""

    process: "subprocess.Popen[bytes]"
    log: Path
    url: str = ""

    def get(self, path: str, timeout: float = 10) -> requests.Response:
        return requests.get(self.url + path, timeout=timeout)

    def post(self, path: str, body: object, timeout: float = 10) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=timeout)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


class Start(Protocol):
    def __call__(self, script: str, *options: str, port: int = 0) -> Running: ...


def _launch(argv: list[str], log: Path) -> Running:
    nobody = {"SOULFRA_URL": "http://127.0.0.1:9", "SOULFRA_SPOOL": str(log.parent / "spool")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.STDOUT, cwd=PLATFORM, env={**os.environ, **nobody}
        )
    return Running(process=process, log=log)


def _end_all(started: list[Running]) -> None:
    for service in started:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait(10)


def _listening(service: Running) -> bool:
    text = service.log.read_text()
    if service.process.poll() is not None:
        pytest.fail(f"ended at once: {text}")
    if found := re.search(r"listening on (http://\S+)", text):
        service.url = found[1]
    return bool(found)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a script of the platform; all end with the module."""
    started: list[Running] = []
    logs = tmp_path_factory.mktemp("logs")

    def begin(script: str, *options: str, port: int = 0) -> Running:
        argv = [sys.executable, script, "--port", str(port), *options]
        service = _launch(argv, logs / f"{len(started)}.log")
        started.append(service)
        wait_until(lambda: _listening(service), what=f"{script} listening")
        return service

    yield begin
    _end_all(started)


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[list[str]], Running]]:
    """Start any command in the platform's folder; all end with the module."""
    started: list[Running] = []
    logs = tmp_path_factory.mktemp("commands")

    def begin(argv: list[str]) -> Running:
        started.append(_launch(argv, logs / f"{len(started)}.log"))
        return started[-1]

    yield begin
    _end_all(started)


@pytest.fixture(scope="session")
def redis_server() -> str:
    found = shutil.which("redis-server")
    if found is None:
        missing = "redis-server is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return find


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait for a fact, with a deadline."""
    return wait_until


@pytest.fixture(scope="session")
def platform_folder() -> Path:
    return PLATFORM


def pytest_make_parametrize_id(val: Any) -> str | None:
    """Leave long logs out of the names of tests."""
    return None if not isinstance(val, str) or len(val) < 40 else val[:12]
