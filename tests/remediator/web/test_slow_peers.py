"""The remediator's port, in a process of its own, while others take their time on it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from remediator.calls import Answer, CallError, call
from remediator.serving import CONNECTIONS, HEAD_WITHIN, SILENCE

SLOW = 50
ALERT: dict[str, Any] = {
    "version": "4",
    "groupKey": "{}",
    "status": "firing",
    "receiver": "soulfra",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "SoulfraServiceDown", "target": "shop", "problem": "service_down"},
            "annotations": {},
            "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "fingerprint": "0123456789abcdef",
        }
    ],
}
HALF_A_HEAD = b"POST /api/monitoring/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
HALF_A_BODY = (
    b"POST /api/monitoring/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 5000\r\n\r\n{"alerts": ['
)
HALF_A_CHUNK = (
    b"POST /api/monitoring/alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n1000\r\n["
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A remediator of its own."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def ask(self, method: str, path: str, body: Any = None, timeout: float = 5.0) -> Answer:
        return call(method, f"http://127.0.0.1:{self.port}{path}", timeout=timeout, json_body=body)

    def connect(self, said: bytes = b"") -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        peer.sendall(said)
        return peer


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as nobody:
        port, unused = taken.getsockname()[1], nobody.getsockname()[1]
    file = tmp_path / "soulfra.yml"
    file.write_text(
        json.dumps({"services": {}, "exporter": {"listen": f"127.0.0.1:{unused}"}}), encoding="utf-8"
    )
    command = [sys.executable, "-m", "remediator.cli", "remediator", "--config", str(file)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SOULFRA_ALERTMANAGER": ""},
        )
    found = Running(port=port, process=process, log=log)
    try:
        _wait_until_ready(found)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(running: Running) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(CallError):
            if running.ask("GET", "/healthz").ok:
                return
        assert running.process.poll() is None, running.log.read_text()
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.05)


@contextlib.contextmanager
def slow_peers(running: Running, said: bytes, *, drip: bool) -> Iterator[list[socket.socket]]:
    """Have many peers say a part of a request, and with *drip* a byte more ten times a second."""
    peers = [running.connect(said) for _ in range(SLOW)]
    ended = Event()

    def go_on() -> None:
        while not ended.wait(0.1):
            for peer in peers:
                with contextlib.suppress(OSError):  # hung up on, which is right
                    peer.send(b"1")

    dripping = Thread(target=go_on)
    if drip:
        dripping.start()
    try:
        yield peers
    finally:
        ended.set()
        if drip:
            dripping.join()
        for peer in peers:
            peer.close()


def _seconds(running: Running, method: str, path: str, body: Any = None) -> float:
    began = time.monotonic()
    answer = running.ask(method, path, body)
    assert answer.ok, answer.text(500)
    return time.monotonic() - began


def _answer(peer: socket.socket) -> bytes:
    """Return an answer of JSON on a connection that is kept."""
    answer = b""
    while not answer.endswith(b"}\n"):
        piece = peer.recv(4096)
        assert piece, answer
        answer += piece
    return answer


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "dripping"])
@pytest.mark.parametrize("said", [HALF_A_HEAD, HALF_A_BODY, HALF_A_CHUNK], ids=["head", "body", "chunk"])
def test_alerts_come_through_while_others_take_their_time(running: Running, said: bytes, drip: bool) -> None:
    with slow_peers(running, said, drip=drip):
        took = [
            _seconds(running, *asked)
            for _ in range(5)
            for asked in (("POST", "/api/monitoring/alerts", ALERT), ("GET", "/healthz"))
        ]

    assert max(took) < 1.0


def test_who_does_not_take_the_answer_holds_nobody_up(running: Running) -> None:
    # As many pipelined requests as make more than the system's buffers take.
    asked = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2000
    peers = []
    for _ in range(SLOW):
        peer = running.connect()
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            peer.send(asked)
        peers.append(peer)
    try:
        took = [_seconds(running, "POST", "/api/monitoring/alerts", ALERT) for _ in range(5)]
    finally:
        for peer in peers:
            peer.close()

    assert max(took) < 1.0


@pytest.mark.parametrize(
    ("said", "within", "drip"), [(HALF_A_HEAD, HEAD_WITHIN, True), (HALF_A_BODY, SILENCE, False)]
)
def test_who_is_late_is_hung_up_on(running: Running, said: bytes, within: float, drip: bool) -> None:
    began = time.monotonic()
    with slow_peers(running, said, drip=drip) as peers:
        for peer in peers:
            peer.settimeout(within + 5)
            with contextlib.suppress(ConnectionResetError):  # as it is after what was sent in vain
                assert peer.recv(1) == b""

    assert within - 1 < time.monotonic() - began < within + 4


def test_more_connections_than_there_may_be_keep_nobody_out(running: Running) -> None:
    asked = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    kept = running.connect(asked)
    assert _answer(kept).startswith(b"HTTP/1.1 200 OK")

    idle = [running.connect(HALF_A_HEAD) for _ in range(CONNECTIONS + 50)]
    took = [_seconds(running, "POST", "/api/monitoring/alerts", ALERT) for _ in range(3)]

    kept.sendall(asked)
    assert _answer(kept).startswith(b"HTTP/1.1 200 OK")  # those who have said nothing whole go first
    for peer in [kept, *idle]:
        peer.close()
    assert max(took) < 1.0


def test_a_large_body_in_many_pieces_comes_in_whole(running: Running) -> None:
    alert = ALERT["alerts"][0]
    many = {**ALERT, "alerts": [{**alert, "annotations": {"text": "x" * 1000}}] * 3000}

    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda _: running.ask("POST", "/api/monitoring/alerts", many, timeout=30), range(4))
        )

    assert all(answer.ok for answer in answers)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413),
        ((b"GET / HTTP/1.1\r\nX: " + b"x" * 65536)[:65536], 431),  # not a byte more: nothing is left unread
    ],
)
def test_what_is_no_request_of_ours_is_answered_as_json_without_names(
    running: Running, said: bytes, status: int
) -> None:
    with running.connect(said) as peer:
        answer = b""
        while piece := peer.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")

    assert head.startswith((b"HTTP/1.1 %d " % status, b"HTTP/1.0 %d " % status))
    assert b"waitress" not in answer.lower()
    assert json.loads(body)["error"]


def test_it_ends_at_once_when_it_is_asked_to(running: Running) -> None:
    peer = running.connect(HALF_A_BODY)
    began = time.monotonic()

    running.process.terminate()

    assert running.process.wait(10) == 0
    assert time.monotonic() - began < 4
    peer.close()


def test_it_begins_anew_with_the_configuration_of_now_when_it_is_hung_up_on(
    running: Running, tmp_path: Path
) -> None:
    file = tmp_path / "soulfra.yml"
    watched = {"shop": {"probes": [{"tcp": "127.0.0.1:1"}]}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "services": watched}))

    running.process.send_signal(signal.SIGHUP)
    _wait(running, lambda: "shop" in _services(running))

    assert running.process.poll() is None
    assert "as SIGHUP asks for" in running.log.read_text()


def test_a_hangup_with_a_broken_configuration_changes_nothing(running: Running, tmp_path: Path) -> None:
    (tmp_path / "soulfra.yml").write_text("services: {shop: {probe: []}}")

    running.process.send_signal(signal.SIGHUP)
    _wait(running, lambda: "SIGHUP changes nothing" in running.log.read_text())

    assert "probe" in running.log.read_text()
    assert running.ask("GET", "/healthz").ok


def _wait(running: Running, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.05)


def _services(running: Running) -> str:
    """Return what the health API says, nothing while nobody answers."""
    with contextlib.suppress(CallError):
        return running.ask("GET", "/api/monitoring/health").text(5000)
    return ""


def test_a_second_one_is_told_of_the_first(running: Running, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "remediator.cli",
        "remediator",
        "--config",
        str(tmp_path / "soulfra.yml"),
    ]
    other = subprocess.run(
        [*command, "--data", str(tmp_path / "other"), "--listen", f"127.0.0.1:{running.port}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert other.returncode != 0
    assert (
        other.stderr.splitlines()[-1] == f"cannot listen on 127.0.0.1:{running.port}: Address already in use"
    )
