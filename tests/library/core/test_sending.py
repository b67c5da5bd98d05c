"""Remediators that are slow, refuse, hang, lie or are away: nothing is lost, nothing told twice."""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soulfra_monitor import ErrorMonitor
from soulfra_monitor.dispatch import UNKNOWN_BEAT
from soulfra_monitor.sender import Backoff, Sender, _retry_after
from tests.library.core.conftest import Recorder, answer, hang_up, is_exact, serve

Start = Callable[..., ErrorMonitor]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon: the tests wait for it."""
    monkeypatch.setattr("soulfra_monitor.sender.BACKOFF_FIRST", 0.05)
    monkeypatch.setattr("soulfra_monitor.worker.LINGER_AWAY", 0.05)


def test_one_connection_serves_all_requests(recorder: Recorder, start: Start) -> None:
    monitor = start()

    for number in range(5):
        monitor.report(f"error {'abcde'[number]}")
        assert monitor.flush()

    assert len({request.client for request in recorder.requests}) == 1


def test_a_large_body_is_packed(recorder: Recorder, start: Start) -> None:
    monitor = start()

    monitor.report("x" * 900, more="y" * 1500)
    assert monitor.flush()

    assert recorder.requests[0].headers["Content-Encoding"] == "gzip"
    assert recorder.events[0].message == "x" * 900


def test_a_kept_connection_that_was_closed_costs_no_failure(recorder: Recorder, start: Start) -> None:
    monitor = start()
    monitor.report("first")
    assert monitor.flush()

    recorder.misbehave.append(hang_up)
    monitor.report("second")
    assert monitor.flush()

    assert [event.message for event in recorder.events] == ["first", "second"]
    assert monitor.stats().failures == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429, 302, 401, 403, 404, 405, 410])
def test_what_may_pass_is_tried_again_with_the_same_number(
    recorder: Recorder, start: Start, status: int
) -> None:
    monitor = start()
    recorder.misbehave.append(lambda handler: answer(handler, status))

    monitor.report("x")
    recorder.wait(lambda it: it.events)

    assert [request.body["seq"] for request in recorder.requests] == [1, 1]
    assert monitor.flush()
    stats = monitor.stats()
    assert (stats.sent, stats.failures, stats.pending) == (1, 1, 0)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(recorder: Recorder, start: Start, status: int) -> None:
    monitor = start()
    recorder.misbehave.append(lambda handler: answer(handler, status, Retry_After="1"))

    began = time.monotonic()
    monitor.report("x")
    recorder.wait(lambda it: it.events)

    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_is_refused_is_dropped_and_counted(recorder: Recorder, start: Start, status: int) -> None:
    monitor = start()
    recorder.misbehave.append(lambda handler: answer(handler, status))

    monitor.report("bad")
    monitor.flush()
    monitor.report("good")
    monitor.flush()

    assert [event.message for event in recorder.events] == ["good"]
    stats = monitor.stats()
    assert stats.dropped == {"refused": 1}
    assert (stats.refused, stats.sent) == (1, 1)
    assert recorder.taken[0]["dropped"] == {"refused": 1}
    assert is_exact(monitor)


MENDS = {
    401: "the token is wrong or missing: set SOULFRA_TOKEN",
    403: "the token may not send events: it needs the role ingest",
    404: "there is no remediator at this address: check SOULFRA_URL",
}


@pytest.mark.parametrize("status", MENDS)
def test_what_people_can_mend_loses_nothing_and_the_log_says_once_how(
    status: int, recorder: Recorder, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = start()
    recorder.misbehave.append(lambda handler: answer(handler, 503))
    recorder.always = lambda handler: answer(handler, status)

    for letter in "abc":
        monitor.report(f"error {letter}")
        monitor.flush()
    stats = monitor.stats()
    assert (stats.pending, stats.dropped, stats.refused) == (3, {}, 0)
    assert stats.last_failure == MENDS[status]

    recorder.always = None
    assert monitor.flush()
    assert recorder.total == 3
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "errors are kept until they can be sent: status 503",
        f"errors are kept until they can be sent: {MENDS[status]}",
    ]


def test_what_a_dead_process_left_waits_for_the_right_token(
    recorder: Recorder, start: Start, spool: Path
) -> None:
    recorder.always = lambda handler: answer(handler, 401)
    first = start()
    first.report("x")
    first.stop()
    assert list(spool.rglob("*.seg"))

    second = start()
    assert not second.flush() or not recorder.taken
    recorder.wait(lambda it: len(it.requests) >= 2)
    second.stop()
    assert list(spool.rglob("*.seg"))

    recorder.always = None
    start()
    recorder.wait(lambda it: it.total == 1)


def test_a_sign_of_life_that_nobody_knows_does_not_keep_errors_back(
    recorder: Recorder, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = start()
    recorder.misbehave.append(lambda handler: answer(handler, 404))

    monitor.heartbeat("job").beat()
    assert monitor.flush()
    monitor.report("x")
    assert monitor.flush()

    (record,) = caplog.records
    assert record.getMessage() == f"the remediator refused what was sent: {UNKNOWN_BEAT}"


def test_what_people_have_to_mend_is_tried_again_less_often() -> None:
    backoff = Backoff(random.Random(1))

    pauses = [backoff.pause(long=True) for _ in range(20)]

    assert pauses[0] >= 0.25
    assert max(pauses[12:]) > 200.0
    assert all(pause <= 300.0 for pause in pauses)
    backoff.reset()
    assert backoff.pause() <= 0.5


def test_a_batch_whose_answer_was_lost_counts_once(recorder: Recorder, start: Start) -> None:
    monitor = start()
    recorder.take_before_misbehaving = True
    recorder.misbehave.extend([hang_up, hang_up])

    monitor.report("x")
    recorder.wait(lambda it: len(it.requests) == 3)
    assert monitor.flush()

    assert recorder.total == 1
    assert monitor.stats().sent == 1


def raw(text: bytes) -> Callable[..., bool]:
    def act(handler: object) -> bool:
        handler.wfile.write(text)  # type: ignore[attr-defined]
        return hang_up(handler)  # type: ignore[arg-type]

    return act


@pytest.mark.parametrize(
    "lie",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        raw(b"\x00\xff\xfe" * 100),
        raw(b"HTTP/1.1 999999 What\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ],
)
def test_what_is_no_answer_of_a_remediator_is_none(
    recorder: Recorder, start: Start, lie: Callable[..., bool]
) -> None:
    monitor = start()
    recorder.misbehave.append(lie)

    monitor.report("x")
    recorder.wait(lambda it: it.events)

    assert monitor.flush()
    assert (recorder.total, monitor.stats().sent) == (1, 1)
    assert monitor.stats().broken == {}


def test_an_answer_without_end_is_not_read_to_its_end(recorder: Recorder, start: Start) -> None:
    def drown(handler: object) -> bool:
        handler.wfile.write(b"HTTP/1.1 202 OK\r\n\r\n")  # type: ignore[attr-defined]
        try:
            while True:
                handler.wfile.write(b"x" * 65_536)  # type: ignore[attr-defined]
        except OSError:
            return hang_up(handler)  # type: ignore[arg-type]

    monitor = start()
    recorder.misbehave.append(drown)

    monitor.report("x")
    assert monitor.flush(5)

    assert monitor.stats().sent == 1


@contextmanager
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """Take connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        server.shutdown(socket.SHUT_RDWR)
        for one in taken:
            one.close()


def test_a_remediator_that_hangs_is_given_up_after_the_timeout(start: Start) -> None:
    with silent_server() as (url, taken):
        monitor = start(url=url, timeout=0.2)
        monitor.report("x")
        deadline = time.monotonic() + 10
        while not monitor.stats().failures:
            assert time.monotonic() < deadline
            time.sleep(0.01)

        assert taken
        assert "TimeoutError" in monitor.stats().last_failure
        assert monitor.stats().spooled == 1
        assert is_exact(monitor)


def test_stopping_while_the_remediator_hangs_is_bounded_and_loses_nothing(
    recorder: Recorder, start: Start, spool: Path
) -> None:
    with silent_server() as (url, _):
        monitor = start(url=url, exit_timeout=1.0)
        monitor.report("x")
        monitor.report("y")
        began = time.monotonic()
        monitor.stop()

        assert time.monotonic() - began < 1.5
        assert monitor.stats().spooled == 2
        assert len(list(spool.rglob("*.seg"))) >= 1

    start()  # another life
    recorder.wait(lambda it: it.total == 2)


def test_while_the_remediator_is_away_no_one_waits_and_nothing_is_lost(
    recorder: Recorder, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's calls touch neither sockets nor files: told by who called, not by clocks."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    monitor = start(url=f"http://127.0.0.1:{port}")
    host = threading.get_ident()
    waits: list[str] = []
    for module, name in (
        ("time", "sleep"),
        ("socket", "create_connection"),
        ("os", "fsync"),
        ("os", "replace"),
    ):
        original = getattr(__import__(module), name)

        def spy(
            *args: object, original: Callable[..., object] = original, name: str = name, **more: object
        ) -> object:
            if threading.get_ident() == host:
                waits.append(name)
            return original(*args, **more)

        monkeypatch.setattr(f"{module}.{name}", spy)

    for round_ in range(200):
        monitor.report(f"error {'abcdefghij'[round_ % 10]}")
    assert waits == []
    assert not monitor.flush()

    assert monitor.stats().pending == 200
    server = serve(recorder, port)
    try:
        recorder.wait(lambda it: it.total == 200)
    finally:
        server.shutdown()
        server.server_close()
    seqs = [body["seq"] for body in recorder.taken]
    assert seqs == sorted(set(seqs))
    assert is_exact(monitor)


def test_a_thread_that_waits_for_the_remediator_does_nothing_meanwhile(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulfra_monitor.worker.IDLE", 0.01)
    monitor = start(url="http://127.0.0.1:1")
    turns: list[float] = []
    turn = monitor._life.worker.turn

    def count() -> None:
        turns.append(time.monotonic())
        turn()

    monkeypatch.setattr(monitor._life.worker, "turn", count)
    monitor.report("x")
    deadline = time.monotonic() + 20
    while monitor.stats().failures < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert len(turns) < 15


def test_calls_and_declared_values_wait_for_the_remediator_without_a_queue(
    recorder: Recorder, start: Start
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    monitor = start(url=f"http://127.0.0.1:{port}", interval=0.05)
    orders = monitor.counter("orders")
    monitor.report("x")
    for _ in range(100):
        orders.inc()
    deadline = time.monotonic() + 10
    while monitor.stats().failures < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    server = serve(recorder, port)
    try:
        recorder.wait(
            lambda it: sum(one["value"] for body in it.taken for one in body.get("declared", ())) == 100
        )
    finally:
        server.shutdown()
        server.server_close()
    assert len(recorder.taken) <= 4


def test_pauses_grow_to_half_a_minute_and_differ() -> None:
    backoff = Backoff(random.Random(1))

    pauses = [backoff.pause() for _ in range(20)]

    assert all(0.025 <= pause <= 30.0 for pause in pauses)
    assert max(pauses[12:]) > 20.0
    assert len(set(pauses)) == 20
    backoff.reset()
    assert backoff.pause() <= 0.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("", None), ("7", 7.0), ("99999", 300.0), ("soon", None), ("-5", None), ("\u00b2", None)],
)
def test_retry_after_is_read_or_left_alone(text: str | None, seconds: float | None) -> None:
    assert _retry_after(text) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert _retry_after("Wed, 21 Oct 2115 07:28:00 GMT") == 300.0


def test_a_path_in_the_address_is_kept(recorder: Recorder) -> None:
    sender = Sender(f"{recorder.url}/base", "", 5.0, "x")

    sender.post("/api/monitoring/heartbeats/a", b"{}")
    sender.close()

    assert recorder.requests[0].path == "/base/api/monitoring/heartbeats/a"
