"""A remediator that records what it takes, and misbehaves when told to; programs that use the library."""

import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from soulfra_monitor import ErrorMonitor
from soulfra_monitor.events import Event
from soulfra_monitor.hooks.table import HOOKS
from soulfra_monitor.wire import read_batch

ROOT = Path(__file__).parents[3]


@dataclass
class Request:
    """One request as it came in, whether it was taken or not."""

    path: str
    body: Any
    headers: dict[str, str]
    client: tuple[str, int]


@dataclass
class Recorder:
    """Takes batches once by (boot, seq), as the remediator does."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)  # bodies of batches
    beats: list[Request] = field(default_factory=list)
    misbehave: list[Callable[[BaseHTTPRequestHandler], bool]] = field(default_factory=list)
    """For the next requests; true from one means that it did all there is to do."""
    always: Callable[[BaseHTTPRequestHandler], bool] | None = None
    take_before_misbehaving: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
    _last: dict[str, int] = field(default_factory=dict)

    @property
    def events(self) -> list[Event]:
        with self.changed:
            return [event for body in self.taken for event in read_batch(body, now=0.0).events]

    @property
    def total(self) -> int:
        """Errors taken, counts included."""
        return sum(event.count for event in self.events)

    def take(self, request: Request) -> None:
        with self.changed:
            if "/heartbeats/" in request.path:
                self.beats.append(request)
            else:
                boot, seq = request.body["sender"]["boot"], request.body["seq"]
                if seq > self._last.get(boot, 0):
                    self._last[boot] = seq
                    self.taken.append(request.body)
            self.changed.notify_all()

    def wait(self, until: Callable[["Recorder"], object], seconds: float = 20.0) -> None:
        """Wait for something to be true; fail when it does not become so."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not until(self):
                left = deadline - time.monotonic()
                assert left > 0, f"it did not happen; {len(self.requests)} requests, taken: {self.taken}"
                self.changed.wait(min(left, 0.5))


def handler_of(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                raw = zlib.decompress(raw, 31)
            request = Request(self.path, json.loads(raw), dict(self.headers), self.client_address)
            with recorder.changed:
                recorder.requests.append(request)
                act = recorder.misbehave.pop(0) if recorder.misbehave else recorder.always
                recorder.changed.notify_all()
            if recorder.take_before_misbehaving:
                recorder.take(request)
            if act is not None and act(self):
                return
            recorder.take(request)
            answer(self, 202)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    return Handler


def answer(
    handler: BaseHTTPRequestHandler, status: int, body: bytes = b'{"taken": true}', **headers: str
) -> bool:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in {"Content_Type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
    return True


def hang_up(handler: BaseHTTPRequestHandler) -> bool:
    """End the connection without an answer."""
    handler.close_connection = True
    return True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about connections that end: the tests end them."""


def serve(recorder: Recorder, port: int = 0) -> Server:
    server = Server(("127.0.0.1", port), handler_of(recorder))
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    server = serve(found)
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


Start = Callable[..., ErrorMonitor]


@pytest.fixture
def start(recorder: Recorder, spool: Path) -> Iterator[Start]:
    """Start a monitor without hooks that reports to the recorder; it is stopped at the end."""
    started: list[ErrorMonitor] = []

    def begin(**settings: Any) -> ErrorMonitor:
        monitor = ErrorMonitor(
            **{
                "service": "shop",
                "url": recorder.url,
                "spool": str(spool),
                "without": all_hooks(),
                **settings,
            }
        )
        started.append(monitor)
        return monitor.start()

    yield begin
    for monitor in started:
        monitor.stop()


def all_hooks() -> list[str]:
    return list(HOOKS)


@dataclass
class Program:
    """A Python program in a process of its own."""

    process: subprocess.Popen[str]

    def line(self, seconds: float = 20.0) -> str:
        """Return its next line of output."""
        assert self.process.stdout is not None
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            timer.cancel()

    def end(self, seconds: float = 20.0) -> tuple[int, str, str]:
        """Wait for its end; return its status, output and errors."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, out, err


Run = Callable[..., Program]


@pytest.fixture
def run(recorder: Recorder, spool: Path, tmp_path: Path) -> Iterator[Run]:
    """Run a program that finds its settings in the environment."""
    programs: list[Program] = []

    def begin(code: str, *args: str, **environment: str) -> Program:
        path = tmp_path / f"program{len(programs)}.py"
        path.write_text(code)
        process = subprocess.Popen(
            [sys.executable, str(path), *args],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SOULFRA_SERVICE": "shop",
                "SOULFRA_URL": recorder.url,
                "SOULFRA_SPOOL": str(spool),
                "SOULFRA_WITHOUT": ",".join(all_hooks()),
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        programs.append(Program(process))
        return programs[-1]

    yield begin
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()


def is_exact(monitor: ErrorMonitor) -> bool:
    """Whether every error seen is accounted for."""
    stats = monitor.stats()
    return stats.seen == stats.sent + sum(stats.dropped.values()) + stats.pending
