"""Results of pools that nobody asks for: ``concurrent.futures``.

Nothing is done about futures that succeed. A failed one gets a mark that lives as long as it does; the mark
knows that the error was raised again by ``result()`` from its traceback, which has grown by then, so that
``result`` itself stays as it is.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any
from weakref import ref

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo, grace
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import holds, leave, may_read

MARK = "_soulfra_unread"
PATIENCE = 60.0
"""Seconds that a future in line is waited for, see ``_in_line``."""

STACKS_DEPTH = 50
"""Frames looked at of a thread."""

_WAITING = ("result", "exception", "wait", "as_completed")

LOOKS = grace.Budget(50)
"""Looks at the stacks of all threads; an error above that is told without."""


def install(reporter: Reporter) -> Undo:
    """Report an error that is not asked for within the grace time, or before its future is gone.

    Who holds the future in a variable that is yet to be read has a minute. An error that is reported though
    somebody still holds it has the fact ``held``, in seconds: it may be asked for after all.

    ``result()`` and ``exception()`` ask, and so do ``asyncio.wrap_future`` and ``run_in_executor``; callbacks
    ask if they call one of these. Who cancels a future wants to know nothing of it. A pool that broke is
    reported at once, whoever asks.
    """
    patches = Patches(reporter, "futures")
    patches.on_import("concurrent.futures._base", lambda module: _fit(patches, module))
    patches.on_import("multiprocessing.pool", lambda module: _fit_pool(patches, module))
    return patches.undo


class _Mark:
    """Stands on a failed future until somebody asks for the error."""

    __slots__ = ("__weakref__", "_error", "_patches", "_traceback", "read")

    def __init__(self, patches: Patches, error: BaseException) -> None:
        self.read = False
        self._patches = patches
        self._error = error
        self._traceback = error.__traceback__

    @property
    def pending(self) -> bool:
        return not self.read and self._error.__traceback__ is self._traceback

    def look(self, held: float = 0.0) -> None:
        """Report the error unless it was asked for, once. *held*: seconds for which somebody has kept it."""
        if self.pending:
            self._patches.outlet.raised(
                Kind.FUTURE, self._error, facts={"held": round(held, 1)} if held else None
            )
        self.read = True

    def __del__(self) -> None:
        self.look()


def _fit(patches: Patches, module: ModuleType) -> None:
    def make_set(set_exception: Any) -> Any:
        def replaced(self: Any, exception: BaseException | None) -> None:
            mark = patches.safely(_mark, patches, self, exception)
            try:
                set_exception(self, exception)
            except BaseException as error:
                if mark is not None:  # it had a result already
                    mark.read = True
                leave(error)
                raise

        return replaced

    def make_get(exception: Any) -> Any:
        def replaced(self: Any, timeout: float | None = None) -> BaseException | None:
            error: BaseException | None = exception(self, timeout)
            if error is not None:
                _read(self)
            return error

        return replaced

    def make_cancel(cancel: Any) -> Any:
        def replaced(self: Any) -> bool:
            _read(self)  # as ``map`` does with what is left after the first error
            return bool(cancel(self))

        return replaced

    patches.wrap(module.Future, "set_exception", make_set)
    patches.wrap(module.Future, "exception", make_get)
    patches.wrap(module.Future, "cancel", make_cancel)


def _read(future: Any) -> None:
    mark = vars(future).get(MARK)
    if mark is not None:
        mark.read = True


def _mark(patches: Patches, future: Any, error: BaseException | None) -> _Mark | None:
    if not isinstance(error, Exception):
        return None  # cancellations, and what leaves a program
    if any(kind.__name__ == "BrokenExecutor" for kind in type(error).__mro__):
        patches.outlet.raised(Kind.CHILD, error)
        return None
    mark = _Mark(patches, error)
    vars(future)[MARK] = mark
    _watch(patches, mark, future, _in_line)
    return mark


def _watch(patches: Patches, mark: _Mark, future: Any, not_yet: Callable[[Any], bool]) -> None:
    """Have the mark looked at after the grace time, unless it is gone by then and has looked itself."""
    place, owner = ref(mark), ref(future)
    since = time.monotonic()

    def look() -> float | None:
        found, kept = place(), owner()
        if found is None or not found.pending:
            return None
        if kept is None or grace.is_ending():
            found.look()
            return None
        held = time.monotonic() - since
        if held < PATIENCE and not_yet(kept):
            return grace.next_pause(held)
        found.look(held)
        return None

    patches.look_later(look)


def _in_line(future: Any) -> bool:
    """Whether some thread that holds *future* in a local variable may yet ask it.

    It waits for another future: ``for f in futures: f.result()`` comes to a failed one only after those
    before it. Or its code comes to the variable later.
    """
    if not LOOKS.take():
        return False
    for frames, waits in _stacks():
        if any(holds(frame, future) if waits else may_read(frame, future) for frame in frames):
            return True
    return False


def _stacks() -> Iterator[tuple[list[FrameType], bool]]:
    """Give the frames of other threads, and whether they wait inside ``concurrent.futures``."""
    me = threading.get_ident()
    for ident, top in list(sys._current_frames().items()):  # noqa: SLF001 - the only way to see other threads
        if ident == me:
            continue
        frames: list[FrameType] = []
        frame: FrameType | None = top
        while frame is not None and len(frames) < STACKS_DEPTH:
            frames.append(frame)
            frame = frame.f_back
        inside = [one for one in frames if one.f_globals.get("__name__") == "concurrent.futures._base"]
        waits = bool(inside) and inside[0].f_code.co_name in _WAITING
        yield [one for one in frames if one not in inside], waits


def _fit_pool(patches: Patches, module: ModuleType) -> None:
    """See to results of ``multiprocessing.Pool``, unless they have a callback for errors."""

    def make(put: Any) -> Any:
        def replaced(self: Any, i: Any, obj: Any) -> None:
            patches.safely(_mark_result, patches, self, obj)
            put(self, i, obj)

        return replaced

    patches.wrap(module.ApplyResult, "_set", make)
    patches.wrap(module.MapResult, "_set", make)


def _mark_result(patches: Patches, result: Any, told: tuple[bool, Any]) -> None:
    success, error = told
    if success or result._error_callback or MARK in vars(result):  # noqa: SLF001 - it has no other name
        return
    if isinstance(error, Exception):
        mark = _Mark(patches, error)
        vars(result)[MARK] = mark
        _watch(patches, mark, result, _unready)


def _unready(result: Any) -> bool:
    return not result.ready()
