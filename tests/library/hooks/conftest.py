"""A reporter that only records, and programs that run under it as they are."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks.table import HOOKS
from tests.library.recorder import Recorder as Keeper
from tests.library.recorder import Told

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 15.0


class Recorder(Keeper):
    """Keeps the same exception once."""

    def keep(self, told: Told) -> None:
        if told.error is None or all(one.error is not told.error for one in self.told):
            super().keep(told)


Install = Callable[..., None]
Until = Callable[..., object]


def _told(kind: str, function: str = "", **rest: Any) -> Told:
    """Return what a program wrote down of what it was told."""
    return Told(kind=Kind(kind), stack=(function,) if function else (), **rest)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    assert made.broken == []


@pytest.fixture
def install(recorder: Recorder) -> Iterator[Install]:
    """Install hooks until the end of the test."""
    undos: list[Callable[[], None]] = []

    def start(*names: str) -> None:
        for name in names:
            module, _, function = HOOKS[name].partition(":")
            undos.append(getattr(import_module(module), function)(recorder))

    yield start
    for undo in reversed(undos):
        undo()


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds; fail after the deadline."""

    def wait(condition: Callable[[], object]) -> object:
        end = time.monotonic() + DEADLINE
        while not (found := condition()):
            assert time.monotonic() < end, "did not happen in time"
            time.sleep(0.01)
        return found

    return wait


# -- whole programs --

PREAMBLE = """
import importlib, json, os, sys, time
sys.path.insert(0, {root!r})
names, file = {names!r}, {file!r}
def settle():
    pass
if names:
    from soulfra_monitor.hooks import grace, table
    seen = {{}}
    out = os.open(file, os.O_WRONLY | os.O_APPEND)  # now: a program may have no handles or rights left
    class Recorder:
        def _tell(self, **told):
            os.write(out, (json.dumps(told, default=str) + "\\n").encode())
        def raised(self, kind, error, *, service=None, message=None, handled=True, facts=None, context=None):
            if id(error) in seen:
                return
            seen[id(error)] = error
            self._tell(kind=kind, message=message or str(error), type=type(error).__name__, handled=handled,
                       facts=facts or {{}}, context=context or {{}})
        def noted(self, kind, message, *, service=None, frame=None, facts=None, context=None):
            self._tell(kind=kind, message=message, facts=facts or {{}}, context=context or {{}},
                       function=frame.f_code.co_name if frame else "")
        def broke(self, place, error):
            self._tell(broke=f"{{place}}: {{error!r}}")
    for name in names:
        module, _, function = table.HOOKS[name].partition(":")
        getattr(importlib.import_module(module), function)(Recorder())
    def settle():
        import threading
        while grace._waiting or grace._at_work.locked():
            time.sleep(0.01)
    Recorder()._tell(imported=sorted(sys.modules))
with open({source!r}) as text:
    code = compile(text.read(), "program.py", "exec")
exec(code, globals())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended, and what was told of it."""

    told: list[Told]
    imported: list[str]
    code: int
    out: str
    err: str


Program = Callable[..., Outcome]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run a program under hooks, in a process of its own. ``settle()`` there waits for the grace time."""

    def run(text: str, *names: str, options: tuple[str, ...] = (), python: str = sys.executable) -> Outcome:
        place = tmp_path / f"run{next(numbers)}"
        place.mkdir()
        source, file = place / "program.py", place / "told"
        source.write_text(text)
        file.write_text("")
        code = PREAMBLE.format(root=str(ROOT), names=names, file=str(file), source=str(source))
        done = subprocess.run(
            [python, *options, "-c", code],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=place,
        )
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line for line in lines if "broke" in line] == []
        return Outcome(
            told=[_told(**line) for line in lines if "kind" in line],
            imported=next((line["imported"] for line in lines if "imported" in line), []),
            code=done.returncode,
            out=done.stdout,
            err=done.stderr,
        )

    numbers = count()
    return run


@pytest.fixture
def both(program: Program) -> Callable[..., tuple[Outcome, Outcome]]:
    """Run a program with hooks and without, at the same time."""

    def run(text: str, *names: str, options: tuple[str, ...] = ()) -> tuple[Outcome, Outcome]:
        with ThreadPoolExecutor(1) as pool:
            bare = pool.submit(program, text, options=options)
            return program(text, *names, options=options), bare.result()

    return run


@pytest.fixture
def plain() -> Callable[[str], str]:
    """Give what makes two runs of a program comparable."""
    return without_us


def without_us(text: str) -> str:
    """Return what a program printed, without our own frames, and addresses in memory."""
    kept: list[str] = []
    skip = False
    for line in text.splitlines():
        if line.lstrip().startswith('File "'):
            skip = "/soulfra_monitor/hooks/" in line
        elif not line.startswith("    "):
            skip = False
        if not skip:
            kept.append(re.sub(r"0x[0-9a-f]+", "0x", line))
    joined = re.sub(
        r", cb=\[[^\]]*soulfra_done[^\]]*\]| cb=\[[^\]]*soulfra_done[^\]]*\]", "", "\n".join(kept)
    )
    return re.sub(r"Thread-\d+|Task-\d+|pid \d+|fd=\d+", "", joined)


# -- servers --


def pick_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


@pytest.fixture
def free_port() -> Callable[[], int]:
    return pick_port


class Answers(BaseHTTPRequestHandler):
    """Answers with the status in the path, or not as one should."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        if path == "hang":
            self.server.release.wait(DEADLINE)  # type: ignore[attr-defined]  # of ours, below
        elif path == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif path == "short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"10 bytes..")
            self.close_connection = True
        else:
            self.send_response(int(path))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """Start a real HTTP server: ``/503`` answers 503, ``/hang``, ``/reset``, ``/short`` do so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # they are the point
    release = threading.Event()
    server.release = release  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    release.set()
    server.shutdown()
    thread.join()
    server.server_close()


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
