"""Verification: recovered is said on fresh answers of the exporter alone."""

import json
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from remediator.playbook import Verify
from remediator.run import Outcome
from remediator.verify import ExporterClient, ExporterUnreachable, Verification, verify

START = 1_000_000.0
UP = {"known": True, "healthy": True, "status": "up", "slow": False}
SLOW = {**UP, "slow": True}
DOWN = {"known": True, "healthy": False, "status": "down", "reason": "refused", "detail": "port 80"}
GONE = ExporterUnreachable("the connection was refused")


class Script:
    """An exporter that answers as written, the last answer for ever, and a clock that only waiting moves."""

    def __init__(self, *answers: Any, **envelope: Any) -> None:
        self.answers = list(answers)
        self.envelope = envelope
        self.time = 0.0
        self.looked_at: list[float] = []

    def check(self, targets: Iterable[str], *, peers: bool = False, timeout: float = 5.0) -> dict[str, Any]:
        self.looked_at.append(self.time)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.time += 0.01
        if isinstance(answer, Exception):
            raise answer
        results = {target: answer for target in targets if answer is not None}
        return {"at": START + self.time, "results": results, **self.envelope}

    def verify(self, healthy: int = 3, within: float = 5.0, **more: Any) -> Verification:
        return verify(
            self,
            "shop",
            Verify.model_construct(healthy=healthy, every=0.25, within=within),
            now=lambda: START + self.time,
            clock=lambda: self.time,
            wait=self._wait,
            **more,
        )

    def _wait(self, seconds: float) -> None:
        self.time += seconds


def test_enough_healthy_looks_in_a_row_are_a_recovery() -> None:
    script = Script(DOWN, UP, UP, DOWN, UP, UP, UP)

    found = script.verify()

    assert found.outcome is Outcome.RECOVERED
    assert found.looks == 7
    assert found.healthy_since == pytest.approx(START + script.looked_at[4], abs=0.02)


def test_it_looks_at_its_pace() -> None:
    script = Script(UP)

    script.verify()

    assert script.looked_at == pytest.approx([0, 0.25, 0.5])


def test_a_target_that_stays_unhealthy_has_failed_with_its_reason() -> None:
    found = Script(DOWN).verify()

    assert found.outcome is Outcome.FAILED
    assert "refused: port 80" in found.detail
    assert found.healthy_since is None


def test_too_few_in_a_row_at_the_deadline_have_failed() -> None:
    assert Script(*[DOWN] * 19, UP).verify().outcome is Outcome.FAILED


@pytest.mark.parametrize("last", [GONE, None, {"known": False}, {"known": True}])
def test_an_exporter_that_says_nothing_at_the_deadline_proves_nothing(last: Any) -> None:
    found = Script(DOWN, UP, UP, last).verify()

    assert found.outcome is Outcome.UNVERIFIED


def test_an_exporter_that_comes_back_is_believed() -> None:
    assert Script(GONE, GONE, UP).verify().outcome is Outcome.RECOVERED


def test_an_unanswered_look_breaks_the_row() -> None:
    assert Script(UP, UP, GONE, UP, UP, GONE).verify().outcome is Outcome.UNVERIFIED


def test_slow_is_not_recovered_when_it_must_be_fast() -> None:
    assert Script(SLOW).verify(must_be_fast=True).outcome is Outcome.FAILED
    assert Script(SLOW).verify(must_be_fast=False).outcome is Outcome.RECOVERED


@pytest.mark.parametrize("at", [START - 60, START + 60, "now", None, True])
def test_an_answer_that_is_not_of_now_proves_nothing(at: Any) -> None:
    assert Script(UP, at=at).verify().outcome is Outcome.UNVERIFIED


def test_the_same_answer_again_is_not_a_second_proof() -> None:
    found = Script(UP, at=START + 1).verify()

    assert found.outcome is Outcome.UNVERIFIED
    assert "not fresh" in found.detail


def test_a_blind_prober_cannot_say_that_it_failed() -> None:
    assert Script(DOWN, prober_blind=True).verify().outcome is Outcome.UNVERIFIED


def test_a_stopping_remediator_proves_nothing() -> None:
    stop = threading.Event()
    stop.set()

    found = Script(UP).verify(stop=stop)

    assert (found.outcome, found.looks) == (Outcome.UNVERIFIED, 0)


def test_a_stop_ends_the_waiting_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()

    class Down:
        def check(self, targets: Iterable[str], *, peers: bool = False, timeout: float = 5) -> dict[str, Any]:
            return {"at": time.time(), "results": {"shop": DOWN}}

    found = verify(Down(), "shop", Verify.model_construct(healthy=1, every=20.0, within=60.0), stop=stop)

    assert found.outcome is Outcome.UNVERIFIED
    assert time.monotonic() - began < 5


class TestClient:
    def test_it_asks_for_the_targets_and_keeps_the_connection(
        self, http_server: Any, make_reply: Any
    ) -> None:
        http_server.answer = lambda _: make_reply(body={"at": 1, "results": {"a": UP}})
        client = ExporterClient(http_server.url + "/")

        for _ in range(5):
            found = client.check(["a", "b c"], peers=True, timeout=2)

        assert found["results"]["a"]["healthy"] is True
        assert http_server.requests[0].path == "/check?target=a&target=b+c&peers=true"
        assert http_server.connections == 1

    def test_it_asks_for_the_state(self, http_server: Any, make_reply: Any) -> None:
        http_server.answer = lambda _: make_reply(body={"services": {}})
        client = ExporterClient(http_server.url)

        assert client.state("shop", timeout=2) == {"services": {}}
        client.state(timeout=2)

        assert [request.path for request in http_server.requests] == ["/state?target=shop", "/state"]

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b"no json"),
            (200, b"[]"),
            (200, b'{"at": 1}'),
            (200, b'{"results": 3}'),
            (500, b"{}"),
            (302, b""),
        ],
    )
    def test_an_answer_without_results_is_no_answer(
        self, http_server: Any, make_reply: Any, status: int, body: bytes
    ) -> None:
        http_server.answer = lambda _: make_reply(status=status, body=body)

        with pytest.raises(ExporterUnreachable, match="/check"):
            ExporterClient(http_server.url).check(["a"], timeout=2)

    def test_a_hanging_exporter_is_given_up_in_time(self, http_server: Any, make_reply: Any) -> None:
        http_server.answer = lambda _: make_reply(delay=20)
        began = time.monotonic()

        with pytest.raises(ExporterUnreachable, match="no answer in time"):
            ExporterClient(http_server.url).check(["a"], timeout=0.3)

        assert time.monotonic() - began < 2

    def test_an_exporter_that_is_away_is_unreachable(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

        with pytest.raises(ExporterUnreachable, match="refused"):
            ExporterClient(f"http://127.0.0.1:{port}").check(["a"], timeout=1)

    def test_a_closed_connection_is_asked_once_more(self) -> None:
        """An exporter that restarts closes the kept connection; the next question must not fail by it."""
        body = json.dumps({"results": {}}).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                listener.accept()[0].close()
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            found = ExporterClient(f"http://127.0.0.1:{listener.getsockname()[1]}").check(["a"], timeout=5)
            thread.join(5)

        assert found == {"results": {}}
