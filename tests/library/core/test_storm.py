"""Ten thousand errors a second: bounded, and every one accounted for."""

import json
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from soulfra_monitor import ErrorMonitor
from soulfra_monitor.events import Kind
from soulfra_monitor.shedding import Level
from tests.library.core.conftest import Program, Recorder, answer, is_exact

Start = Callable[..., ErrorMonitor]
Run = Callable[..., Program]
STORM = 20_000


def fail(text: str) -> None:
    raise ValueError(text)


def report(monitor: ErrorMonitor, text: str, kind: Kind = Kind.LOGGED) -> None:
    try:
        fail(text)
    except ValueError as error:
        monitor.raised(kind, error)


def test_a_storm_of_alike_errors_arrives_as_counts(recorder: Recorder, start: Start) -> None:
    monitor = start(overhead_limit=100)

    for _ in range(STORM):
        report(monitor, "again")
    assert monitor.flush(10)

    stats = monitor.stats()
    assert (stats.seen, stats.sent, stats.pending, stats.dropped) == (STORM, STORM, 0, {})
    assert recorder.total == STORM
    assert len(recorder.events) < 50


def test_a_storm_of_errors_that_all_differ_is_bounded_and_exact(recorder: Recorder, start: Start) -> None:
    monitor = start(overhead_limit=100)

    for number in range(STORM):
        monitor.noted(Kind.LOGGED, "no answer", facts={"peer": f"host-{number}"})
    assert monitor.flush(10)

    stats = monitor.stats()
    assert stats.sent + sum(stats.dropped.values()) == STORM
    assert recorder.total == stats.sent
    assert len(recorder.events) < 500


def test_a_storm_from_many_threads_is_exact(recorder: Recorder, start: Start) -> None:
    monitor = start(overhead_limit=100, interval=0.1)

    def storm(name: str) -> None:
        for _ in range(2000):
            report(monitor, name)

    threads = [threading.Thread(target=storm, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.flush(10)

    stats = monitor.stats()
    assert stats.seen == 16_000
    assert stats.sent + sum(stats.dropped.values()) == 16_000
    assert recorder.total == stats.sent
    assert sum(body.get("dropped", {}).get("queue", 0) for body in recorder.taken) == stats.dropped.get(
        "queue", 0
    )


def test_a_storm_while_the_remediator_is_away_keeps_the_books(recorder: Recorder, start: Start) -> None:
    monitor = start(overhead_limit=100, queue_events=50, spool_bytes=20_000, interval=0.05)
    recorder.always = lambda handler: answer(handler, 503)

    for number in range(STORM):
        monitor.noted(Kind.LOGGED, f"{number % 700}", facts={"peer": f"host-{number % 700}"})
        if number % 1000 == 0:
            assert is_exact(monitor)
    assert not monitor.flush()

    stats = monitor.stats()
    assert stats.seen == STORM == sum(stats.dropped.values()) + stats.pending
    recorder.always = None
    recorder.wait(lambda _: monitor.flush() and monitor.stats().pending == 0)
    stats = monitor.stats()
    assert stats.sent == recorder.total
    assert stats.sent + sum(stats.dropped.values()) == STORM


def test_memory_does_not_grow_with_a_storm(start: Start) -> None:
    monitor = start(overhead_limit=100)
    for number in range(3000):  # fill what may be filled
        report(monitor, f"error {number}")
        monitor.noted(Kind.LOGGED, "no answer", facts={"peer": f"host-{number}"})
    monitor.flush()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(STORM):
            report(monitor, f"error {number}")
            monitor.noted(Kind.LOGGED, "no answer", facts={"peer": f"host-{number}"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak - before < 5_000_000


def test_above_its_limit_the_library_does_less_says_so_once_and_recovers(
    recorder: Recorder, run: Run
) -> None:
    status, out, err = run(
        """
import json, logging, time
from soulfra_monitor import ErrorMonitor
import soulfra_monitor.shedding as shedding
from soulfra_monitor.events import Kind
logging.basicConfig()
shedding.WINDOW = 0.2
monitor = ErrorMonitor(interval=0.1).start()
def fail():
    raise ValueError("x")
deadline = time.monotonic() + 30
while monitor.stats().level < shedding.Level.COUNTS and time.monotonic() < deadline:
    for _ in range(1000):
        try:
            fail()
        except ValueError as error:
            monitor.raised(Kind.LOGGED, error)
            try:
                fail()
            except ValueError as error:
                monitor.raised(Kind.SWALLOWED, error)
worst = monitor.stats()
while monitor.stats().level and time.monotonic() < deadline:
    time.sleep(0.01)
monitor.flush(10)
best = monitor.stats()
books = best.seen == best.sent + sum(best.dropped.values()) + best.pending
print(json.dumps([worst.level, best.level, worst.dropped.get("shed", 0) > 0, books]))
""",
        MONITORING_OVERHEAD_LIMIT="1",
        ERROR_LOG_LEVEL="info",
    ).end(60)

    assert status == 0
    assert json.loads(out) == [Level.COUNTS, Level.FULL, True, True]
    told = [line for line in err.splitlines() if line.startswith("WARNING") and "only counted" in line]
    assert len(told) == len(set(told)) == 2
    assert any(body.get("shedding") for body in recorder.taken)


@pytest.mark.parametrize("depth", [1, 10])
def test_taking_an_error_costs_the_thread_less_than_raising_a_few(start: Start, depth: int) -> None:
    """A bound that only a gross mistake breaks; benchmarks measure."""
    import time  # noqa: PLC0415 - only here

    def deeper(left: int) -> None:
        if left:
            deeper(left - 1)
        fail("x")

    monitor = start(overhead_limit=100)
    cost = 0.0
    for _ in range(2000):
        try:
            deeper(depth)
        except ValueError as error:
            began = time.thread_time()
            monitor.raised(Kind.LOGGED, error)
            cost += time.thread_time() - began

    assert cost / 2000 < 100e-6
