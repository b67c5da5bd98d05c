"""What the programs of the corpus talk to: a server that answers, ones that do not, and a Redis."""

import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from benchmarks.harness import free_ports, wait_until


@contextmanager
def running(command: list[str], log: IO[bytes]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program for the time of the block."""
    child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def ports(folder: Path) -> Iterator[Mapping[str, str]]:
    """Serve all peers; yields the environment that tells the programs where they are."""
    redis, nobody = free_ports(2)
    with ExitStack() as stack:
        fine = stack.enter_context(_answering(200))
        fails = stack.enter_context(_answering(500))
        hangs = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        drops = stack.enter_context(_dropping())
        log = stack.enter_context((folder / "redis.log").open("wb"))
        stack.enter_context(running(["redis-server", "--port", str(redis), "--save", ""], log))
        wait_until("redis", lambda: _listens(redis), 30)
        found = {
            "FINE": fine,
            "FAILS": fails,
            "HANGS": hangs,
            "DROPS": drops,
            "REDIS": redis,
            "NOBODY": nobody,
        }
        yield {f"PORT_{name}": str(port) for name, port in found.items()}


@contextmanager
def _answering(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _dropping() -> Iterator[int]:
    """Take connections and reset each as soon as something comes in."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
