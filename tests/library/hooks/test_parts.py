"""What hooks are built of: late patches, undoing, looks after a grace time, values that are thrown away."""

import asyncio
import builtins
import concurrent.futures
import copy
import gc
import http.client
import importlib
import inspect
import io
import logging
import os
import pickle
import subprocess
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import pytest
import redis
import uvloop

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import futures, grace, stacks, unclosed
from soulfra_monitor.hooks.answers import bare
from soulfra_monitor.hooks.exits import failed, program_of
from soulfra_monitor.hooks.late import when_imported
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.table import HOOKS
from soulfra_monitor.hooks.unused import read_later, thrown_away

Recorder = Any
Install = Callable[..., None]
Program = Callable[..., Any]
Until = Callable[..., object]

ALL = tuple(name for name in HOOKS if name != "swallowed")


class Deaf:
    """A reporter that keeps nothing."""

    def raised(self, kind: Kind, error: BaseException, **_: Any) -> None:
        pass

    def noted(self, kind: Kind, message: str, **_: Any) -> None:
        pass

    def broke(self, place: str, error: BaseException) -> None:
        raise AssertionError(place) from error


# -- late --


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "late_package").mkdir()
    (tmp_path / "late_package" / "__init__.py").write_text("from late_package import inner\nready = True\n")
    (tmp_path / "late_package" / "inner.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "late_package", raising=False)
    monkeypatch.delitem(sys.modules, "late_package.inner", raising=False)
    return "late_package"


def test_a_module_is_told_when_it_is_complete(package: str) -> None:
    told: list[ModuleType] = []
    undo = when_imported(package, told.append)
    assert told == []

    module = importlib.import_module(package)

    assert told == [module]
    assert module.ready
    undo()


def test_an_inner_module_is_told_before_who_imports_it_goes_on(package: str) -> None:
    def change(module: ModuleType) -> None:
        module.value = 2  # type: ignore[attr-defined]

    undo = when_imported(f"{package}.inner", change)
    module = importlib.import_module(package)

    assert module.inner.value == 2
    undo()


def test_a_module_that_is_there_is_told_at_once() -> None:
    told: list[ModuleType] = []

    undo = when_imported("json", told.append)

    assert told == [sys.modules["json"]]
    undo()


def test_the_loader_looks_as_without_us(package: str) -> None:
    undo = when_imported(package, lambda _: None)

    module = importlib.import_module(package)

    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert "exec_module" not in vars(module.__loader__)
    undo()


def test_nothing_is_left_in_the_way_of_imports_after_the_undo(package: str) -> None:
    before = list(sys.meta_path)
    told: list[ModuleType] = []

    when_imported(package, told.append)()
    importlib.import_module(package)

    assert told == []
    assert sys.meta_path == before


# -- undoing --


def watched_attributes() -> dict[str, Any]:
    """Return everything that hooks replace."""
    pairs: list[tuple[Any, str]] = [
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
        (threading, "_make_invoke_excepthook"),
        (warnings, "_showwarnmsg"),
        (warnings, "_warn_unawaited_coroutine"),
        (logging.Logger, "callHandlers"),
        (traceback, "print_exception"),
        (concurrent.futures.Future, "set_exception"),
        (concurrent.futures.Future, "exception"),
        (concurrent.futures.Future, "cancel"),
        (asyncio.BaseEventLoop, "create_task"),
        (asyncio.BaseEventLoop, "call_exception_handler"),
        (uvloop.Loop, "create_task"),
        (uvloop.Loop, "call_exception_handler"),
        (asyncio.futures, "_copy_future_state"),
        (http.client.HTTPConnection, "connect"),
        (http.client.HTTPConnection, "getresponse"),
        (http.client.HTTPResponse, "read"),
        (aiohttp.ClientSession, "_request"),
        (httpx.HTTPTransport, "handle_request"),
        (redis.Redis, "execute_command"),
        (subprocess.Popen, "returncode"),
        (subprocess.Popen, "_handle_exitstatus"),
        (subprocess.CompletedProcess, "returncode"),
        (subprocess.CompletedProcess, "__init__"),
        (asyncio.subprocess.Process, "returncode"),
        (io, "open"),
        (os, "kill"),
        (os, "killpg"),
        (os, "execv"),
        (os, "execve"),
        (builtins, "open"),
    ]
    found = {f"{owner.__name__}.{name}": vars(owner).get(name) for owner, name in pairs}
    return {**found, "filters": list(warnings.filters)}


def test_undo_puts_everything_back(recorder: Recorder) -> None:
    before = watched_attributes()
    undos = []
    for place in (HOOKS[name] for name in ALL):
        module, _, function = place.partition(":")
        undos.append(getattr(importlib.import_module(module), function)(recorder))
    changed = watched_attributes()
    assert [name for name in before if changed[name] is not before[name]]

    for undo in reversed(undos):
        undo()

    assert watched_attributes() == before


def test_undo_leaves_what_somebody_has_put_on_top_and_tells_no_more(recorder: Recorder) -> None:
    patches = Patches(recorder, "test")
    owner = ModuleType("owner")
    owner.speak = lambda: "plain"  # type: ignore[attr-defined]

    def make(speak: Any) -> Any:
        def replaced() -> Any:
            patches.outlet.noted(Kind.LOGGED, "heard")
            return speak()

        return replaced

    patches.wrap(owner, "speak", make)
    ours: Any = owner.speak

    def theirs() -> str:
        return f"theirs, {ours()}"

    owner.speak = theirs  # type: ignore[attr-defined]

    patches.undo()

    assert owner.speak is theirs
    assert owner.speak() == "theirs, plain"
    assert recorder.told == []


def test_a_failure_of_ours_stays_ours(recorder: Recorder) -> None:
    patches = Patches(recorder, "test")

    assert patches.safely(lambda: 1 / 0) is None

    ((place, error),) = recorder.broken
    assert (place, repr(error)) == ("hooks.test", "ZeroDivisionError('division by zero')")
    recorder.broken.clear()


def test_functions_look_as_they_did(install: Install) -> None:
    before = {
        "open": (open.__name__, open.__doc__, repr(open)),
        "request": inspect.signature(aiohttp.ClientSession._request),
        "command": inspect.signature(redis.Redis.execute_command),
    }

    install(*ALL)

    assert (open.__name__, open.__doc__, repr(open)) == before["open"]
    assert pickle.loads(pickle.dumps(open)) is open
    assert pickle.loads(pickle.dumps(os.kill)) is os.kill
    assert io.open is open
    assert inspect.signature(aiohttp.ClientSession._request) == before["request"]
    assert inspect.iscoroutinefunction(aiohttp.ClientSession._request)
    assert inspect.signature(redis.Redis.execute_command) == before["command"]


@pytest.mark.parametrize("place", ["builtins.open", "os.kill", "os.killpg"])
def test_what_was_built_in_looks_built_in(install: Install, place: str) -> None:
    module, _, name = place.partition(".")

    def look() -> list[Any]:
        found = getattr(importlib.import_module(module), name)
        more = (found.__self__, found.__name__, found.__doc__, found.__text_signature__)
        kinds = (inspect.isbuiltin(found), inspect.isroutine(found), inspect.isfunction(found))
        same = pickle.loads(pickle.dumps(found)) is found and copy.copy(found) is found
        return [*kinds, *more, same, repr(found), inspect.signature(found)]

    before = look()
    install("files", "children")

    assert look() == before


def test_open_that_is_kept_in_a_class_does_not_become_a_method(install: Install, tmp_path: Path) -> None:
    install("files")

    class Store:
        reads = open

    store: Any = Store()
    with store.reads(tmp_path / "file", "w") as file:
        assert file.write("x") == 1


# -- grace --


def test_looks_come_after_their_time_and_the_thread_ends(until: Until) -> None:
    looked: list[str] = []

    grace.later(lambda: looked.append("once"), 0)
    until(lambda: looked == ["once"])

    until(lambda: not grace._at_work.locked())


def test_a_look_may_ask_to_look_again(until: Until) -> None:
    left = [0.0, 0.0]

    grace.later(lambda: left.pop() if left else None, 0)

    until(lambda: not left and not grace._waiting)


FORKS = """
import os, sys, time
sys.path.insert(0, {root!r})
os.register_at_fork(before=lambda: print(len(os.listdir("/proc/self/task")), end=" ", flush=True))
from soulfra_monitor.hooks import grace
from soulfra_monitor.hooks.pulse import pulse
grace.later(lambda: 60.0, 0)
while len(os.listdir("/proc/self/task")) == 1:
    time.sleep(0.01)
for _ in range(20):
    if os.fork() == 0:
        os._exit(len(os.listdir("/proc/self/task")) - 1)
    if os.wait()[1]:
        sys.exit("a child has our thread")
    while len(os.listdir("/proc/self/task")) == 1:
        time.sleep(0.01)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux says how many threads there are")
def test_what_waits_keeps_no_thread_across_a_fork(program: Program) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS.format(root=str(Path(__file__).parents[3]))],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.stdout.split(), done.stderr, done.returncode) == (["1"] * 20, "", 0)


def test_a_budget_is_per_second() -> None:
    now = [0.5]
    budget = grace.Budget(2, lambda: now[0])

    first = [budget.take() for _ in range(3)]
    now[0] = 1.0

    assert first == [True, True, False]
    assert budget.take()


def test_a_storm_of_failed_futures_is_told_whole(program: Program) -> None:
    source = """
from concurrent.futures import Future
kept = []
for number in range(12_000):
    future = Future()
    future.set_exception(ValueError(number))
    kept.append(future)
settle()
del kept, future
"""

    outcome = program(source, "futures")

    assert len(outcome.told) == 12_000


def test_a_loop_made_before_is_watched_as_one_made_after(recorder: Recorder, install: Install) -> None:
    before = asyncio.new_event_loop()
    install("tasks")
    after = asyncio.new_event_loop()

    async def fail() -> None:
        raise ValueError

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(0)
        del task
        await asyncio.sleep(0)

    for loop in (before, after):
        loop.set_exception_handler(lambda *_: None)
        loop.run_until_complete(main())
        loop.close()

    assert recorder.kinds == [Kind.TASK, Kind.TASK]


def test_a_short_task_gets_no_callback(recorder: Recorder, install: Install) -> None:
    install("tasks")

    async def main() -> str:
        task = asyncio.create_task(asyncio.sleep(0))
        shown = repr(task)
        await task
        return shown

    assert "cb=" not in asyncio.run(main())
    assert recorder.broken == []


def test_a_task_of_a_kind_that_takes_no_reference_gets_a_callback_at_once(
    recorder: Recorder, install: Install
) -> None:
    class Odd:
        __slots__ = ("called",)

        def add_done_callback(self, done: Callable[[Any], None]) -> None:
            self.called = done

    def make(_: asyncio.AbstractEventLoop, coroutine: Any, **__: Any) -> Any:
        coroutine.close()
        return Odd()

    install("tasks")
    loop = asyncio.new_event_loop()
    loop.set_task_factory(make)

    task: Any = loop.create_task(asyncio.sleep(0))

    loop.close()
    assert callable(task.called)
    assert recorder.broken == []


def test_a_loop_that_was_closed_before_its_tasks_were_looked_at_hurts_nobody(program: Program) -> None:
    source = """
import asyncio
loop = asyncio.new_event_loop()
task = loop.create_task(asyncio.sleep(1))
loop.run_until_complete(asyncio.sleep(0))
loop.close()
time.sleep(0.6)
task._log_destroy_pending = False
"""

    outcome = program(source, "tasks")

    assert (outcome.told, outcome.err) == ([], "")


def test_a_fork_leaves_new_tasks_to_the_parent(program: Program) -> None:
    source = """
import asyncio
async def fail():
    raise ValueError("planted")
async def main():
    kept = asyncio.create_task(fail())
    await asyncio.sleep(0)
    if os.fork() == 0:
        settle()
        os._exit(0)
    os.wait()
    await asyncio.get_running_loop().run_in_executor(None, settle)
asyncio.run(main())
"""

    outcome = program(source, "tasks")

    assert [one.message for one in outcome.told] == ["planted"]


def test_what_waits_is_settled_when_a_child_of_multiprocessing_ends(program: Program) -> None:
    source = """
from multiprocessing import get_context
from concurrent.futures import ThreadPoolExecutor
def fail():
    raise ValueError("planted")
def work():
    kept = ThreadPoolExecutor(1).submit(fail)
    while not kept.done():
        time.sleep(0.01)
    globals()["kept"] = kept
child = get_context("fork").Process(target=work)
child.start()
child.join()
"""

    outcome = program(source, *ALL)

    assert [one.message for one in outcome.told] == ["planted"]


def test_a_fork_leaves_what_waits_to_the_parent(program: Program) -> None:
    source = """
from concurrent.futures import ThreadPoolExecutor
def fail():
    raise ValueError("planted")
pool = ThreadPoolExecutor(1)
kept = pool.submit(fail)
while not kept.done():
    time.sleep(0.01)
if os.fork() == 0:
    settle()
    os._exit(0)
os.wait()
settle()
"""

    outcome = program(source, *ALL)

    assert [one.message for one in outcome.told] == ["planted"]


# -- thrown away --


def gives() -> list[bool]:
    frame = sys._getframe(1)
    verdicts.append(thrown_away(frame.f_code, frame.f_lasti))
    return []


verdicts: list[bool] = []


def drops() -> None:
    gives()


def never_reads() -> None:
    kept = gives()  # noqa: F841 - the point


def reads() -> int:
    kept = gives()
    return len(kept)


def hands_on() -> list[bool]:
    return gives()


def passes() -> None:
    len(gives())


def branches() -> None:
    if gives():
        return


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (drops, True),
        (never_reads, True),
        (reads, False),
        (hands_on, False),
        (passes, False),
        (branches, False),
    ],
)
def test_a_value_is_thrown_away_if_nothing_reads_it(function: Callable[[], object], expected: bool) -> None:
    verdicts.clear()

    function()

    assert verdicts == [expected]


def asks(name: str, *, container: bool = False) -> bool:
    frame = sys._getframe(1)
    verdicts.append(read_later(frame.f_code, frame.f_lasti, name, container=container))
    return False


def reads_it_afterwards(kept: object) -> object:
    asks("kept")
    return kept


def has_read_it(kept: object) -> None:
    len(str(kept))
    asks("kept")


def reads_it_each_time(kept: object) -> None:
    for _ in range(1):
        str(kept)
        asks("kept")


def has_read_it_before_the_loop(kept: object) -> None:
    str(kept)
    for _ in range(1):
        asks("kept")


def goes_through_it(kept: list[object]) -> None:
    for _ in kept:
        asks("kept", container=True)


def went_through_it(kept: list[object]) -> None:
    for _ in kept:
        pass
    asks("kept", container=True)


def has_a_function_that_reads_it(kept: object) -> Callable[[], object]:
    reads = lambda: kept  # noqa: E731 - the point
    asks("kept")
    return reads


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (reads_it_afterwards, True),
        (has_read_it, False),
        (reads_it_each_time, True),
        (has_read_it_before_the_loop, False),
        (goes_through_it, True),
        (went_through_it, False),
        (has_a_function_that_reads_it, True),
    ],
)
def test_whether_a_variable_is_read_later_is_in_the_code(
    function: Callable[[Any], object], expected: bool
) -> None:
    verdicts.clear()

    function([1])

    assert verdicts == [expected]


# -- small decisions --


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://u:p@shop.test/cart?a=1#b", ("http://shop.test/cart", "shop.test:80")),
        ("https://shop.test", ("https://shop.test", "shop.test:443")),
        ("http://[::1]:81/x", ("http://[::1]:81/x", "[::1]:81")),
        ("/cart?x", ("/cart", "")),
    ],
)
def test_an_address_is_told_without_what_may_be_secret(url: str, expected: tuple[str, str]) -> None:
    assert bare(url) == expected


@pytest.mark.parametrize(
    ("program", "code", "expected"),
    [
        (["x"], 0, False),
        (["x"], 1, True),
        (["x"], 3, True),
        (["x"], -9, True),
        (["x"], -15, False),
        (["sh"], 143, False),
        (["sh"], 137, True),
        (["grep", "x"], 1, False),
        ([b"/bin/grep", b"x"], 1, False),
        ("grep x file", 1, False),
        ("LANG=C /bin/grep x file | sort", 1, False),
        ("cat file | grep -c x", 1, False),
        ("if ! grep -q x file; then exit 1; fi", 1, False),
        ("cp grep target", 1, True),
        ("cp a b", 1, True),
        (["bash", "-c", "grep -q x file"], 1, False),
        (["bash", "-ec", "cp a b"], 1, True),
        (["git", "diff", "--quiet"], 1, False),
        (["git", "push"], 128, True),
        (["grep", "x"], 2, True),
        (None, 1, True),
    ],
)
def test_which_ends_of_a_child_are_failures(program: object, code: int, expected: bool) -> None:
    assert failed(program, code) is expected


def test_arguments_of_a_program_are_not_told() -> None:
    assert program_of(["/usr/bin/mysql", "--password=x"]) == "mysql"
    assert program_of("PASSWORD=x mysql") == "sh"


def test_the_place_told_is_the_programs_own() -> None:
    places = list(map(lambda _: stacks.here(), [0]))  # noqa: C417 - called from within

    assert places[0].startswith(__file__)


def test_a_resource_warning_that_was_shown_before_is_shown_still(program: Program) -> None:
    source = "import socket\ndef leak():\n    socket.socket()\nleak()"

    shown = program(source, *ALL, options=("-W", "default"))
    hidden = program(source, *ALL)

    assert "ResourceWarning" in shown.err
    assert "ResourceWarning" not in hidden.err
    assert [one.kind for one in (*shown.told, *hidden.told)] == [Kind.RESOURCE] * 2


def test_a_resource_warning_that_was_an_error_is_one_still(program: Program) -> None:
    source = "import socket\ndef leak():\n    socket.socket()\nleak()"

    outcome = program(source, *ALL, options=("-W", "error"))

    assert [(one.kind, one.type) for one in outcome.told] == [(Kind.RESOURCE, "ResourceWarning")]


def test_twenty_files_within_a_minute_are_too_many() -> None:
    files: deque[float] = deque(maxlen=unclosed.FILES)

    slow = [unclosed._too_many(files, 4.0 * number) for number in range(100)]
    fast = [unclosed._too_many(files, 1000.0 + number) for number in range(25)]

    assert not any(slow)
    assert fast == [False] * 19 + [True] * 6


def test_recorded_warnings_are_the_programs_own(install: Install, recorder: Recorder) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        install("unclosed")
        warnings.warn("unclosed thing", ResourceWarning, stacklevel=1)

    assert [str(one.message) for one in caught] == ["unclosed thing"]
    assert recorder.told == []


def test_a_failed_future_is_gone_when_nobody_holds_it() -> None:
    undo = futures.install(Deaf())
    gone = threading.Event()

    class Payload:
        def __del__(self) -> None:
            gone.set()

    gc.disable()
    try:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        error = ValueError("planted")
        error.payload = Payload()  # type: ignore[attr-defined]
        future.set_exception(error)
        del error, future

        assert gone.is_set()
    finally:
        gc.enable()
        undo()
