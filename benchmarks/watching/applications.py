"""Processor time of a request to an application without and with the library, in interleaved rounds."""

import http.client
import os
import random
import socketserver
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.harness import ROOT, free_ports, wait_until

KINDS = ("flask", "asyncio")
MODES = ("plain", "watched", "library")
CLIENTS = 4


@dataclass
class Served:
    """One application that runs."""

    port: int
    microseconds: list[float] = field(default_factory=list)  # of processor time per request, one each round

    def round(self, requests: int) -> None:
        """Let some clients ask at once, and take the processor time."""
        before = self._cpu()
        clients = [
            threading.Thread(target=self._ask, args=(range(first, requests, CLIENTS),))
            for first in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        self.microseconds.append((self._cpu() - before) / requests * 1e6)

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        return self._cpu() > 0

    def ask(self, path: str) -> bytes:
        """Return the answer to one request."""
        return self.get(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30), path)

    def _cpu(self) -> float:
        return float(self.ask("/cpu"))

    def _ask(self, numbers: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        for number in numbers:
            self.get(connection, f"/analyze/{number}")
        connection.close()

    @staticmethod
    def get(connection: http.client.HTTPConnection, path: str) -> bytes:
        """Return the answer to one request of several over a connection. Raises RuntimeError if it failed."""
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path}: {response.status}")
        return body


class Sink(BaseHTTPRequestHandler):
    """Stands in for the remediator: takes every batch."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.took(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.send_response(202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def took(self, body: bytes) -> None:
        """Look at a batch before it is answered."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Texts(socketserver.StreamRequestHandler):
    """Gives a text for each line."""

    text = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(self.text.encode() + line)


def measure(kind: str, launches: int, rounds: int, requests: int) -> dict[str, list[float]]:
    """Return by mode the processor time of a request in microseconds, one value per round.

    In each launch the application is served in all modes beside each other, and asked in turn: two processes
    of the same program differ by some per cent for as long as they live. All of it runs on one processor,
    which is then never idle: to wake one that sleeps costs who answers more than the library does, or not,
    as it happens.
    """
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    with _on_one_processor():
        for _ in range(launches):
            for mode, served in _launch(kind, rounds, requests).items():
                found[mode] += served.microseconds
    return found


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts, on one processor, where that can be."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _launch(kind: str, rounds: int, requests: int) -> dict[str, Served]:
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{stack.enter_context(_listening(ThreadingHTTPServer, Sink))}"
        environment = {"SERVED_URL": url, "SERVED_TEXTS": str(stack.enter_context(texts()))}
        ports = free_ports(len(MODES))
        served = {
            mode: stack.enter_context(serving(kind, mode, port, environment))
            for mode, port in zip(MODES, ports, strict=True)
        }
        for each in served.values():
            each.round(requests)
            each.microseconds.clear()
        shuffled = random.Random(0)
        for _ in range(rounds):
            for mode in shuffled.sample(MODES, len(MODES)):
                served[mode].round(requests)
    return served


def more(plain: list[float], other: list[float]) -> tuple[float, float, float]:
    """Return how much more the other needs, as quartiles over the rounds: 0.01 is one per cent."""
    ratios = [there / here - 1 for here, there in zip(plain, other, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return low, median, high


def texts() -> AbstractContextManager[int]:
    """Serve texts to applications; give the port."""
    return _listening(socketserver.ThreadingTCPServer, _Texts)


@contextmanager
def _listening(
    kind: type[socketserver.ThreadingTCPServer | ThreadingHTTPServer],
    handler: type[socketserver.BaseRequestHandler],
) -> Iterator[int]:
    server = kind(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(kind: str, mode: str, port: int, environment: Mapping[str, str]) -> Iterator[Served]:
    """Run an application until it is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.watching.served", kind, str(port)],
        cwd=ROOT,
        env={**os.environ, **environment, "SERVED": mode, "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    served = Served(port)

    def look() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{kind} {mode} ended: {process.stderr and process.stderr.read().decode()}")
        try:
            return served.is_ready()
        except ConnectionError:
            return False

    try:
        wait_until(f"{kind} {mode} answers", look, 30)
        yield served
    finally:
        process.terminate()
        process.communicate(timeout=30)
