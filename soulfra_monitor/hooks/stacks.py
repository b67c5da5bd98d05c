"""What frames hold, and whose they are."""

import os
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from soulfra_monitor.hooks.unused import read_later

ITEMS_LIMIT = 10_000
"""Items of a container that are looked through; a larger one counts as not holding anything."""

_PYTHON = str(Path(os.__file__).parent) + os.sep
_OURS = str(Path(__file__).parents[1]) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def holds(frame: FrameType, wanted: object) -> bool:
    """Whether a local variable of *frame* is *wanted*, or a plain container with it. By identity."""
    return any(value is wanted or _has(value, wanted) for value in list(frame.f_locals.values()))


def may_read(frame: FrameType, wanted: object) -> bool:
    """Whether *frame* holds *wanted* as ``holds`` says, and its code comes to the variable yet."""
    for name, value in list(frame.f_locals.items()):
        inside = value is not wanted
        if (not inside or _has(value, wanted)) and read_later(
            frame.f_code, frame.f_lasti, name, container=inside
        ):
            return True
    return False


def is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)


def _has(container: Any, wanted: object) -> bool:
    if type(container) not in (list, tuple, set, dict) or len(container) > ITEMS_LIMIT:
        return False
    items = list(container)  # at once, as another thread may change it
    if type(container) is dict:
        items += list(container.values())
    return any(item is wanted for item in items)


def leave(error: BaseException) -> None:
    """Take the frame that calls from the traceback of *error*, which it has caught and raises again."""
    traceback = error.__traceback__
    if traceback is not None and traceback.tb_frame is sys._getframe(1):  # noqa: SLF001 - nothing else knows
        error.__traceback__ = traceback.tb_next


def leave_all(error: BaseException) -> None:
    """Take our frames from the tracebacks of *error* and of all it came from, but for errors of ours."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without_ours(one.__traceback__)
        parts = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [other for other in (one.__cause__, one.__context__, *parts) if other is not None]


def _without_ours(first: TracebackType | None) -> TracebackType | None:
    """Return a traceback without our frames above others: what ended in one of ours is left as it is."""
    steps: list[TracebackType] = []
    while first is not None:
        steps.append(first)
        first = first.tb_next
    kept: TracebackType | None = None
    for step in reversed(steps):
        if kept is not None and step.tb_frame.f_code.co_filename.startswith(_OURS):
            continue
        if step.tb_next is not kept:
            step.tb_next = kept
        kept = step
    return kept


def at(frame: FrameType | None) -> str:
    """Return the innermost place of the program's own code, or the outermost of all."""
    place = ""
    while frame is not None:
        file = frame.f_code.co_filename
        place = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        if not file.startswith((_PYTHON, _OURS, "<frozen")) and not any(part in file for part in _INSTALLED):
            return place
        frame = frame.f_back
    return place


def here(depth: int = 1) -> str:
    """Return ``at`` of who called, *depth* frames up."""
    return at(sys._getframe(depth))  # noqa: SLF001 - nothing else knows
