"""Counts are exact, whoever counts and whoever looks, and nothing grows."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from soulfra_monitor import cells
from soulfra_monitor.cells import in_flight
from soulfra_monitor.events import BOUNDS, Calls
from soulfra_monitor.hooks import Reporter
from soulfra_monitor.watching import DEFAULTS, Options, watch

See = Callable[..., Any]
Counted = Callable[[], dict[str, Calls]]


class Service:
    def work(self, what: Callable[[], Any] = int) -> Any:
        return what()

    def fail(self) -> None:
        raise ValueError

    async def later(self, what: Callable[[], Any]) -> Any:
        result = what()
        return await result if asyncio.iscoroutine(result) else result

    def steps(self, what: Callable[[], Any]) -> Iterator[Any]:
        while True:
            yield what()


@pytest.fixture
def _short_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_short_switches")
def test_no_call_is_lost_while_threads_count_and_somebody_drains(see: See) -> None:
    service = see(Service())
    ready = threading.Barrier(5)
    ended = threading.Event()
    taken: list[Calls] = []

    def call() -> None:
        ready.wait()
        for number in range(2000):
            service.work()
            if number % 10 == 0:
                with pytest.raises(ValueError):  # noqa: PT011 - any of it
                    service.fail()

    def take() -> None:
        while not ended.is_set():
            taken.extend(cells.drain())

    threads = [threading.Thread(target=call) for _ in range(4)]
    drainer = threading.Thread(target=take)
    for thread in (*threads, drainer):
        thread.start()
    ready.wait()
    for thread in threads:
        thread.join()
    ended.set()
    drainer.join()
    taken.extend(cells.drain())

    counts, failures, seconds = Counter[str](), Counter[str](), Counter[str]()
    for calls in taken:
        assert calls.count == sum(calls.buckets)
        assert min(*calls.buckets, calls.failures, calls.seconds) >= 0
        counts[calls.method] += calls.count
        failures[calls.method] += calls.failures
        seconds[calls.method] += calls.seconds  # type: ignore[assignment]
    assert counts == {"work": 8000, "fail": 800}
    assert failures["fail"] == 800
    assert failures["work"] == 0
    assert all(seconds.values())


def test_threads_that_end_leave_their_counts_and_nothing_else(see: See, counted: Counted) -> None:
    service = see(Service())
    before = len(cells._live)

    for _ in range(2000):
        thread = threading.Thread(target=service.work)
        thread.start()
        thread.join()

    assert len(cells._live) - before <= 2
    assert len(cells._ended) <= 2
    assert counted()["work"].count == 2000


@pytest.mark.usefixtures("_short_switches")
def test_threads_that_end_together_lose_nothing(see: See, counted: Counted) -> None:
    service = see(Service())
    total = 0

    for _ in range(20):
        threads = [threading.Thread(target=service.work) for _ in range(50)]
        for thread in threads:
            thread.start()
        total += sum(calls.count for calls in cells.drain())
        for thread in threads:
            thread.join()
        total += sum(calls.count for calls in cells.drain())

    assert total == 1000
    assert len(cells._ended) == 0


def test_buckets_are_by_the_bounds_of_the_wire(told: Any) -> None:
    cell = cells.arrive().cell("", cells.Method("svc", "m", told))

    for seconds in (0.0, *BOUNDS, 11.0):
        cell.add(seconds)

    assert cell.tally().buckets == [2, *[1] * (len(BOUNDS) - 1), 1]


def _edges() -> set[tuple[str, str]]:
    return {(calls.caller, calls.service) for calls in cells.drain()}


class Quiet:
    """A reporter of nothing."""

    def raised(self, *_: Any, **__: Any) -> None: ...
    def noted(self, *_: Any, **__: Any) -> None: ...
    def broke(self, *_: Any, **__: Any) -> None: ...


def _service(name: str, options: Options = DEFAULTS) -> Service:
    reporter: Reporter = Quiet()
    return watch(Service(), name, reporter, options)


def test_calls_know_who_calls() -> None:
    a, b, c = _service("a"), _service("b"), _service("c")

    a.work(lambda: b.work(c.work))
    a.work()

    assert _edges() == {("", "a"), ("a", "b"), ("b", "c")}


def test_asynchronous_calls_know_who_calls() -> None:
    a, b, c, d = (_service(name) for name in "abcd")

    async def main() -> None:
        def both() -> Any:
            return asyncio.gather(b.later(lambda: asyncio.sleep(0)), c.later(lambda: asyncio.sleep(0)))

        async def inside() -> None:
            await both()
            d.work()
            await asyncio.to_thread(d.work)

        await a.later(inside)
        c.work()

    asyncio.run(main())

    assert _edges() == {("", "a"), ("a", "b"), ("a", "c"), ("a", "d"), ("", "c")}


def test_a_call_inside_of_a_loop_inside_of_a_call_knows_who_calls() -> None:
    a, b, c = _service("a"), _service("b"), _service("c")

    a.work(lambda: asyncio.run(b.later(c.work)))

    assert _edges() == {("", "a"), ("a", "b"), ("b", "c")}


def test_a_task_that_goes_on_knows_who_started_it() -> None:
    a, b, c = _service("a"), _service("b"), _service("c")

    async def main() -> None:
        gate = asyncio.Event()

        async def background() -> None:
            await gate.wait()
            b.work()

        task = await a.later(lambda: asyncio.ensure_future(background()))
        gate.set()
        await c.later(int)
        await task

    asyncio.run(main())

    assert _edges() == {("", "a"), ("a", "b"), ("", "c")}


def test_what_a_generator_calls_is_its_own_and_what_its_consumer_calls_is_not() -> None:
    a, b, c = _service("a"), _service("b"), _service("c")

    for _ in zip(range(2), a.steps(b.work), strict=False):
        c.work()

    gc.collect()
    assert _edges() == {("", "a"), ("a", "b"), ("", "c")}


def test_generators_may_go_from_thread_to_thread(see: See, counted: Counted) -> None:
    steps = see(Service()).steps(int)

    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(next, steps).result()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(steps.close).result()

    assert counted()["steps"].count == 1


def test_coroutines_may_go_from_thread_to_thread(see: See, counted: Counted) -> None:
    class Once:
        def __await__(self) -> Generator[None]:
            yield

    async def pause() -> None:
        await Once()

    coroutine = see(Service()).later(pause)
    thread = threading.Thread(target=coroutine.send, args=(None,))
    thread.start()
    thread.join()
    assert counted() == {}

    with pytest.raises(StopIteration):
        coroutine.send(None)

    assert counted()["later"].count == 1
    assert in_flight() == ()


def test_calls_under_way_are_seen_with_their_start_and_thread() -> None:
    a, b = _service("a", Options(timeout=2.5)), _service("b")
    inside, gate = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        gate.wait(10)

    thread = threading.Thread(target=lambda: a.work(lambda: b.work(hang)))
    began = cells.now()
    thread.start()
    assert inside.wait(10)

    outer, inner = in_flight()

    assert (outer.service, outer.method, outer.caller, outer.timeout) == ("a", "work", "", 2.5)
    assert (inner.service, inner.method, inner.caller, inner.timeout) == ("b", "work", "a", None)
    assert outer.thread == inner.thread == thread.ident
    assert began <= outer.started <= inner.started <= cells.now()
    assert {each.key for each in in_flight()} == {outer.key, inner.key}
    assert not outer.task
    gate.set()
    thread.join()
    assert in_flight() == ()


async def test_asynchronous_calls_under_way_are_seen() -> None:
    a = _service("a")
    gate = asyncio.Event()
    tasks = [asyncio.ensure_future(a.later(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)

    flights = in_flight()

    assert [(each.service, each.method, each.task) for each in flights] == [("a", "later", True)] * 3
    assert len({each.key for each in flights}) == 3
    assert {each.thread for each in flights} == {threading.get_ident()}
    gate.set()
    await asyncio.gather(*tasks)
    assert in_flight() == ()


def test_the_way_is_clear_after_an_error() -> None:
    a, b = _service("a"), _service("b")

    def fail() -> None:
        b.fail()

    with pytest.raises(ValueError):  # noqa: PT011
        a.work(fail)

    assert in_flight() == ()
    b.work()
    assert ("", "b") in _edges()


def test_tasks_that_start_tasks_keep_nothing_of_them() -> None:
    a = _service("a")
    alive: list[int] = []

    async def chain(left: int) -> None:
        if left:
            task = await a.later(lambda: asyncio.ensure_future(chain(left - 1)))
            if left == 1:
                gc.collect()
                alive.append(
                    sum(isinstance(each, asyncio.Task) and not each.done() for each in gc.get_objects())
                )
            await asyncio.sleep(0)
            del task

    async def main() -> None:
        await chain(50)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    asyncio.run(main())

    node = cells.task.get()
    assert node is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_tells_its_own_calls_only() -> None:
    code = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from soulfra_monitor import cells
from soulfra_monitor.watching import watch

class Service:
    def work(self, what=int):
        return what()

service = watch(Service(), "svc", None)
gate, inside = threading.Event(), threading.Event()
other = threading.Thread(target=service.work, args=(lambda: (inside.set(), gate.wait(10)),))
other.start()
inside.wait(10)
service.work(); service.work()

def split():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        flights = len(cells.in_flight())
        service.work()
        thread = threading.Thread(target=service.work); thread.start(); thread.join()
        counts = sorted((c.method, c.caller, c.count) for c in cells.drain())
        os.write(write, repr((flights, counts)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    print(os.read(read, 1000).decode())

service.work(split)
gate.set()
other.join()
print(sum(c.count for c in cells.drain()))
"""
    root = os.path.dirname(os.path.dirname(cells.__file__))  # noqa: PTH120
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, root],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.stderr == ""
    in_child, in_parent = result.stdout.splitlines()
    assert in_child == "(1, [('work', '', 1), ('work', 'svc', 1)])"
    assert in_parent == "4"


def test_a_process_ends_without_a_word() -> None:
    code = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from soulfra_monitor.watching import watch

class Service:
    def work(self): ...
    def __del__(self): self.work()

service = watch(Service(), "svc", None)
service.work()
threading.Thread(target=service.work).start()
threading.Thread(target=lambda: (service.work(), time.sleep(60)), daemon=True).start()
"""
    root = os.path.dirname(os.path.dirname(cells.__file__))  # noqa: PTH120
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, root],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
