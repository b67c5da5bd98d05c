"""From an error to a request at the remediator."""

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import soulfra_monitor
from soulfra_monitor import ErrorMonitor, SettingsError
from soulfra_monitor.events import Event, Kind
from soulfra_monitor.intake import Intake
from tests.library.core.conftest import Recorder, answer, is_exact

Start = Callable[..., ErrorMonitor]


def fail(text: str = "no stock") -> None:
    raise ValueError(text)


def caught(text: str = "no stock") -> ValueError:
    try:
        fail(text)
    except ValueError as error:
        return error
    raise AssertionError


def only(recorder: Recorder) -> Event:
    (event,) = recorder.events
    return event


def test_a_reported_exception_arrives_without_being_asked_for(recorder: Recorder, start: Start) -> None:
    start(release="1.2").report(caught(), customer=7, path="/data/x")

    recorder.wait(lambda it: it.events)

    event = only(recorder)
    assert (event.kind, event.service, event.message) == (Kind.REPORTED, "shop", "no stock")
    assert (event.release, event.handled, event.count) == ("1.2", True, 1)
    assert event.raised[0].frames[-1].function == "fail"
    assert event.facts == {"path": "/data/x"}
    assert event.context == {"customer": 7}
    assert event.system["rss"] > 1_000_000


def test_a_reported_text_arrives_with_what_was_said_of_it(recorder: Recorder, start: Start) -> None:
    start().report(
        "the ledger does not add up", service="ledger", severity="critical", problem="state_inconsistent"
    )

    recorder.wait(lambda it: it.events)

    event = only(recorder)
    assert (event.service, event.message) == ("ledger", "the ledger does not add up")
    assert (event.severity, event.problem) == ("critical", "state_inconsistent")


def test_a_batch_says_whose_it_is(recorder: Recorder, start: Start) -> None:
    start(token="t0ken").report("x")

    recorder.wait(lambda it: it.taken)

    sender = recorder.taken[0]["sender"]
    assert len(sender["boot"]) == 32
    assert sender["service"] == "shop"
    assert sender["name"].startswith("soulfra-python/")
    assert recorder.requests[0].headers["Authorization"] == "Bearer t0ken"


def test_secrets_are_masked_before_anything_leaves(recorder: Recorder, start: Start) -> None:
    word = "hun" + "ter2x9"

    start().report(caught(f"login failed: password={word}"), login={"password": word})
    recorder.wait(lambda it: it.events)

    assert word not in str(recorder.taken)


def test_the_same_exception_is_told_once_and_the_first_kind_counts(recorder: Recorder, start: Start) -> None:
    monitor = start()
    error = caught()

    monitor.raised(Kind.METHOD, error)
    monitor.raised(Kind.LOGGED, error)
    monitor.report(error)
    assert monitor.flush()

    assert only(recorder).kind == Kind.METHOD
    assert monitor.stats().repeated == 2


@pytest.mark.parametrize("first", [Kind.LOGGED, Kind.DATABASE, Kind.FUTURE, Kind.METHOD])
def test_an_exception_that_was_told_is_told_again_once_when_it_ends_something(
    first: Kind, recorder: Recorder, start: Start
) -> None:
    monitor = start()
    error = caught()

    for kind in (first, Kind.THREAD, Kind.THREAD, Kind.UNCAUGHT, Kind.UNCAUGHT, Kind.LOGGED, Kind.THREAD):
        monitor.raised(kind, error, handled=kind is first)
    assert monitor.flush()

    assert [event.kind for event in recorder.events] == [first, Kind.THREAD, Kind.UNCAUGHT]
    assert [event.handled for event in recorder.events] == [True, False, False]
    assert monitor.stats().repeated == 4
    assert is_exact(monitor)


@pytest.mark.parametrize("error", [StopIteration(), GeneratorExit(), asyncio.CancelledError()])
def test_a_way_to_end_something_is_an_error_when_it_ends_the_program(
    error: BaseException, recorder: Recorder, start: Start
) -> None:
    monitor = start()

    monitor.raised(Kind.LOGGED, error)
    monitor.raised(Kind.UNCAUGHT, error, handled=False)
    assert monitor.flush()

    assert only(recorder).kind == Kind.UNCAUGHT
    assert monitor.has_told_end(error)


def test_an_end_is_queued_though_the_queue_is_full(recorder: Recorder, start: Start) -> None:
    monitor = start(queue_events=1)
    recorder.always = lambda handler: answer(handler, 503)
    with monitor._life.worker.desk:  # the worker takes nothing meanwhile
        for letter in "abc":
            monitor.report(f"error {letter}")
        error = caught()
        monitor.raised(Kind.UNCAUGHT, error, handled=False)
    recorder.always = None

    assert monitor.flush()
    assert Kind.UNCAUGHT in [event.kind for event in recorder.events]
    assert monitor.has_told_end(error)
    assert is_exact(monitor)


def test_an_end_that_could_not_be_captured_is_not_known_as_told(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = start()
    monkeypatch.setattr("soulfra_monitor.intake.links_of", lambda *_, **__: 1 / 0)
    error = caught()

    monitor.raised(Kind.UNCAUGHT, error, handled=False)

    assert not monitor.has_told_end(error)
    assert is_exact(monitor)


def test_a_new_exception_at_the_address_of_an_old_one_is_told(recorder: Recorder, start: Start) -> None:
    monitor = start()

    for _ in range(1000):
        monitor.raised(Kind.LOGGED, caught())  # each is gone before the next is made
    assert monitor.flush()

    assert recorder.total == 1000
    assert monitor.stats().repeated == 0


@pytest.mark.parametrize("kind", [ValueError, type("OwnError", (Exception,), {})])
def test_no_exception_is_kept_alive(start: Start, kind: type[Exception]) -> None:
    class Held:
        """Is referred to by a frame of the traceback, as an object of a request would be."""

    def raise_with_local() -> None:
        held = Held()
        alive.append(weakref.ref(held))
        raise kind("x")

    monitor = start()
    alive: list[weakref.ref[Any]] = []
    for _ in range(20):
        try:
            raise_with_local()
        except kind as error:
            monitor.raised(Kind.LOGGED, error)
    gc.collect()

    assert [one() for one in alive] == [None] * 20


def test_a_told_exception_looks_as_before(start: Start) -> None:
    error = caught()

    start().report(error)

    assert vars(error) == {}
    assert error.args == ("no stock",)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), GeneratorExit(), StopIteration(), StopAsyncIteration()]
)
def test_ways_to_end_something_are_no_errors(start: Start, error: BaseException) -> None:
    monitor = start()

    monitor.raised(Kind.METHOD, error)

    assert monitor.stats().seen == 0


async def test_a_cancellation_is_no_error(start: Start) -> None:
    import asyncio  # noqa: PLC0415 - only here
    import concurrent.futures  # noqa: PLC0415 - only here

    monitor = start()

    monitor.raised(Kind.TASK, asyncio.CancelledError())
    monitor.raised(Kind.FUTURE, concurrent.futures.CancelledError())

    assert monitor.stats().seen == 0


def test_alike_errors_are_counted_and_the_count_arrives(recorder: Recorder, start: Start) -> None:
    monitor = start(interval=0.2)

    for _ in range(500):
        monitor.raised(Kind.LOGGED, caught())

    recorder.wait(lambda it: it.total == 500)
    assert len(recorder.events) < 20
    assert is_exact(monitor)


def test_errors_that_touch_different_things_are_not_alike(recorder: Recorder, start: Start) -> None:
    monitor = start()

    for number in range(20):
        monitor.noted(Kind.HTTP, "no answer", facts={"peer": f"10.0.0.{number}:80"})
    monitor.flush()

    assert len({event.facts["peer"] for event in recorder.events}) == 20


def test_the_library_hears_nothing_of_its_own_work(recorder: Recorder, start: Start) -> None:
    monitor = start()

    class Report(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())
            monitor.noted(Kind.LOGGED, record.getMessage())

    heard: list[str] = []
    handler = Report()
    logging.getLogger("soulfra_monitor").addHandler(handler)
    try:
        monitor.broke("a place", ValueError("x"))
        assert monitor.flush()
    finally:
        logging.getLogger("soulfra_monitor").removeHandler(handler)

    assert heard == ["a place failed: ValueError: x"]
    assert monitor.stats().seen == 0


def test_an_error_while_an_error_is_taken_ends_there(start: Start) -> None:
    class Vicious(Exception):  # noqa: N818 - a name of a test
        def __str__(self) -> str:
            monitor.report(Vicious())
            return "x"

    monitor = start()

    monitor.report(Vicious())

    assert monitor.stats().seen == 1


def test_failures_of_the_library_are_counted_and_never_raised(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = start()

    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(Intake, "raised", explode)
    monitor.report(ValueError("x"))

    assert monitor.stats().broken == {"intake": 1}


def test_an_event_that_cannot_be_redacted_is_dropped_and_counted(
    recorder: Recorder, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(_: Event) -> Event:
        raise RuntimeError("ours")

    monkeypatch.setattr("soulfra_monitor.worker.redact_event", explode)
    monitor = start()

    monitor.report("x")
    monitor.flush()

    assert recorder.events == []
    assert monitor.stats().dropped == {"capture": 1}
    assert is_exact(monitor)


def test_a_text_that_cannot_be_redacted_is_hidden_and_counted(
    recorder: Recorder, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> str:
        raise RuntimeError("ours")

    failures: Counter[str] = Counter()
    monkeypatch.setattr("soulfra_monitor.redaction.texts._settled", explode)
    monkeypatch.setattr("soulfra_monitor.redaction.texts.FAILURES", failures)
    monkeypatch.setattr("soulfra_monitor.worker.FAILURES", failures)
    monitor = start()

    monitor.report("x")
    monitor.flush()

    assert [event.message for event in recorder.events] == ["[redaction failed]"]
    assert monitor.stats().broken == {"redaction": 1}


def test_drops_are_told_with_the_next_batch(recorder: Recorder, start: Start) -> None:
    monitor = start(queue_events=1)
    block, blocked = threading.Event(), threading.Event()

    def hold(_: object) -> bool:
        blocked.set()
        return not block.wait(10)

    recorder.misbehave.append(hold)
    monitor.report("first")
    assert blocked.wait(10)
    for number in range(5):
        monitor.report(f"after {'abcde'[number]}")
    block.set()
    assert monitor.flush(10)

    assert sum(body.get("dropped", {}).get("queue", 0) for body in recorder.taken) == 4
    assert monitor.stats().dropped == {"queue": 4}
    assert is_exact(monitor)


def test_a_disabled_monitor_does_nothing(recorder: Recorder, start: Start) -> None:
    monitor = start(enabled=False)

    monitor.report("x")
    thing = object()

    assert monitor.add_service("shop", thing) is thing
    assert not monitor.flush()
    assert monitor.stats().seen == 0
    assert soulfra_monitor.active() is None


def test_one_monitor_is_active_at_a_time(start: Start) -> None:
    monitor = start()

    assert soulfra_monitor.active() is monitor
    with pytest.raises(RuntimeError, match="stop it first"):
        start()

    monitor.stop()
    assert soulfra_monitor.active() is None


def test_a_stopped_monitor_takes_nothing_and_can_start_again(recorder: Recorder, start: Start) -> None:
    monitor = start()
    monitor.report("first")
    monitor.stop()
    monitor.report("unheard")

    monitor.start().report("second")
    assert monitor.flush()

    assert [event.message for event in recorder.events] == ["first", "second"]
    assert recorder.taken[0]["sender"]["boot"] != recorder.taken[1]["sender"]["boot"]


def test_stopping_leaves_no_thread(recorder: Recorder, start: Start) -> None:
    monitor = start()
    monitor.report("x")
    recorder.wait(lambda it: it.events)

    monitor.stop()

    deadline = time.monotonic() + 10
    while monitor._life.intake.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thread_with_nothing_to_do_ends_and_comes_back(
    recorder: Recorder, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulfra_monitor.worker.IDLE", 0.05)
    monitor = start()
    monitor.report("first")
    deadline = time.monotonic() + 10
    while monitor._life.intake.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    monitor.report("second")

    recorder.wait(lambda it: len(it.events) == 2)


def test_bad_names_of_services_and_options_are_told_where_they_are(start: Start) -> None:
    monitor = start()

    with pytest.raises(SettingsError, match="add_service"):
        monitor.add_service("a b", object())
    with pytest.raises(SettingsError, match="add_service"):
        monitor.add_service("shop", object(), colour="red")


def test_a_watched_service_tells_its_calls_and_errors(recorder: Recorder, start: Start) -> None:
    class Shop:
        def sell(self, left: int) -> int:
            if not left:
                fail()
            return left - 1

    monitor = start(interval=0.1)
    shop = Shop()
    assert monitor.add_service("shop", shop) is shop

    assert shop.sell(3) == 2
    with pytest.raises(ValueError, match="no stock"):
        shop.sell(0)

    recorder.wait(lambda it: any(body.get("calls") for body in it.taken) and it.events)
    (calls,) = next(body["calls"] for body in recorder.taken if body.get("calls"))
    assert (calls["service"], calls["method"], calls["count"], calls["failures"]) == ("shop", "sell", 2, 1)
    assert only(recorder).kind == Kind.METHOD
    assert only(recorder).raised[0].frames[-1].function == "fail"
    assert monitor.remove_service(shop) is shop
    assert type(shop) is Shop
