"""The remediator's own port: whole requests go to threads, and no thread ever waits for a peer.

    python -m remediator.serving CONFIG DATA HOST:PORT THREADS

Started by ``remediator.server.serve``, which has checked the arguments. Waitress reads and writes for all in
one loop; what is added here is who has to go: whoever is too slow, and one for each that comes when there are
too many (docs/decisions/0015-slow-peers.md).
"""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask

if TYPE_CHECKING:
    from flask import Flask

    from remediator.engine import Engine

HEAD_WITHIN = 10.0
"""Seconds to the end of a request's head: from connecting, or on a kept connection from its first byte."""

WHOLE_WITHIN = 60.0
"""Seconds from a request's first byte to its last, and from an answer's first byte to its last."""

SILENCE = 5.0
"""Seconds between two pieces of a body."""

KEPT = 30.0
"""Seconds between two requests on one connection."""

CONNECTIONS = 256
CONNECTIONS_OF_ONE = 128
"""At once from one address of another machine."""

UNFINISHED = 128 * 2**20
"""Bytes that may be held of all requests that are not whole yet."""

IN_MEMORY = 128 * 2**10
"""Bytes of a body that are held in memory; a longer one goes to a temporary file."""

_PIECE = 8 * 2**10
_HEAD_LIMIT = 64 * 2**10
_BACKLOG = 1024
_LEAVE_WITHIN = 5.0  # seconds that what is at work gets at the end; the next life adopts the rest
_COMPLAIN_EVERY = 60.0
_PAUSE = 0.1
_THIS_MACHINE = ("127.0.0.1", "::1")
_FAILED = 1  # exit status
_IN_TERMINAL = sys.stderr.isatty()  # asked now: one that has hung up is none any more

log = logging.getLogger(__name__)


class Refusal(ErrorTask):  # type: ignore[misc] # waitress has no types
    """The answer to what is no HTTP or is too large, as JSON like all others."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps({"error": f"{error.reason}: {error.body}"}).encode() + b"\n"
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Peer(HTTPChannel):  # type: ignore[misc] # as above
    """One connection, and how long it has kept us waiting."""

    error_task_class = Refusal
    server: "Server"

    def __init__(self, *args: Any, **named: Any) -> None:
        self._since = self._heard = time.monotonic()  # what it is waited for, and its last piece
        self._served = False
        super().__init__(*args, **named)
        self.server.make_room(self)

    @property
    def host(self) -> str:
        """The address that it connects from."""
        return str(self.addr[0]) if self.addr else ""

    @property
    def held(self) -> int:
        """Bytes that are held of a request that is not whole yet."""
        unfinished = self.request
        if unfinished is None or self.will_close:
            return 0
        return int(unfinished.header_bytes_received + unfinished.body_bytes_received)

    @property
    def is_waited_for(self) -> bool:
        """Whether it is its turn to send or to take something, and not ours to answer."""
        return not self.requests and not self.will_close

    @property
    def worth(self) -> tuple[bool, float]:
        """The less, the sooner it goes for others: those first that have said nothing whole."""
        return self._served and self.request is None, self._since

    def received(self, data: bytes) -> bool:
        """Take a piece of a request; hand the request on when it is whole."""
        self._heard = time.monotonic()
        if self.request is None and not self.requests:
            self._since = self._heard
        taken = bool(super().received(data))
        if self.held > IN_MEMORY:
            self.server.bound_unfinished()
        return taken

    def service(self) -> None:
        """Answer a request, in a thread; that takes as long as it takes."""
        self._since = inf
        super().service()
        self._served = True
        self._since = time.monotonic()

    def is_late(self, now: float) -> bool:
        """Whether it has had its time for what it does."""
        if not self.is_waited_for:
            return False
        waited = now - self._since
        if self.total_outbufs_len:
            return waited > WHOLE_WITHIN
        if self.request is None:
            return waited > (KEPT if self._served else HEAD_WITHIN)
        if self.request.headers_finished:
            return waited > WHOLE_WITHIN or now - self._heard > SILENCE
        return waited > HEAD_WITHIN

    def hang_up(self) -> None:
        """Have the loop close it at its next turn."""
        self.will_close = True

    def handle_error(self) -> None:
        """Note a fault of ours with it, such as a disk that takes no body, and hang up."""
        self.server.on_fault()
        log.error("the connection of %s is closed: we failed", self.host, exc_info=sys.exc_info())
        self.handle_close()


class Server(TcpWSGIServer):  # type: ignore[misc] # as above
    """Listens, reads and writes for all, and lets nobody stand in the way of the others."""

    channel_class = Peer
    active_channels: dict[int, Peer]
    on_fault: Callable[[], None]
    _silent_until = 0.0

    def accept(self) -> tuple[socket.socket, Any] | None:
        """Accept a connection. Where the system has no file left for it, somebody else's is taken."""
        try:
            accepted: tuple[socket.socket, Any] | None = super().accept()
        except OSError as error:
            self.on_fault()
            now = time.monotonic()
            if now > self._silent_until:
                self._silent_until = now + _COMPLAIN_EVERY
                log.error("a connection cannot be accepted: %s", error.strerror)  # noqa: TRY400 - it says all
            if not self._give_up_one():
                time.sleep(_PAUSE)
            return None
        return accepted

    def handle_error(self) -> None:
        """Note a fault of ours, and go on listening."""
        self.on_fault()
        log.error("a connection was not taken: we failed", exc_info=sys.exc_info())

    def maintenance(self, _now: float) -> None:
        """Hang up on those who are late. The loop calls this about every second."""
        now = time.monotonic()
        for peer in self._peers():
            if peer.is_late(now):
                peer.hang_up()

    def make_room(self, newcomer: Peer) -> None:
        """Hang up on one if there are too many with *newcomer*, those first who have said nothing whole."""
        peers = self._peers()
        of_one = sum(peer.host == newcomer.host for peer in peers)
        too_many = of_one > CONNECTIONS_OF_ONE and newcomer.host not in _THIS_MACHINE
        if too_many or (len(peers) > CONNECTIONS and not self._give_up_one(but=newcomer)):
            newcomer.hang_up()

    def _give_up_one(self, but: Peer | None = None) -> bool:
        """Hang up on the one that is worth least; False when all of them wait for us."""
        peers = [peer for peer in self._peers() if peer.is_waited_for and peer is not but]
        if peers:
            min(peers, key=lambda peer: peer.worth).hang_up()
        return bool(peers)

    def bound_unfinished(self) -> None:
        """Hang up on the one of whom most is held, if too much is held of all."""
        peers = self._peers()
        if sum(peer.held for peer in peers) > UNFINISHED:
            max(peers, key=lambda peer: peer.held).hang_up()

    def _peers(self) -> list[Peer]:
        return [peer for peer in self.active_channels.values() if not peer.will_close]


def listen(address: str) -> socket.socket:
    """Listen at *address*, HOST:PORT. Raises OSError."""
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(place)
    listener.listen(_BACKLOG)
    return listener


def serve_on(listener: socket.socket, app: "Flask", threads: int, on_fault: Callable[[], None]) -> Server:
    """Return what serves *app* on *listener* once it is ``run``, until SystemExit is raised in it.

    *on_fault* is told of each failure of ours to serve somebody.
    """
    logging.getLogger("waitress.queue").setLevel(
        logging.ERROR
    )  # it tells of every request that waits a moment
    adjustments = Adjustments(
        sockets=[listener],
        threads=threads,
        ident=None,
        backlog=_BACKLOG,
        recv_bytes=_PIECE,  # no more: each short request in it becomes an object before any is served
        inbuf_overflow=IN_MEMORY,
        outbuf_high_watermark=2**31,  # a thread never waits until somebody has taken its answer
        max_request_header_size=_HEAD_LIMIT,
        max_request_body_size=app.config["MAX_CONTENT_LENGTH"] + 1,
        connection_limit=4 * CONNECTIONS,  # never reached: one goes for each that comes
        cleanup_interval=1,
        asyncore_use_poll=True,
        log_socket_errors=False,
    )
    place = (listener.family, listener.type, listener.proto, listener.getsockname())
    server = Server(app, _sock=listener, adj=adjustments, bind_socket=False, sockinfo=place)
    server.on_fault = on_fault
    return server


def main(config: Path, data: Path, address: str, threads: int) -> None:
    """Listen, build and start everything, and serve until a signal says so; after SIGHUP begin anew."""
    asked = _on_signals(config)
    try:
        listener = listen(address)
    except OSError as error:
        raise SystemExit(f"cannot listen on {address}: {error.strerror}") from error
    app, engine = _begun(config, data)
    errors = app.extensions["surroundings"].tools.metrics.internal_errors
    try:
        serve_on(listener, app, threads, lambda: errors.labels("web").inc()).run()
    finally:
        listener.close()
        # A thread that does not end, such as one on a dead disk, must not keep the process.
        threading.Thread(target=_end_in_time, daemon=True).start()
        engine.stop(_LEAVE_WITHIN)
    if asked[-1:] == [signal.SIGHUP] and not _IN_TERMINAL:
        log.warning("beginning anew, with the configuration of now, as SIGHUP asks for")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


def _on_signals(config: Path) -> list[int]:
    """Have the signals that ask us to end raise SystemExit, and return the list that they are noted in.

    SIGHUP does so only while *config* could be begun with.
    """
    asked: list[int] = []

    def leave(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not _IN_TERMINAL and not _is_usable(config):
            return
        asked.append(number)
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # else under nohup
            signal.signal(number, leave)
    return asked


def _is_usable(config: Path) -> bool:
    from exporter.document import ConfigError  # noqa: PLC0415 - after the address is taken
    from remediator.config import load  # noqa: PLC0415 - as above

    try:
        load(config)
    except ConfigError as error:
        log.error("SIGHUP changes nothing: %s", error)  # noqa: TRY400 - it says all
        return False
    return True


def _begun(config: Path, data: Path) -> "tuple[Flask, Engine]":
    from exporter.document import ConfigError  # noqa: PLC0415 - after the address is taken
    from remediator.server import StartError, begin  # noqa: PLC0415 - as above
    from remediator.store import StoreError  # noqa: PLC0415 - as above

    try:
        return begin(config, data)
    except (StartError, ConfigError, StoreError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_FAILED) from error


def _end_in_time() -> NoReturn:
    time.sleep(2 * _LEAVE_WITHIN)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
