"""Swallowed errors before Python 3.12, in modules that were imported before the hook.

Their functions get the code that they would have had: the module's source is compiled twice, as it stands and
with the calls of ``swallowed_ast``, and a function whose code is exactly what the source says gets its twin
with the calls. Where the source has changed since, or somebody else has changed the code (pytest's asserts, a
compiler), nothing is equal, and nothing is done. What runs at this moment goes on with the code that it has:
a module's own top level, and a loop that was entered before. What a module defines further down than the line
that installs the hook is found a moment later (``LOOKS``).
"""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from types import CodeType, FrameType, FunctionType
from weakref import ref

from soulfra_monitor.hooks import Undo, grace, program

SECONDS = 1.0
"""Time after which no further module is begun. Enough for some 25,000 lines."""

OBJECTS_LIMIT = 3_000_000
"""Objects of the process above which none of it is done: only to look through them takes a second."""

LOOKS = (0.02, 0.1, 0.5, 2.0, 10.0)
"""Seconds after the hook, one after the other, at which functions are looked for that a module defines below
the line that installs the hook."""

Rewrite = Callable[[bytes, str], CodeType | None]
Broke = Callable[[str, BaseException], None]
Twins = dict[tuple[str, CodeType], CodeType]


def remark(rewrite: Rewrite, broke: Broke) -> Undo:
    """Give the functions of the program's loaded modules the code that *rewrite* makes of their source."""
    loaded = _Loaded(rewrite, broke)
    loaded.begin(_running(sys._getframe(1)))  # noqa: SLF001 - who installs it
    return loaded.undo


class _Loaded:
    """The loaded modules whose handlers are known, and the functions that have been changed."""

    def __init__(self, rewrite: Rewrite, broke: Broke) -> None:
        self._rewrite = rewrite
        self._broke = broke
        self._twins: dict[str, Twins] = {}
        self._swapped: list[tuple[ref[FunctionType], CodeType, CodeType]] = []
        self._undone = False

    def begin(self, running: frozenset[str]) -> None:
        """Change what there is, and later what the modules that are *running* define further down."""
        files = _files()
        self._safely(lambda: self._see_to(_functions(files)))
        looks = list(LOOKS)

        def look() -> float | None:
            if not self._undone:
                self._safely(lambda: self._swap(_functions(running)))
            return looks.pop(0) if looks and not self._undone else None

        for file in running & files:
            self._safely(partial(self._read, file))
        if any(map(self._twins.get, running)):
            grace.later(look, looks.pop(0))

    def undo(self) -> None:
        """Give every function its own code back, unless somebody has given it another meanwhile."""
        self._undone = True
        for place, before, after in self._swapped:
            function = place()
            if function is not None and function.__code__ is after:
                function.__code__ = before

    def _see_to(self, functions: dict[str, list[FunctionType]]) -> None:
        until, left = monotonic() + SECONDS, list(functions)
        while left and monotonic() < until:
            self._read(left.pop(0))
        self._swap(functions)
        if left:
            _note(f"swallowed errors in {len(left)} modules are not seen, it is too much: {left[0]} ...")

    def _read(self, file: str) -> None:
        if file not in self._twins:
            self._twins[file] = _twins(file, self._rewrite)

    def _swap(self, functions: dict[str, list[FunctionType]]) -> None:
        for file, twins in self._twins.items():
            for function in functions.get(file, ()) if twins else ():
                before = function.__code__
                after = twins.get((before.co_qualname, before))
                if after is not None:
                    self._swapped.append((ref(function), before, after))
                    function.__code__ = after

    def _safely(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as failure:  # noqa: BLE001 - the edge to the host: the functions stay as they are
            self._broke("swallowed.loaded", failure)


def _running(frame: FrameType | None) -> frozenset[str]:
    """Return the program's own files whose top level is being carried out."""
    found: set[str] = set()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and program.is_own(frame.f_code.co_filename):
            found.add(frame.f_code.co_filename)
        frame = frame.f_back
    return frozenset(found)


def _files() -> frozenset[str]:
    """Return the files of the program's own modules that are loaded."""
    found = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return frozenset(file for file in found if isinstance(file, str) and program.is_own(file))


def _functions(files: frozenset[str]) -> dict[str, list[FunctionType]]:
    """Return by file all functions there are, wherever they are kept: in classes, decorators, closures."""
    found: dict[str, list[FunctionType]] = {}
    if not files:
        return found
    objects = gc.get_objects()
    if len(objects) > OBJECTS_LIMIT:
        _note(f"swallowed errors in modules are not seen: the process has {len(objects)} objects")
        return found
    for thing in objects:
        if type(thing) is FunctionType and thing.__code__.co_filename in files:
            found.setdefault(thing.__code__.co_filename, []).append(thing)
    return found


def _twins(file: str, rewrite: Rewrite) -> Twins:
    """Return the code with calls by name and plain code; nothing where a file has none or cannot be read."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(program.SOURCE_LIMIT + 1)
        if len(data) > program.SOURCE_LIMIT:
            return {}
        marked = rewrite(data, file)
        plain = None if marked is None else program.compiled(data, file)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return {}
    return {} if marked is None or plain is None else dict(_pairs(plain, marked))


def _pairs(plain: CodeType, marked: CodeType) -> Iterator[tuple[tuple[str, CodeType], CodeType]]:
    """Walk both trees of code side by side; what does not correspond is left alone."""
    if plain != marked:
        yield (plain.co_qualname, plain), marked
    inner, theirs = _inner(plain.co_consts), _inner(marked.co_consts)
    if [*map(_name, inner)] == [*map(_name, theirs)]:
        for one, other in zip(inner, theirs, strict=True):
            yield from _pairs(one, other)


def _inner(constants: Iterable[object]) -> list[CodeType]:
    return [one for one in constants if isinstance(one, CodeType)]


def _name(code: CodeType) -> tuple[object, ...]:
    return code.co_qualname, code.co_firstlineno, code.co_freevars, code.co_varnames, code.co_flags


def _note(what: str) -> None:
    """Tell of what is left out, in the log that is ours."""
    from logging import getLogger  # noqa: PLC0415 - not every program has it

    mend = "start the monitor before they are imported, or run the program by python -m soulfra_monitor"
    getLogger("soulfra_monitor").warning("%s; %s", what, mend)
