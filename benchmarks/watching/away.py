"""The remediator away for long: what a host with the library notices of it, and what becomes of its errors.

An application under steady load, of which every eighth request meets an error and tells it. The remediator is
there, then away in each way there is, then back. Beside it the same application is under the same load, whose
remediator is there all the time: what the machine does meanwhile happens to both.
"""

import gzip
import http.client
import json
import math
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import free_ports, wait_until
from benchmarks.watching import applications

RATE = 40
"""Requests a second: a fraction of what the application can do, so that nobody stands in line."""

ERRORS_EVERY = 8
CLIENTS = 2
THERE_AT_MOST = 60.0
"""Seconds for which the remediator is there before, between and after; if it is away for less, as long."""

DRAINED_WITHIN = 120.0
"""Seconds for what was kept to arrive: the library looks for the remediator every half minute at least."""


class Remediator:
    """Stands in for the remediator at one address: takes batches, is not there, or never answers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.errors = 0  # that have arrived
        self.batches: set[tuple[str, int]] = set()
        self._arrivals: list[tuple[float, int]] = []

    def take(self, batch: dict[str, Any]) -> None:
        """Note a batch, once however often it comes."""
        key = batch["sender"]["boot"], batch["seq"]
        if key not in self.batches:
            self.batches.add(key)
            self.errors += sum(event.get("count", 1) for event in batch.get("events", ()))
            self._arrivals.append((time.monotonic(), self.errors))

    def had(self, errors: int) -> float:
        """Return when so many errors had arrived; infinity if they have not."""
        return next((at for at, arrived in self._arrivals if arrived >= errors), math.inf)

    @contextmanager
    def there(self) -> Iterator[None]:
        """Listen, and take what comes."""
        server = _Server(self)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            server.hang_up()

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Let nobody listen: the system refuses connections."""
        yield

    @contextmanager
    def hole(self) -> Iterator[None]:
        """Let connections be made, and never answer. Nobody takes them: the system keeps them in line."""
        with socket.create_server(("127.0.0.1", self.port), backlog=1000):
            yield


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that it can be gone at once."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, remediator: Remediator) -> None:
        self.remediator = remediator
        self._open: list[socket.socket] = []
        super().__init__(("127.0.0.1", remediator.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        """End all connections."""
        for connection in self._open:
            with suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(applications.Sink):
    server: _Server

    def took(self, body: bytes) -> None:
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.remediator.take(json.loads(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What was seen while the remediator was there, or away in one way."""

    name: str
    seconds: float
    requests: int
    median: float  # milliseconds, from when a request was due to its answer
    p99: float
    longest: float
    beside: tuple[float, float, float]  # the same three of the application whose remediator is there
    memory: float  # megabytes (PSS) of the application at the end
    kept: int  # errors that waited for the remediator at the end
    spool: int  # bytes on disk at the end


def measure(kind: str, seconds: float) -> dict[str, Any]:
    """Have the remediator away for so many *seconds* in each way, and return what was seen."""
    there = min(seconds, THERE_AT_MOST)
    port, address, other_port, other_address = free_ports(4)
    remediator, other = Remediator(address), Remediator(other_address)
    phases: list[Phase] = []
    drained: dict[str, float] = {}
    with ExitStack() as stack:
        spool = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="away-")))
        texts = str(stack.enter_context(applications.texts()))

        def serve(port: int, address: int, spool: Path) -> _Host:
            environment = {
                "SERVED_URL": f"http://127.0.0.1:{address}",
                "SERVED_TEXTS": texts,
                "SOULFRA_SPOOL": str(spool),
            }
            served = stack.enter_context(applications.serving(kind, "library", port, environment))
            return _Host(served, spool)

        stack.enter_context(other.there())
        host = serve(port, address, spool / "host")
        beside = serve(other_port, other_address, spool / "beside")
        with remediator.there():
            for each in (host, beside):
                each.load(min(there, 5.0))  # what is loaded and learned at first
            phases.append(host.phase("there", there, beside))
        for name, away in (("refused", remediator.refused), ("black hole", remediator.hole)):
            with away():
                phases.append(host.phase(name, seconds, beside))
                seen = host.seen()
            with remediator.there():
                began = time.monotonic()
                phases.append(host.phase("back", there, beside))
                wait_until("all has arrived", host.has_nothing_left, DRAINED_WITHIN)
            drained[name] = remediator.had(seen) - began
        stats = host.stats()
    return {
        "kind": kind,
        "phases": [asdict(phase) for phase in phases],
        "seen": stats["seen"],
        "dropped": stats["dropped"],
        "arrived": remediator.errors,
        "batches": len(remediator.batches),
        "drained": drained,
        "broken": stats["broken"],
    }


class _Host:
    """The application, asked and looked at."""

    def __init__(self, served: applications.Served, spool: Path) -> None:
        self._served = served
        self._spool = spool
        self._number = 0

    def stats(self) -> dict[str, Any]:
        """Return the library's books, and the number of the process."""
        found: dict[str, Any] = json.loads(self._served.ask("/stats"))
        return found

    def seen(self) -> int:
        """Return how many errors there were, without those that were given up."""
        stats = self.stats()
        given_up = sum(map(int, stats["dropped"].values()))
        return int(stats["seen"]) - given_up

    def has_nothing_left(self) -> bool:
        """Whether all errors have been sent or given up."""
        return int(self.stats()["pending"]) == 0

    def phase(self, name: str, seconds: float, beside: "_Host") -> Phase:
        """Load the application and the one beside for so long, then look at it."""
        with ThreadPoolExecutor(1) as pool:
            theirs = pool.submit(beside.load, seconds)
            latencies = self.load(seconds)
        stats = self.stats()
        median, p99, longest = _summary(latencies)
        return Phase(
            name=name,
            seconds=seconds,
            requests=len(latencies),
            median=median,
            p99=p99,
            longest=longest,
            beside=_summary(theirs.result()),
            memory=psutil.Process(stats["pid"]).memory_full_info().pss / 1e6,
            kept=stats["pending"],
            spool=sum(file.stat().st_size for file in self._spool.rglob("*") if file.is_file()),
        )

    def load(self, seconds: float) -> list[float]:
        """Ask at a steady rate, however long answers take; return the latencies."""
        first, count = self._number, int(RATE * seconds)
        self._number += count
        begin = time.monotonic()

        def ask(numbers: range) -> list[float]:
            connection = http.client.HTTPConnection("127.0.0.1", self._served.port, timeout=30)
            latencies: list[float] = []
            for number in numbers:
                due = begin + (number - first) / RATE
                time.sleep(max(0.0, due - time.monotonic()))
                what = "error" if number % ERRORS_EVERY == 0 else "analyze"
                self._served.get(connection, f"/{what}/{number}")
                latencies.append(time.monotonic() - due)
            connection.close()
            return latencies

        turns = [range(first + place, first + count, CLIENTS) for place in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            return [latency for latencies in pool.map(ask, turns) for latency in latencies]


def _summary(latencies: list[float]) -> tuple[float, float, float]:
    """Return median, p99 and the longest, in milliseconds."""
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return cuts[49] * 1e3, cuts[98] * 1e3, max(latencies) * 1e3
