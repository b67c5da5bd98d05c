"""The trust engine keeps scores in a real Redis and comes back by itself when Redis does."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import redis

if TYPE_CHECKING:
    from pathlib import Path

    from tests.platform.conftest import Running, Start

LaunchRedis = Callable[[], "Running"]


@pytest.fixture(scope="module")
def redis_port(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture(scope="module")
def launch_redis(
    launch: Callable[[list[str]], "Running"],
    redis_server: str,
    redis_port: int,
    until: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> LaunchRedis:
    folder: Path = tmp_path_factory.mktemp("redis")

    def begin() -> "Running":
        options = ["--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
        server = launch([redis_server, "--port", str(redis_port), *options])
        until(lambda: answers(redis_port), what="redis answering")
        return server

    return begin


def answers(port: int) -> bool:
    with redis.Redis(port=port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="module")
def server(launch_redis: LaunchRedis) -> "Running":
    return launch_redis()


@pytest.fixture(scope="module")
def engine(start: "Start", server: "Running", redis_port: int) -> "Running":
    return start("trust_engine.py", "--redis", f"redis://127.0.0.1:{redis_port}/0")


def tell(engine: "Running", user: str, kind: str) -> float:
    answer = engine.post("/events", {"user": user, "kind": kind})
    assert answer.status_code == 201, answer.text
    return float(answer.json()["score"])


def test_events_move_the_score_of_a_user_up_and_down(engine: "Running") -> None:
    first = tell(engine, "ann", "helpful")
    second = tell(engine, "ann", "spam")

    assert first > 50 > second
    assert engine.get("/scores/ann").json() == {
        "user": "ann",
        "score": second,
        "events": {"helpful": 1, "spam": 1},
    }


def test_a_score_stays_between_0_and_100(engine: "Running") -> None:
    worst = min(tell(engine, "mallory", "fraud") for _ in range(5))
    best = max(tell(engine, "dee", "verified") for _ in range(20))

    assert 0 <= worst < 1
    assert 99 < best <= 100


def test_an_event_counts_half_after_a_week(engine: "Running", redis_port: int) -> None:
    week = 7 * 24 * 3600
    weight = 2 ** ((time.time() - week - 1_704_067_200) / week)
    with redis.Redis(port=redis_port) as client:
        client.zadd("trust:points", {"old": 10 * weight, "new": 5 * 2 * weight})

    old, new = (engine.get(f"/scores/{user}").json()["score"] for user in ("old", "new"))

    assert old == pytest.approx(new, abs=0.05) == pytest.approx(56.22, abs=0.05)  # 50 (1 + tanh(5 / 40))


def test_the_most_trusted_come_first(engine: "Running") -> None:
    tell(engine, "top", "verified")
    tell(engine, "low", "fraud")

    scores = engine.get("/scores?limit=100").json()["scores"]

    order = [entry["user"] for entry in scores]
    assert order.index("top") < order.index("low")
    assert [entry["score"] for entry in scores] == sorted((e["score"] for e in scores), reverse=True)
    assert len(engine.get("/scores?limit=1").json()["scores"]) == 1


def test_events_at_the_same_time_are_all_counted(engine: "Running") -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: tell(engine, "busy", "message"), range(40)))

    assert engine.get("/scores/busy").json()["events"] == {"message": 40}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"user": "ann"}, "'kind' must be a text"),
        ({"user": "", "kind": "spam"}, "'user' must be a text"),
        ({"user": "x" * 129, "kind": "spam"}, "'user' must have at most 128 characters, not 129"),
        ({"user": "ann", "kind": "treason"}, "'kind' must be one of message, helpful"),
        ([1], "the body must be a JSON object"),
    ],
)
def test_an_event_that_makes_no_sense_is_refused(engine: "Running", body: object, reason: str) -> None:
    answer = engine.post("/events", body)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_nothing_is_made_up_about_strangers(engine: "Running") -> None:
    assert engine.get("/scores/nobody").status_code == 404
    assert engine.get("/scores?limit=0").status_code == 400


def test_it_says_that_redis_hangs_and_goes_on_when_redis_does(
    engine: "Running", server: "Running", until: Callable[..., None]
) -> None:
    server.process.send_signal(signal.SIGSTOP)
    try:
        answer = engine.get("/health", timeout=1.9)
    finally:
        server.process.send_signal(signal.SIGCONT)

    assert answer.status_code == 503
    assert "Timeout" in answer.json()["reason"]
    until(lambda: engine.get("/health").status_code == 200, what="healthy again")


def test_it_says_that_redis_is_away_and_reconnects_by_itself(
    engine: "Running", server: "Running", launch_redis: LaunchRedis
) -> None:
    before = tell(engine, "eli", "verified")
    server.end()

    sick = engine.get("/health")
    refused = engine.post("/events", {"user": "eli", "kind": "spam"})
    launch_redis()
    well = engine.get("/health")

    assert (sick.status_code, sick.json()["status"]) == (503, "unhealthy")
    assert "redis: " in sick.json()["reason"]
    assert refused.status_code == 503
    assert (well.status_code, well.json()["status"]) == (200, "healthy")
    assert engine.get("/scores/eli").json()["score"] == pytest.approx(before, abs=0.05)
