"""Hung calls, threads at locks and blocked loops: real ones, and what only looks like them."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from soulfra_monitor import cells, watchdog
from soulfra_monitor.cells import Underway
from soulfra_monitor.events import BOUNDS, Kind
from soulfra_monitor.hooks.pulse import pulse
from soulfra_monitor.watching import Options, unwatch, watch

if TYPE_CHECKING:
    from .conftest import Kept
else:
    Kept = Any

ROOT = Path(__file__).parents[3]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture
def watched(kept: Kept) -> Iterator[None]:
    undo = watchdog.install(kept)
    yield
    undo()


class Engine:
    def __init__(self) -> None:
        self.go_on = threading.Event()

    def score(self) -> str:
        self._wait()
        return "done"

    def _wait(self) -> None:
        self.go_on.wait()

    async def fetch(self) -> None:
        await asyncio.to_thread(self.go_on.wait)


@pytest.mark.usefixtures("watched")
def test_a_call_over_its_timeout_is_told_once_with_its_stack_and_when_it_comes_back(kept: Kept) -> None:
    engine = watch(Engine(), "trust-engine", kept, Options(timeout=0.3))
    thread = threading.Thread(target=engine.score)
    thread.start()

    hung = kept.wait_for(Kind.HUNG)
    assert (hung.service, hung.facts["method"], hung.facts["limit"]) == ("trust-engine", "score", 0.3)
    assert hung.facts["seconds"] >= 0.3
    assert "_wait" in hung.stack

    engine.go_on.set()
    thread.join()
    back = kept.wait_for(Kind.SLOW)
    assert back.message == "score came back after all"
    assert len(kept.of(Kind.HUNG)) == 1
    unwatch(engine)


@pytest.mark.usefixtures("watched")
async def test_an_asynchronous_call_over_its_timeout_is_told(kept: Kept) -> None:
    engine = watch(Engine(), "trust-engine", kept, Options(timeout=0.3))
    task = asyncio.create_task(engine.fetch())

    hung = await asyncio.to_thread(kept.wait_for, Kind.HUNG)
    assert hung.facts["method"] == "fetch"

    engine.go_on.set()
    await task
    unwatch(engine)


def calls(started: float, timeout: float | None = None) -> tuple[Underway, ...]:
    call = Underway(
        service="s", method="m", caller="", thread=0, started=started, timeout=timeout, key=1, task=False
    )
    return (call,)


def test_without_a_timeout_the_usual_time_of_the_method_counts(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = watchdog.Calls(kept)
    monkeypatch.setattr(watchdog, "usual", lambda _: {("s", "m"): 5.0})
    monkeypatch.setattr(cells, "now", lambda: 100.0)

    monkeypatch.setattr(cells, "in_flight", lambda: calls(96.0))
    looked.look(1.0)
    assert kept.told == []

    monkeypatch.setattr(cells, "in_flight", lambda: calls(94.0))
    looked.look(2.0)
    looked.look(3.0)
    assert [note.facts["seconds"] for note in kept.told] == [6.0]


@pytest.mark.parametrize(
    ("buckets", "limit"),
    [
        ([99], None),  # too few to know
        ([1000], watchdog.USUAL_LEAST),
        ([0] * 8 + [1000], 10 * BOUNDS[8]),
        ([999, *[0] * 10, 1], watchdog.USUAL_LEAST),
        ([900, *[0] * 9, 100], 10 * BOUNDS[10]),
        ([0] * 12 + [1000], None),  # longer than anybody measures
    ],
)
def test_the_usual_time_is_ten_times_the_slowest_of_a_thousand(
    buckets: list[int], limit: float | None
) -> None:
    assert watchdog.limit_of(buckets + [0] * (13 - len(buckets))) == limit


def test_two_threads_at_each_others_locks_are_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOCK_LIMIT", 0.6)
    first, second = threading.Lock(), threading.Lock()
    both = threading.Barrier(2)

    def deadlock(mine: Any, theirs: Any) -> None:
        mine.acquire()
        both.wait()
        with theirs:
            pass

    threads = [threading.Thread(target=deadlock, args=locks) for locks in ((first, second), (second, first))]
    undo = watchdog.install(kept)
    for thread in threads:
        thread.start()

    hung = kept.wait_for(Kind.HUNG)
    first.release()
    for thread in threads:
        thread.join(watchdog.LOCK_LIMIT)
    second.release()
    undo()
    assert hung.stack[0] == "deadlock"
    assert hung.facts["lock"] == "mutual"
    assert any("deadlock" in other for other in hung.context["others"])


class Account:
    """Has a lock of its own, as many do."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def pay(self, other: "Account", both: threading.Barrier) -> None:
        self.lock.acquire()  # for the test to release
        both.wait()
        other.take()

    def take(self) -> None:
        with self.lock:
            pass


def looked_at(kept: Kept, monkeypatch: pytest.MonkeyPatch, threads: list[threading.Thread]) -> None:
    """Have threads looked at until they have stood for a while."""
    monkeypatch.setattr(watchdog, "LOCK_LIMIT", 0.3)
    for thread in threads:
        thread.start()
    locks, looked, ticks = watchdog.Locks(kept), threading.Event(), iter(range(8))
    undos = [
        pulse.add(locks.look, kept),
        pulse.add(lambda _: looked.set() if next(ticks, None) is None else None, kept),
    ]
    assert looked.wait(30)
    for undo in undos:
        undo()


def test_accounts_that_pay_each_other_wait_for_each_other(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, both = Account(), Account(), threading.Barrier(2)
    pairs = ((first, second), (second, first))
    threads = [threading.Thread(target=one.pay, args=(other, both)) for one, other in pairs]

    looked_at(kept, monkeypatch, threads)

    for account in (first, second):
        account.lock.release()
    for thread in threads:
        thread.join()
    assert [note.facts["lock"] for note in kept.told] == ["mutual", "mutual"]
    assert {note.stack[0] for note in kept.told} == {"take"}


def test_threads_at_locks_that_somebody_else_releases_are_told_late(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = [threading.Lock(), threading.Lock()]
    for gate in gates:
        gate.acquire()

    def worker(gate: Any) -> None:
        with gate:
            pass

    threads = [threading.Thread(target=worker, args=(gate,)) for gate in (*gates, gates[0])]

    looked_at(kept, monkeypatch, threads)
    early = list(kept.told)
    monkeypatch.setattr(watchdog, "ALONE_LIMIT", 0.6)
    undo = watchdog.install(kept)
    late = kept.wait_for(Kind.HUNG)
    undo()

    for gate in gates:
        gate.release()
    for thread in threads:
        thread.join()
    assert early == []
    assert late.facts["lock"] == "alone"


def test_threads_that_wait_for_work_or_an_event_are_not_hung(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOCK_LIMIT", 0.3)
    import queue  # noqa: PLC0415 - one of the ways to wait

    work: Any = queue.SimpleQueue()
    stop = threading.Event()
    lock = threading.Lock()
    lock.acquire()

    def worker() -> None:
        work.get()

    def waits_a_while() -> None:
        lock.acquire(timeout=30)

    threads = [threading.Thread(target=target) for target in (worker, stop.wait, waits_a_while)]
    for thread in threads:
        thread.start()
    locks, looked = watchdog.Locks(kept), threading.Event()
    undo = pulse.add(locks.look, kept)
    ticks = iter(range(6))
    undo_ticks = pulse.add(lambda _: looked.set() if next(ticks, None) is None else None, kept)

    assert looked.wait(30)

    undo()
    undo_ticks()
    work.put(None)
    stop.set()
    lock.release()
    for thread in threads:
        thread.join()
    assert kept.told == []


@pytest.mark.parametrize("name", LOOPS)
def test_a_blocked_loop_is_told_once_with_the_stack_of_what_blocks(name: str, kept: Kept) -> None:
    released = threading.Event()

    def blocks() -> None:
        released.wait()

    async def main() -> None:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(blocks)
        await asyncio.sleep(0)

    undo = watchdog.install(kept)
    thread = threading.Thread(target=_run, args=(LOOPS[name], main))
    thread.start()

    blocked = kept.wait_for(Kind.LOOP_BLOCKED)
    released.set()
    thread.join()
    undo()
    assert "blocks" in blocked.stack
    assert blocked.facts["seconds"] >= watchdog.LOOP_LIMIT
    assert len(kept.of(Kind.LOOP_BLOCKED)) == 1


def _run(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_uvloop_may_be_imported_later() -> None:
    script = """
import asyncio
from soulfra_monitor import watchdog
class Kept:
    def broke(self, place, error): raise error
loops = watchdog.Loops(Kept())
loops.patch(asyncio)
import uvloop
own = uvloop.Loop.run_forever
async def main():
    print(len(loops._beats))
uvloop.run(main())
print(len(loops._beats), uvloop.Loop.run_forever is own)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=60)

    assert done.stdout == "1\n0 True\n", done.stderr


@pytest.mark.parametrize("name", LOOPS)
def test_an_idle_loop_is_neither_told_nor_woken(name: str, kept: Kept) -> None:
    ticks = threading.Event()
    woken: list[Any] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        done = asyncio.Event()
        real = loop.call_soon_threadsafe

        def tell() -> None:
            ticks.wait()
            real(done.set)

        beat = next(iter(loops._beats.values()))
        beat.loop = _Counting(loop, woken)
        threading.Thread(target=tell).start()
        await done.wait()

    loops = watchdog.Loops(kept)
    loops.patch(asyncio)
    thread = threading.Thread(target=_run, args=(LOOPS[name], main))
    thread.start()
    left = iter(range(6))
    undos = [
        pulse.add(loops.look, kept),
        pulse.add(lambda _: ticks.set() if next(left, None) is None else None, kept),
        loops.unpatch,
    ]

    assert ticks.wait(30)
    thread.join()

    for undo in undos:
        undo()
    assert kept.told == []
    assert len(woken) <= 2  # it may have been at work when somebody looked, at the begin or the end


class _Counting:
    """A loop whose wake-ups are counted."""

    def __init__(self, loop: Any, woken: list[Any]) -> None:
        self._loop = loop
        self._woken = woken

    def call_soon_threadsafe(self, callback: Any) -> None:
        self._woken.append(callback)
        self._loop.call_soon_threadsafe(callback)


@pytest.mark.usefixtures("watched")
def test_a_busy_loop_that_answers_is_not_told(kept: Kept) -> None:
    async def main() -> None:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:  # noqa: ASYNC110 - the point is to be busy
            await asyncio.sleep(0)

    _run(asyncio.new_event_loop, main)

    assert kept.told == []


def test_a_process_that_was_stopped_is_not_told(tmp_path: Path) -> None:
    script = """
import asyncio, os, signal, subprocess, sys
from soulfra_monitor import watchdog
class Kept:
    def noted(self, kind, message, **_): print(kind, message)
    def broke(self, place, error): raise error
undo = watchdog.install(Kept())
async def main():
    subprocess.Popen(["sh", "-c", f"kill -STOP {os.getpid()}; sleep 1.5; kill -CONT {os.getpid()}"])
    for _ in range(100):
        await asyncio.sleep(0.02)
        sum(range(10000))
asyncio.run(main())
undo()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False, text=True, timeout=60
    )

    assert (done.stdout, done.stderr) == ("", "")


def test_what_holds_the_interpreter_itself_is_told(tmp_path: Path) -> None:
    script = """
import asyncio, re
from soulfra_monitor import watchdog
class Kept:
    def noted(self, kind, message, **_): print(kind)
    def broke(self, place, error): raise error
undo = watchdog.install(Kept())
async def main():
    await asyncio.sleep(0.6)
    re.match("(a+)+$", "a" * 25 + "b")
    await asyncio.sleep(0.6)
asyncio.run(main())
undo()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False, text=True, timeout=120
    )

    assert done.stdout.splitlines()[:1] == ["loop_blocked"], done


def test_the_thread_is_not_there_while_the_process_forks_and_goes_on_in_both(kept: Kept) -> None:
    looks = threading.Event()
    undo = pulse.add(lambda _: looks.set(), kept)

    pid = os.fork()
    if pid == 0:
        looks.clear()
        os._exit(0 if looks.wait(10) else 1)
    looks.clear()

    assert looks.wait(10)
    undo()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_check_that_fails_is_counted_and_the_others_go_on(kept: Kept) -> None:
    looks = threading.Event()

    def fails(_: float) -> None:
        raise ValueError("ours")

    undos = [pulse.add(fails, kept), pulse.add(lambda _: looks.set(), kept)]

    assert looks.wait(10)
    for undo in undos:
        undo()
    assert kept.broken[0][0] == "watchdog"
    kept.broken.clear()
