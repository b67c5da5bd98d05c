"""Swallowed errors on Python 3.12 and later: the interpreter tells of every exception that is handled.

It tells at the first ``except`` of a try, and at each ``finally``, before anybody knows which handler takes
the exception. So the handler is found as Python finds it: the first whose classes fit. The answer is kept by
place and type; a handled exception costs two lookups from then on.
"""

import ast
import builtins
import opcode
import sys
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FrameType, ModuleType
from typing import Any

from soulfra_monitor.hooks import Undo, handled, program, shapes
from soulfra_monitor.hooks.swallowed import Broke, Site, Tell

PLACES_LIMIT = 10_000
"""Places and types remembered of one file: a program may make classes without end."""

_HANDLER = opcode.opmap["PUSH_EXC_INFO"]

Place = tuple[int, int, type[BaseException]]  # first line of the code, offset, type


def install(tell: Tell, broke: Broke) -> Undo | None:
    """Listen to handled exceptions; None if other tools hold all ids."""
    return handled.on_handled(_listener(tell, broke))


def _listener(tell: Tell, broke: Broke) -> handled.Handled:
    files: dict[str, dict[Place, Site | None]] = {}

    def swallows(code: CodeType, offset: int, error: BaseException) -> None:
        try:
            places = files[code.co_filename]
        except KeyError:
            places = files[code.co_filename] = {}
        place = (code.co_firstlineno, offset, type(error))
        try:
            site = places[place]
        except KeyError:
            site = judged(places, place, code, error)
        if site is not None:
            site.hit(error)

    def judged(
        places: dict[Place, Site | None], place: Place, code: CodeType, error: BaseException
    ) -> Site | None:
        site = None
        try:
            finding = _finding(code, place[1], error, _frame_of(code))
            site = None if finding is None else Site(code.co_filename, finding, tell)
        except RecursionError:  # the program is at its depth: judged when it comes by again
            return None
        except Exception as failure:  # noqa: BLE001 - the edge to the host
            broke("swallowed.judge", failure)
        if len(places) > PLACES_LIMIT:
            places.clear()
        places[place] = site
        return site

    return swallows


def _frame_of(code: CodeType) -> FrameType:
    """Return the frame that runs *code*, some steps up."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - nothing else knows
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    assert frame is not None  # noqa: S101 - Python is calling from it
    return frame


def _finding(code: CodeType, offset: int, error: BaseException, frame: FrameType) -> shapes.Finding | None:
    line = _line(code, offset)
    source = program.source(code.co_filename)
    if (node := source.handlers.get(line)) is not None:
        handler = next((one for one in node.handlers if _takes(one, error, frame)), None)
        return None if handler is None else shapes.judge(node, handler)
    if (node := source.finals.get(line)) is not None:
        return shapes.judge_finally(node)
    return None


def _line(code: CodeType, offset: int) -> int:
    """Return the line of the handler at *offset*, 0 where Python only tidies up after one.

    The first instruction of a handler has no line; the next one has.
    """
    if code.co_code[offset] != _HANDLER:
        return 0
    positions = islice(code.co_positions(), offset // 2 + 1, None)
    return next((line for line, *_ in positions if line is not None), 0)


def _takes(handler: ast.ExceptHandler, error: BaseException, frame: FrameType) -> bool:
    """Tell whether *handler* is for *error*: by its classes where they are global, else by their names."""
    if handler.type is None:
        return True
    parts = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(_fits(part, one, frame) for part in parts for one in _members(error))


def _members(error: BaseException) -> Iterator[BaseException]:
    """Give the error, and for ``except*`` those in the group."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _members(member)


def _fits(part: ast.expr, error: BaseException, frame: FrameType) -> bool:
    classes = _resolved(part, frame)
    if isinstance(classes, (type, tuple)):
        try:
            return isinstance(error, classes)
        except TypeError:  # a tuple of something else; Python is about to say so
            return False
    return bool({kind.__name__ for kind in type(error).__mro__}.intersection(shapes.names(part)))


def _resolved(expression: ast.expr, frame: FrameType) -> Any:
    """Return what a dotted name stands for, without running any code of the program; None if unknown."""
    if isinstance(expression, ast.Name):
        missing = vars(builtins).get(expression.id)
        return frame.f_globals.get(expression.id, missing)
    if isinstance(expression, ast.Attribute):
        holder = _resolved(expression.value, frame)
        return vars(holder).get(expression.attr) if isinstance(holder, (type, ModuleType)) else None
    return None
