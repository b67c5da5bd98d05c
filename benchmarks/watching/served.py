"""The applications whose processor time is measured: Flask under gunicorn, and aiohttp on asyncio.

    python -m benchmarks.watching.served flask|asyncio PORT

with SERVED (plain, watched or library), SERVED_URL (of the remediator) and SERVED_TEXTS (a port) in the
environment.

Each request to ``/analyze/NUMBER`` makes four calls of three services: it fetches a text, counts its words
and answers with the counts as JSON. ``/error/NUMBER`` meets an error besides, and tells it.
"""

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.watching.quiet import Quiet

if TYPE_CHECKING:
    from flask import Flask

T = TypeVar("T")


class Store:
    """Fetches texts from a server, over one connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.file: Any = None
        self.streams: Any = None
        self.lock = threading.Lock()
        self.turn = asyncio.Lock()

    def get(self, number: int) -> str:
        """Return one."""
        with self.lock:
            if self.file is None:
                self.file = socket.create_connection(("127.0.0.1", self.port)).makefile("rwb")
            self.file.write(b"%d\n" % number)
            self.file.flush()
            line: bytes = self.file.readline()
        return line.decode()

    async def get_later(self, number: int) -> str:
        """Return one."""
        async with self.turn:
            if self.streams is None:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.streams
            writer.write(b"%d\n" % number)
            line: bytes = await reader.readline()
        return line.decode()


class Scorer:
    """Counts words."""

    def words(self, text: str) -> dict[str, int]:
        """Count them."""
        return Counter(text.lower().split())

    def score(self, words: dict[str, int]) -> float:
        """Return the mean."""
        return sum(words.values()) / len(words)


class Analyzer:
    """Answers requests."""

    def __init__(self, store: Store, scorer: Scorer) -> None:
        self.store = store
        self.scorer = scorer

    def analyze(self, number: int) -> str:
        """Return the counts of a text as JSON."""
        words = self.scorer.words(self.store.get(number))
        return json.dumps({"score": self.scorer.score(words), "words": words})

    async def analyze_later(self, number: int) -> str:
        """Do the same."""
        words = self.scorer.words(await self.store.get_later(number))
        return json.dumps({"score": self.scorer.score(words), "words": words})


def analyzer() -> Analyzer:
    """Return it as ``SERVED`` says: plain, with calls counted only, or with the whole library."""
    store, scorer = _watched("store", Store(int(os.environ["SERVED_TEXTS"]))), _watched("scorer", Scorer())
    return _watched("analyzer", Analyzer(store, scorer))


def _watched(name: str, obj: T) -> T:
    how = os.environ["SERVED"]
    if how == "watched":
        from soulfra_monitor.watching import watch  # noqa: PLC0415 - the plain one goes without

        return watch(obj, name, Quiet())
    if how == "library":
        watched: T = _monitor().add_service(name, obj)
        return watched
    return obj


def _monitor() -> Any:
    from soulfra_monitor import ErrorMonitor  # noqa: PLC0415

    if not _started:
        _started.append(ErrorMonitor(service="bench", url=os.environ["SERVED_URL"]).start())
    return _started[0]


_started: list[Any] = []


def meet(number: int) -> str:
    """Meet an error of one of many kinds, and tell it. Returns nothing to say of it."""
    kind = TROUBLES[number % len(TROUBLES)]
    try:
        raise kind(f"request {number}")
    except RuntimeError as error:
        _monitor().report(error)
    return ""


def stats() -> str:
    """Return the library's books as JSON, and the number of this process."""
    return json.dumps({**asdict(_monitor().stats()), "pid": os.getpid()})


TROUBLES = tuple(type(f"Trouble{number}", (RuntimeError,), {}) for number in range(61))


def flask_app() -> "Flask":
    """Return the application for gunicorn."""
    from flask import Flask  # noqa: PLC0415

    app = Flask(__name__)
    service = analyzer()
    app.add_url_rule("/analyze/<int:number>", "analyze", service.analyze)
    app.add_url_rule("/error/<int:number>", "error", lambda number: meet(number) + service.analyze(number))
    app.add_url_rule("/cpu", "cpu", lambda: str(time.process_time()))
    app.add_url_rule("/stats", "stats", stats)
    return app


def _serve_flask(port: int) -> None:
    command = ["-m", "gunicorn", "--workers=1", "--threads=4", "--keep-alive=30", f"--bind=127.0.0.1:{port}"]
    os.execv(sys.executable, [sys.executable, *command, "benchmarks.watching.served:flask_app()"])


def _serve_asyncio(port: int) -> None:
    from aiohttp import web  # noqa: PLC0415

    service = analyzer()

    async def analyze(request: web.Request) -> web.Response:
        return web.Response(text=await service.analyze_later(int(request.match_info["number"])))

    async def error(request: web.Request) -> web.Response:
        meet(int(request.match_info["number"]))
        return await analyze(request)

    async def cpu(_: web.Request) -> web.Response:
        return web.Response(text=str(time.process_time()))

    async def look(_: web.Request) -> web.Response:
        return web.Response(text=stats())

    app = web.Application()
    app.add_routes([web.get("/analyze/{number}", analyze), web.get("/error/{number}", error)])
    app.add_routes([web.get("/cpu", cpu), web.get("/stats", look)])
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    {"flask": _serve_flask, "asyncio": _serve_asyncio}[sys.argv[1]](int(sys.argv[2]))
