"""Programs run plainly and watched, and a remediator that keeps what it is sent."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TIMEOUT = 60.0


class Remediator:
    """Takes batches and keeps their events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.arrived = threading.Condition()
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                keep(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def _keep(self, body: bytes) -> None:
        with self.arrived:
            self.events += json.loads(body).get("events", [])
            self.arrived.notify_all()

    def wait_for(self, kind: str) -> dict[str, Any]:
        """Return the first event of a kind, as soon as it is there."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.of(kind), TIMEOUT), self.events
            return self.of(kind)[0]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def remediator() -> Iterator[Remediator]:
    one = Remediator()
    yield one
    one.close()


@pytest.fixture
def environment(remediator: Remediator, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOULFRA", "PYTHON"))}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
        "SOULFRA_URL": remediator.url,
        "SOULFRA_SPOOL": str(tmp_path / "spool"),
    }


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Write a program and return its file."""

    def write(text: str, name: str = "app.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    return write


Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start ``python ARGUMENTS``, or the same under the monitor; what is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        *arguments: str, watched: bool = True, flags: tuple[str, ...] = (), **options: Any
    ) -> "subprocess.Popen[str]":
        monitor = ("-m", "soulfra_monitor") if watched else ()
        command = [sys.executable, *flags, *monitor, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings = {"cwd": tmp_path, "env": environment, "text": True, **pipes, **options}
        process = subprocess.Popen(command, **settings)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run(start: Start) -> Run:
    """Run ``python ARGUMENTS`` to its end, plainly or watched."""

    def go(*arguments: str, text: str | None = None, **options: Any) -> "subprocess.CompletedProcess[str]":
        process = start(*arguments, **options)
        out, err = process.communicate(text, timeout=TIMEOUT)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return go
