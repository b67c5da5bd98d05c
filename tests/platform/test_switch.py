"""Every service breaks as its switch says, and a restart cures it."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from tests.platform.conftest import Running, Start


@pytest.fixture
def service(start: "Start") -> "Running":
    return start("provider.py", "--latency", "0")


def answers_within(service: "Running", seconds: float) -> bool:
    try:
        return service.get("/health", timeout=seconds).ok
    except requests.Timeout:
        return False


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("chat_analyzer.py", []),
        ("trust_engine.py", ["--redis", "redis://127.0.0.1:1/0"]),
        ("provider.py", []),
        ("ai_router.py", ["--provider", "a=http://127.0.0.1:1"]),
        ("mobile_converter.py", ["--output", "{tmp}"]),
        ("orchestrator.py", []),
    ],
)
def test_every_service_answers_500_when_told_to_and_is_cured_by_a_restart(
    start: "Start", tmp_path_factory: pytest.TempPathFactory, script: str, options: list[str]
) -> None:
    options = [option.format(tmp=tmp_path_factory.mktemp("output")) for option in options]
    service = start(script, *options)
    port = int(service.url.rsplit(":", 1)[1])

    set_to = service.post("/switch", {"mode": "errors"})
    broken = service.get("/health")
    ended = service.end()
    cured = start(script, *options, port=port).get("/health")

    assert set_to.json() == {"mode": "errors", "seconds": None, "rate": 1.0}
    assert broken.status_code == 500
    assert broken.json() == {"error": "something is broken inside; a restart would help"}
    assert ended == 0
    assert cured.status_code in {200, 503}  # 503 where a neighbour is missing here


def test_crash_ends_the_process_after_the_answer(service: "Running") -> None:
    answer = service.post("/switch", {"mode": "crash"})

    assert answer.json()["mode"] == "crash"
    assert service.process.wait(5) == 1


def test_hang_keeps_every_request_waiting_but_the_switch(service: "Running") -> None:
    service.post("/switch", {"mode": "hang"})

    assert not answers_within(service, 0.3)
    assert service.get("/switch", timeout=1).json()["mode"] == "hang"


def test_a_hung_service_still_ends_on_sigterm(service: "Running") -> None:
    service.post("/switch", {"mode": "hang"})
    assert not answers_within(service, 0.1)

    started = time.monotonic()
    ended = service.end()

    assert ended == 0
    assert time.monotonic() - started < 2


def test_requests_that_hang_go_on_when_the_switch_is_set_back(service: "Running") -> None:
    service.post("/switch", {"mode": "hang"})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.get, "/health")
        assert not answers_within(service, 0.2)
        service.post("/switch", {"mode": "ok"})

        assert waiting.result(5).status_code == 200


@pytest.mark.parametrize("mode", ["hang", "errors"])
def test_a_fault_with_seconds_ends_by_itself(
    service: "Running", until: Callable[..., None], mode: str
) -> None:
    service.post("/switch", {"mode": mode, "seconds": 0.5})

    assert not answers_within(service, 0.1)
    until(lambda: answers_within(service, 1), within=5, what="the end of the fault")
    assert service.get("/switch").json()["mode"] == "ok"


def test_slow_delays_each_answer(service: "Running") -> None:
    service.post("/switch", {"mode": "slow", "seconds": 0.3})

    started = time.monotonic()
    answer = service.get("/health")

    assert answer.status_code == 200
    assert time.monotonic() - started >= 0.3


def test_rate_is_the_share_of_requests_that_fail(service: "Running") -> None:
    service.post("/switch", {"mode": "errors", "rate": 0.5})

    failed = sum(service.get("/health").status_code == 500 for _ in range(60))

    assert 10 < failed < 50


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "'mode' must be one of ok, crash, hang, errors, slow"),
        ({"mode": "explode"}, "'mode' must be one of"),
        ({"mode": "slow", "seconds": -1}, "'seconds' must be a number from 0 to 3600"),
        ({"mode": "errors", "rate": 2}, "'rate' must be a number from 0 to 1"),
        ({"mode": "errors", "rate": True}, "'rate' must be a number from 0 to 1"),
    ],
)
def test_the_switch_refuses_what_it_does_not_know(start: "Start", body: object, reason: str) -> None:
    answer = start("provider.py").post("/switch", body)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_a_taken_port_is_named(
    service: "Running", launch: Callable[[list[str]], "Running"], until: Callable[..., None]
) -> None:
    port = service.url.rsplit(":", 1)[1]

    second = launch([sys.executable, "provider.py", "--port", port])

    assert second.process.wait(10) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in second.log.read_text()
