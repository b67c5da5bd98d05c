"""Real parts for the exporter's tests: servers, processes, Redis, Alertmanager, on free ports."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop

from exporter import fastpath
from exporter.config import ALERTMANAGER_LISTEN
from exporter.probes.context import Context, Tools

DEADLINE = 15.0

Launch = Callable[..., "subprocess.Popen[bytes]"]
Until = Callable[..., Awaitable[object]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on the loop of production: others differ in transports, timers and errors."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def no_alerts_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose exporter would talk to the Alertmanager that this machine may really have."""
    start = fastpath.FastPath.start

    def guarded(path: fastpath.FastPath) -> None:
        assert not [name for name in path.names if ALERTMANAGER_LISTEN in name], "set exporter.fast_path"
        start(path)

    monkeypatch.setattr(fastpath.FastPath, "start", guarded)


def pick_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


@pytest.fixture
def free_port() -> Callable[[], int]:
    return pick_port


@pytest.fixture
def binary() -> Callable[[str], str]:
    """Find a program; without it a test skips on a user's machine and fails in CI."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            message = f"{name} is not installed"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, and return what it returned; fail after the deadline."""

    async def wait(
        condition: Callable[[], object], deadline: float = DEADLINE, every: float = 0.01
    ) -> object:
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(every)
        pytest.fail(f"did not happen within {deadline} s: {condition}")

    return wait


def stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start child processes that end with the test."""
    with ExitStack() as stack:

        def start(*argv: str, **options: object) -> "subprocess.Popen[bytes]":
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process: subprocess.Popen[bytes] = subprocess.Popen(argv, **{**quiet, **options})  # type: ignore[call-overload]
            stack.callback(stop, process)
            return process

        yield start


LISTENER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"status": "healthy"}')
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def serve(launch: Launch) -> Callable[[int], "subprocess.Popen[bytes]"]:
    """Start a real process with an HTTP server that says it is healthy."""

    def start(port: int) -> "subprocess.Popen[bytes]":
        process = launch(sys.executable, "-c", LISTENER, str(port))
        end = time.monotonic() + DEADLINE
        while not listens(port):
            assert process.poll() is None, "the server ended by itself"
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.01)
        return process

    return start


@pytest.fixture
async def tools() -> AsyncIterator[Tools]:
    shared = Tools()
    yield shared
    await shared.close()


@pytest.fixture
def context(tools: Tools) -> Context:
    return Context(timeout=2.0, tools=tools)


def certificate(folder: Path, days: int) -> tuple[Path, Path]:
    """Make a self-signed certificate for localhost with the openssl program."""
    key, request, pem = folder / "key.pem", folder / "request.pem", folder / "cert.pem"
    wanted = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-nodes"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    openssl("req", *curve, *wanted, "-keyout", str(key), "-out", str(request))
    signed = ["-signkey", str(key), "-copy_extensions", "copyall", "-out", str(pem)]
    # OpenSSL 3.4 and later refuse to sign what ends before it begins; earlier ones take no dates.
    ends = f"{datetime.now(UTC) + timedelta(days=days):%Y%m%d%H%M%SZ}"
    written = ["-not_before", "20200101000000Z", "-not_after", ends]
    dates = written if "-not_before" in openssl("x509", "-help") else ["-days", str(days)]
    openssl("x509", "-req", "-in", str(request), *signed, *dates)
    return key, pem


def openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def make_certificate(binary: Callable[[str], str], tmp_path: Path) -> Callable[[int], tuple[Path, Path]]:
    """Make a certificate that is valid for so many days; with -1 it has expired."""
    binary("openssl")
    return lambda days: certificate(tmp_path, days)


@pytest.fixture
def prometheus(
    binary: Callable[[str], str], launch: Launch, free_port: Callable[[], int], tmp_path: Path
) -> Callable[[dict[str, object]], str]:
    """Start a real Prometheus with a configuration, and return the address it listens on."""
    program = binary("prometheus")

    def start(config: dict[str, object]) -> str:
        file, address = tmp_path / "prometheus.yml", f"127.0.0.1:{free_port()}"
        file.write_text(json.dumps(config))
        storage = f"--storage.tsdb.path={tmp_path / 'data'}"
        launch(program, f"--config.file={file}", storage, f"--web.listen-address={address}")
        return address

    return start
