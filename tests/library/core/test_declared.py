"""Gauges, counters, heartbeats, the collector and the state of the system."""

import os
import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from soulfra_monitor import ErrorMonitor, declared
from soulfra_monitor.events import Declared
from soulfra_monitor.system import SystemState
from tests.library.core.conftest import Recorder, answer

Start = Callable[..., ErrorMonitor]


def values(recorder: Recorder) -> list[tuple[str, float]]:
    return [(one["name"], one["value"]) for body in recorder.taken for one in body.get("declared", ())]


def test_a_gauge_is_told_as_it_is_and_a_counter_as_what_came(recorder: Recorder, start: Start) -> None:
    monitor = start(interval=0.05)
    quality = monitor.gauge("quality", "Share of pages that convert.", low=0.9)
    orders = monitor.counter("orders", "Orders taken.")

    quality.set(0.8)
    orders.inc(3)
    recorder.wait(lambda it: ("quality", 0.8) in values(it) and ("orders", 3.0) in values(it))
    orders.inc()
    recorder.wait(lambda it: ("orders", 1.0) in values(it))

    told = next(one for body in recorder.taken for one in body["declared"] if one["name"] == "quality")
    assert told == {
        "service": "shop",
        "name": "quality",
        "value": 0.8,
        "low": 0.9,
        "help": "Share of pages that convert.",
    }
    assert sum(value for name, value in values(recorder) if name == "orders") == 4.0


def test_a_flush_tells_each_value_once(recorder: Recorder, start: Start) -> None:
    monitor = start()
    monitor.gauge("quality").set(0.5)
    monitor.report("x")

    assert monitor.flush()

    assert values(recorder) == [("quality", 0.5)]


def test_a_gauge_that_was_never_set_is_not_told(recorder: Recorder, start: Start) -> None:
    monitor = start()
    monitor.gauge("quality")
    monitor.counter("orders")

    monitor.report("x")
    assert monitor.flush()

    assert values(recorder) == []


def test_the_same_name_is_the_same_thing(start: Start) -> None:
    monitor = start()

    assert monitor.gauge("quality") is monitor.gauge("quality")
    assert monitor.gauge("quality") is not monitor.gauge("quality", service="other")
    with pytest.raises(ValueError, match="is declared as a gauge"):
        monitor.counter("quality")


def test_names_without_end_are_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soulfra_monitor.declared.DECLARED_LIMIT", 3)
    monitor = start()
    for name in "abc":
        monitor.gauge(name)

    with pytest.raises(ValueError, match="must not hold ids"):
        monitor.gauge("d")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", None, 10**400])
def test_what_is_no_number_is_not_taken(start: Start, value: float) -> None:
    monitor = start()
    gauge, counter = monitor.gauge("g"), monitor.counter("c")
    gauge.set(5)
    counter.inc(5)

    gauge.set(value)
    gauge.inc(value)
    gauge.dec(value)
    counter.inc(value)
    counter.inc(-1)

    assert (gauge.value, counter.value) == (5.0, 5.0)


def test_counting_from_many_threads_loses_nothing() -> None:
    counter = declared.Counter(Declared(service="s", name="n", value=0.0, counter=True), lambda: None)

    def count() -> None:
        for _ in range(5000):
            counter.inc()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = 0.0
    while any(thread.is_alive() for thread in threads):
        told = counter.take()
        taken += told.value if told else 0.0
    told = counter.take()

    assert taken + (told.value if told else 0.0) == 20_000


def test_a_job_says_that_it_begins_and_that_it_succeeded(recorder: Recorder, start: Start) -> None:
    monitor = start()

    with monitor.heartbeat("nightly export"):
        pass
    recorder.wait(lambda it: len(it.beats) == 2)

    assert [beat.path for beat in recorder.beats] == [
        "/api/monitoring/heartbeats/nightly%20export/start",
        "/api/monitoring/heartbeats/nightly%20export",
    ]
    assert recorder.beats[1].body["seconds"] >= 0


def test_a_job_that_fails_says_why_and_its_exception_passes(recorder: Recorder, start: Start) -> None:
    word = "hun" + "ter2x9"
    monitor = start()

    with pytest.raises(ValueError, match="no stock"), monitor.heartbeat("job"):
        raise ValueError(f"no stock, password={word}")
    recorder.wait(lambda it: len(it.beats) == 2)

    assert recorder.beats[1].path == "/api/monitoring/heartbeats/job/fail"
    assert "no stock" in recorder.beats[1].body["message"]
    assert word not in str(recorder.beats[1].body)


@pytest.mark.parametrize(("code", "ending"), [(0, ""), (None, ""), (3, "/fail"), ("bad", "/fail")])
def test_a_job_that_exits_says_how(
    recorder: Recorder, start: Start, code: int | str | None, ending: str
) -> None:
    monitor = start()

    with pytest.raises(SystemExit), monitor.heartbeat("job"):
        raise SystemExit(code)
    recorder.wait(lambda it: len(it.beats) == 2)

    assert recorder.beats[1].path == f"/api/monitoring/heartbeats/job{ending}"


def test_signs_of_life_wait_in_order_for_a_remediator_that_is_away(
    recorder: Recorder, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulfra_monitor.sender.BACKOFF_FIRST", 0.05)
    monitor = start()
    recorder.misbehave.append(lambda handler: answer(handler, 503))

    monitor.heartbeat("a").beat()
    monitor.heartbeat("b").beat()
    recorder.wait(lambda it: len(it.beats) == 2)

    assert [beat.path[-1] for beat in recorder.beats] == ["a", "b"]


def test_a_heartbeat_that_nobody_knows_is_not_sent_for_ever(recorder: Recorder, start: Start) -> None:
    monitor = start()
    recorder.misbehave.append(lambda handler: answer(handler, 404))

    monitor.heartbeat("unknown").beat()
    monitor.heartbeat("known").beat()
    recorder.wait(lambda it: it.beats)

    assert [beat.path[-7:] for beat in recorder.beats] == ["s/known"]


def test_a_service_with_its_own_metrics_tells_there_and_not_to_the_remediator(
    recorder: Recorder, start: Start
) -> None:
    class Shop:
        def sell(self) -> int:
            return 1

    monitor = start(interval=0.05)
    shop = monitor.add_service("shop", Shop())
    registry = CollectorRegistry()
    registry.register(monitor.collector())
    monitor.gauge("quality").set(0.5)
    monitor.counter("orders").inc(2)
    for _ in range(3):
        shop.sell()
    monitor.report("x")
    assert monitor.flush()

    for _ in range(2):  # a second scrape says the same
        text = generate_latest(registry).decode()
        assert 'soulfra_calls_total{caller="",method="sell",target="shop"} 3.0' in text
        assert 'soulfra_call_duration_seconds_count{method="sell",target="shop"} 3.0' in text
        assert 'soulfra_declared_value{name="quality",target="shop"} 0.5' in text
        assert 'soulfra_declared_total{name="orders",target="shop"} 2.0' in text
        assert "soulfra_library_seen_total 1.0" in text
    assert not any(body.get("calls") or body.get("declared") for body in recorder.taken)


def fail(place: str, error: BaseException) -> None:
    """Stand for what is told of failures of ours where there must be none."""
    raise AssertionError(place) from error


def test_the_state_of_process_and_host_is_told() -> None:
    state = SystemState(fail).read()

    assert state["pid"] == os.getpid()
    assert 1_000_000 < state["rss"] < state["memory_total"]
    assert state["files"] <= state["files_limit"]
    assert state["threads"] >= 1
    assert state["uptime"] > 0
    assert state["cpu"] >= 0
    assert 0 < state["disk_free"] <= state["disk_total"]
    assert state["load"] >= 0


def test_the_state_is_looked_at_once_a_second() -> None:
    now = 100.0
    system = SystemState(fail, lambda: now)

    first = system.read()
    now += 0.9
    assert system.read() is first
    now += 0.2
    assert system.read() is not first


def test_what_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr("soulfra_monitor.system._read", refuse)

    state = SystemState(fail).read()

    assert "rss" not in state
    assert "memory_total" not in state
    assert state["load"] >= 0


@pytest.mark.parametrize("text", ["MemTotal: 1 kB\n", "MemTotal: much\n", ""])
def test_what_is_not_as_we_know_it_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("soulfra_monitor.system._read", lambda _: text)
    told: list[str] = []

    state = SystemState(lambda place, _: told.append(place)).read()

    assert "memory_total" not in state
    assert state["load"] >= 0
    assert told == ["system", "system"]  # of the process, and of the memory
