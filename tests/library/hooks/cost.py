"""What the hooks cost while nothing fails: ``python tests/library/hooks/cost.py``.

Each line of work is done without and with the hooks in turns, in one process. The CPU time of this process is
compared, in the best rounds: what else the machine does only ever adds.
"""

import asyncio
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks.table import HOOKS

ROUNDS = 40


class Deaf:
    """A reporter that keeps nothing; nothing is told anyway."""

    def raised(self, kind: Kind, error: BaseException, **_: Any) -> None:
        raise AssertionError from error

    def noted(self, kind: Kind, message: str, **_: Any) -> None:
        raise AssertionError(message)

    def broke(self, place: str, error: BaseException) -> None:
        raise AssertionError(place) from error


class Quick(BaseHTTPRequestHandler):
    """Answers at once."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        pass


def install() -> Callable[[], None]:
    undos = []
    for name in HOOKS:
        if name != "swallowed":
            module, _, function = HOOKS[name].partition(":")
            undos.append(getattr(import_module(module), function)(Deaf()))

    def undo() -> None:
        for one in reversed(undos):
            one()

    return undo


def main() -> None:
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()
    loop = asyncio.new_event_loop()
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    connection = HTTPConnection("127.0.0.1", int(server.stdout.readline()))
    database = sqlite3.connect(":memory:")
    quiet = logging.getLogger("cost")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False

    async def nothing() -> None:
        pass

    async def tasks(count: int) -> None:
        for _ in range(count):
            await loop.create_task(nothing())

    async def gathers(count: int) -> None:
        for _ in range(count):
            await asyncio.gather(nothing(), nothing(), return_exceptions=True)

    def ask() -> bytes:
        connection.request("GET", "/x")
        return connection.getresponse().read()

    def repeat(one: Callable[[], object]) -> Callable[[int], None]:
        def run(count: int) -> None:
            for _ in range(count):
                one()

        return run

    work: dict[str, tuple[int, Callable[[int], object]]] = {
        "pool.submit(f).result()": (300, repeat(lambda: pool.submit(int).result())),
        "await create_task(f())": (500, lambda count: loop.run_until_complete(tasks(count))),
        "await gather(f(), f())": (300, lambda count: loop.run_until_complete(gathers(count))),
        "HTTP request, kept alive": (50, repeat(ask)),
        "open and close a file": (500, repeat(lambda: open(os.devnull).close())),  # noqa: PTH123 - it is measured
        "make and close a socket": (500, repeat(lambda: socket.socket().close())),
        "SQLite query": (500, repeat(lambda: database.execute("select 1").fetchone())),
        "logger.warning": (500, repeat(lambda: quiet.warning("x"))),
        "subprocess.run": (2, repeat(lambda: subprocess.run(["true"], check=False))),
    }
    report(work)
    server.kill()
    server.wait()


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Quick)
    print(server.server_address[1], flush=True)  # noqa: T201 - for who has started it
    server.serve_forever()


def report(work: Mapping[str, tuple[int, Callable[[int], object]]]) -> None:
    print(f"{'work':<28}{'without':>12}{'with':>12}{'added':>12}{'share':>9}")  # noqa: T201 - a report
    for name, (count, run) in work.items():
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * ROUNDS):
            watched = bool(turn % 2)
            undo = install() if watched else lambda: None
            run(count)  # the interpreter gets used to it
            began = time.process_time()
            run(count)
            times[watched].append((time.process_time() - began) / count)
            undo()
        bare, hooked = (min(times[key]) * 1e9 for key in (False, True))
        added = hooked - bare
        print(f"{name:<28}{bare:>9.0f} ns{hooked:>9.0f} ns{added:>9.0f} ns{added / bare:>8.1%}")  # noqa: T201 - a report


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
