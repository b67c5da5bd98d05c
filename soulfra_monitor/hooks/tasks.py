"""Errors that stay in asyncio: tasks nobody awaits, callbacks, async generators.

Works on classes, so that loops made earlier and later are alike, and changes neither task factories nor
results. A task's ``_log_traceback`` is true while nobody has asked for its error.

A callback for each task costs more than most tasks do. So a new task is only noted, and looked at from the
thread of ``pulse``; one that is not done by then lives long enough to be given a callback.
"""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any
from weakref import ref

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo, grace
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import holds, is_ours, may_read
from soulfra_monitor.hooks.unused import thrown_away

PATIENCE = 60.0
"""Seconds that a task in line is waited for, see ``_in_line``."""

TASKS_LIMIT = 300
"""Tasks looked through for one that holds another; a program with more is told without."""

LOOKS = grace.Budget(20)
"""Failed tasks that the loop is asked about; one above that is told without."""

SEEN_LATER = grace.GRACE - grace.TICK / 2
"""Seconds from the look that finds a failed task to its first own: it failed up to a tick before."""

_newborn: deque[ref[Any]] = deque(maxlen=grace.LIMIT)
"""Tasks made since the last look at them."""

_is_due = False  # whether there will be another


def install(reporter: Reporter) -> Undo:
    """Report errors of tasks that nobody asks for within the grace time, and all that loops are told of.

    Who holds the task in a variable that is yet to be read has a minute. An error that is reported though
    somebody still holds its task has the fact ``held``, in seconds: it may be asked for after all.

    ``await``, ``gather``, ``TaskGroup``, ``result()`` and ``exception()`` ask. The errors in the results of
    ``gather(return_exceptions=True)`` are reported where the program throws the results away. Tasks made by
    calling ``asyncio.Task`` itself are reported only when they are finalised.
    """
    patches = Patches(reporter, "tasks")
    patches.later(_forget)
    patches.on_import("asyncio.base_events", lambda module: _fit_loop(patches, module.BaseEventLoop))
    patches.on_import("uvloop", lambda module: _fit_loop(patches, module.Loop))
    patches.on_import("asyncio.futures", lambda module: _fit_futures(patches, module))
    patches.on_import("asyncio.tasks", lambda module: _fit_gather(patches, module))
    return patches.undo


def _fit_loop(patches: Patches, loop: type) -> None:
    def make_handler(call: Any) -> Any:
        def call_exception_handler(self: Any, context: dict[str, Any]) -> None:
            patches.safely(_tell, patches, context)
            call(self, context)

        return call_exception_handler

    done = _done(patches)
    note = _newborn.append

    def make_create(create: Any) -> Any:
        def create_task(self: Any, coro: Any, **options: Any) -> Any:
            task = create(self, coro, **options) if options else create(self, coro)
            try:
                note(ref(task))
            except TypeError:  # of somebody's own making
                task.add_done_callback(done)
            if not _is_due:
                _look_soon(patches, done)
            made = getattr(task, "_source_traceback", None)
            if made:  # in debug mode: who made it, and not by what means
                del made[-1]
            return task

        return create_task

    patches.wrap(loop, "call_exception_handler", make_handler)
    patches.wrap(loop, "create_task", make_create)


def _tell(patches: Patches, context: dict[str, Any]) -> None:
    """Report what a loop is told; its own message says what it was at."""
    message = str(context.get("message") or "Unhandled exception in event loop")
    error = context.get("exception")
    future = context.get("future") or context.get("task")
    if isinstance(error, BaseException):
        kind = Kind.TASK if future is not None and "never retrieved" in message else Kind.CALLBACK
        patches.outlet.raised(kind, error, context={"loop": message})
    elif not message.startswith("Unclosed"):  # that comes as a ResourceWarning too
        what = {"task": _name(future)} if future is not None else None
        patches.outlet.noted(Kind.TASK if future is not None else Kind.CALLBACK, message, context=what)


def _name(task: Any) -> str:
    coroutine = getattr(task, "get_coro", lambda: None)()
    return str(getattr(coroutine, "__qualname__", None) or type(task).__name__)


def _look_soon(patches: Patches, done: Callable[[Any], None]) -> None:
    """Have the new tasks looked at, once for all that come until then."""
    global _is_due  # noqa: PLW0603 - one process, one list

    def look() -> None:
        global _is_due  # noqa: PLW0603 - likewise
        _is_due = False
        _look(patches, done)

    _is_due = True
    if not patches.look_later(look, 0.0):  # at the next tick
        _is_due = False


def _look(patches: Patches, done: Callable[[Any], None]) -> None:
    """Look once at each new task, and see to it that those that go on tell when they are done."""
    going: dict[Any, list[ref[Any]]] = {}
    for _ in range(len(_newborn)):
        try:
            place = _newborn.popleft()
        except IndexError:  # the process is ending and settles
            break
        if place() is None:  # done, and read or told to its loop: so it is with most
            continue
        loop = patches.safely(_see, patches, place)
        if loop is not None:
            going.setdefault(loop, []).append(place)
    for loop, places in going.items():
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            loop.call_soon_threadsafe(_accompany, places, done)


def _see(patches: Patches, place: ref[Any]) -> Any:
    """Have a task that has failed looked at; return the loop of one that goes on.

    No task outlives this by us: its last reference is for its own thread to drop.
    """
    task = place()
    if task is None:
        return None
    if not task.done():
        return task.get_loop()
    if getattr(task, "_log_traceback", False):
        look = _Look(patches, task)
        if grace.is_ending():
            look()
        else:
            patches.look_later(look, SEEN_LATER)
    return None


def _accompany(places: list[ref[Any]], done: Callable[[Any], None]) -> None:
    """Run in the loop: have *done* called for each task."""
    for place in places:
        task = place()
        if task is not None:
            task.add_done_callback(done)


def _forget() -> None:
    """Leave tasks to the parent, whose they are."""
    global _is_due  # noqa: PLW0603 - one process, one list
    _newborn.clear()
    _is_due = False


os.register_at_fork(after_in_child=_forget)


def _done(patches: Patches) -> Callable[[Any], None]:
    def soulfra_done(task: Any) -> None:
        if getattr(task, "_log_traceback", False):
            patches.look_later(_Look(patches, task))

    return soulfra_done


class _Look:
    """Looks at a failed task after the grace time. One that is gone by then was told to its loop."""

    __slots__ = ("_answer", "_asked", "_patches", "_since", "_task")

    def __init__(self, patches: Patches, task: Any) -> None:
        self._patches = patches
        self._task = ref(task)
        self._asked = False
        self._answer: bool | None = None
        self._since = time.monotonic()

    def __call__(self) -> float | None:
        task = self._task()
        if task is None or not task._log_traceback:  # noqa: SLF001 - the only place where it stands
            return None
        loop = task.get_loop()
        kept, held = loop.is_running() and not grace.is_ending(), time.monotonic() - self._since
        if kept and self._waits(loop, held):
            return grace.TICK if self._answer is None else grace.next_pause(held)
        facts = {"held": round(held, 1)} if kept else None
        # Not by exception(), which would count as asking for it.
        self._patches.outlet.raised(Kind.TASK, task._exception, facts=facts)  # noqa: SLF001
        return None

    def _waits(self, loop: Any, held: float) -> bool:
        """Whether somebody may yet come to ask.

        The loop itself says so: one that hangs has not yet got to those who wait for the task.
        """
        if not self._asked:
            if not LOOKS.take():
                return False
            self._asked, self._answer = True, None
            try:
                loop.call_soon_threadsafe(self._see)
            except RuntimeError:  # closed meanwhile
                return False
            return True
        if self._answer:
            self._asked = False
            return held < PATIENCE
        return self._answer is None

    def _see(self) -> None:
        task = self._task()
        self._answer = bool(task is not None and self._patches.safely(_in_line, task))


def _in_line(task: Any) -> bool:
    """Whether a coroutine that holds *task* in a local variable may yet ask it.

    It waits for another task: ``for task in tasks: await task`` comes to a failed one only after those before
    it. Or its code comes to the variable later, or that of who runs the loop.
    """
    asyncio = sys.modules["asyncio"]
    others = asyncio.all_tasks()
    if len(others) > TASKS_LIMIT:
        return False
    for other in others:
        frames = list(_frames(other.get_coro()))
        waits = isinstance(getattr(other, "_fut_waiter", None), asyncio.Task)
        waits = waits or any(_waits_for_some(frame) for frame in frames)
        if any(holds(frame, task) if waits else may_read(frame, task) for frame in frames):
            return True
    return any(may_read(frame, task) for frame in _callers())


def _callers() -> Iterator[FrameType]:
    """Give the frames below the loop, which runs us."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - nothing else knows
    while frame is not None:
        if not is_ours(frame):
            yield frame
        frame = frame.f_back


def _waits_for_some(frame: FrameType) -> bool:
    """Whether *frame* is one of ``asyncio.wait`` or ``as_completed``."""
    return frame.f_globals.get("__name__") == "asyncio.tasks" and frame.f_code.co_name in (
        "_wait",
        "_wait_for_one",
    )


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """Give the frames of a suspended coroutine, outermost first."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return
        yield frame
        coroutine = coroutine.cr_await


def _fit_futures(patches: Patches, module: ModuleType) -> None:
    """See to futures of executors: they are no tasks, and have no one to tell but the garbage collector."""

    def make(copy: Any) -> Any:
        def _copy_future_state(source: Any, dest: Any) -> None:
            copy(source, dest)
            if getattr(dest, "_log_traceback", False):
                patches.look_later(_Look(patches, dest))

        return _copy_future_state

    patches.wrap(module, "_copy_future_state", make)


def _fit_gather(patches: Patches, module: ModuleType) -> None:
    future = module._GatheringFuture  # noqa: SLF001 - what gather returns

    def make(put: Any) -> Any:
        def set_result(self: Any, result: Any) -> None:
            for one in result:
                if isinstance(one, Exception):
                    patches.safely(_tell_ignored, patches, self, result)
                    break
            put(self, result)

        return set_result

    patches.wrap(future, "set_result", make)


def _tell_ignored(patches: Patches, future: Any, results: list[Any]) -> None:
    """Report the errors among *results* if the coroutine that awaits them throws them away."""
    for callback, _ in future._callbacks or ():  # noqa: SLF001 - who awaits it
        task: Any = getattr(callback, "__self__", None)
        frames = list(_frames(task.get_coro())) if hasattr(task, "get_coro") else []
        if frames and thrown_away(frames[-1].f_code, frames[-1].f_lasti):
            for error in results:
                if isinstance(error, Exception):
                    patches.outlet.raised(Kind.TASK, error)
