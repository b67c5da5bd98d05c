"""What is taken of an error: at once what would be gone later, the rest on the worker.

A *sketch* is taken in the thread where the error is. It holds texts and code objects, never the exception,
its frames or their variables. The worker makes an event of it.
"""

# os.path is loaded in every program, pathlib is not:

import math
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import CodeType, FrameType, TracebackType
from typing import Any

from soulfra_monitor.events import CHAIN_LIMIT, FRAMES_LIMIT, Event, Frame, Kind, Raised, Relation

TEXT_TAKEN = 16_384
"""Characters taken of a text. It is cut to what is kept after it has been redacted, not before."""

NOTES_TAKEN = 8
NOTE_TAKEN = 1000
WALK_LIMIT = 10_000
"""Frames walked at most to find the innermost."""

DEPTH_LIMIT = 6
ITEMS_LIMIT = 50
VALUE_TAKEN = 2000
VALUES_TAKEN = 32_768
"""Characters taken of one context, of one value in it, and what stands for the rest."""

CUT = "…"
LARGEST = 2**63 - 1
_HALF = FRAMES_LIMIT // 2

FACTS = frozenset(
    ("errno", "path", "peer", "url", "status", "exit_code", "signal", "seconds", "limit", "value", "method")
)
"""What ``Event.facts`` may hold."""

Fact = str | int | float
Place = tuple[CodeType, int, str]
"""Code, line, and the module's name as imported."""


@dataclass(frozen=True, slots=True)
class Link:
    """One exception of a chain, as it was taken."""

    type: str
    message: str
    relation: Relation
    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What the application says about an error that it reports."""

    severity: str = ""
    problem: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """An error as it was taken in its own thread."""

    at: float  # epoch seconds
    kind: Kind
    service: str
    message: str
    links: tuple[Link, ...]
    handled: bool
    count: int
    facts: Mapping[str, Fact] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    opinion: Opinion = field(default_factory=Opinion)

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        texts = sum(len(link.message) + 100 * len(link.places) + 200 for link in self.links)
        return 500 + len(self.message) + texts + 100 * len(self.facts) + _weight(self.context)


def links_of(error: BaseException, *, cheap: bool = False, in_flight: bool = False) -> tuple[Link, ...]:
    """Take *error* and what led to it, or it alone when it must be *cheap*.

    One that is told *in flight*, before it has come to the code that called, has a traceback without that
    code: the stack is taken instead.
    """
    chain = ((error, Relation.RAISED),) if cheap else _chain(error)
    links = tuple(_link(one, relation) for one, relation in chain)
    if not in_flight:
        return links
    return (replace(links[0], places=_in_flight(error.__traceback__)), *links[1:])


def link_of_frame(frame: FrameType) -> tuple[Link, ...]:
    """Take the stack of *frame* for an error that no exception stands for."""
    return (Link("", "", Relation.RAISED, _stack(frame)),)


def facts_of(error: BaseException, facts: Mapping[str, Fact] | None) -> dict[str, Fact]:
    """Return *facts* with what the operating system said in *error* or in what led to it."""
    found: dict[str, Fact] = {}
    cause: BaseException | None = error
    for _ in range(CHAIN_LIMIT):
        if cause is None or found:
            break
        if isinstance(cause, OSError):
            found = _facts_of_system(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    if facts:
        found.update(plain_facts(facts))
    return found


def plain_facts(facts: Mapping[str, Any]) -> dict[str, Fact]:
    """Return *facts* as texts and numbers."""
    return {
        str(name): _number(value) if type(value) in (int, float) else text_of(value)
        for name, value in facts.items()
        if value is not None
    }


def plain(value: Any) -> Any:
    """Return a copy of *value* as JSON can hold it, bounded as a whole. Objects become their text."""
    return _Copy().of(value, 0)


def text_of(value: object) -> str:
    """Return ``str(value)``, or a text that says why there is none."""
    try:
        return str(value)[:TEXT_TAKEN]
    except Exception as error:  # noqa: BLE001 - the text says it
        return f"<{type(value).__name__} that has no text: {type(error).__name__}>"


def type_name(kind: type) -> str:
    """Return the name of a type, with its module unless that is builtins."""
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


class _Copy:
    """Copies one value, with what is left of its budget."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = VALUES_TAKEN  # characters

    def of(self, value: Any, depth: int) -> Any:
        if self._left <= 0:
            return CUT
        if value is None or type(value) is bool:
            return value
        if type(value) in (int, float):
            return _number(value)
        if depth < DEPTH_LIMIT and isinstance(value, Mapping):
            return {self._text(key): self.of(item, depth + 1) for key, item in _first(value.items())}
        if depth < DEPTH_LIMIT and isinstance(value, list | tuple | set | frozenset):
            return [self.of(item, depth + 1) for item in _first(value)]
        return self._text(value)

    def _text(self, value: object) -> str:
        text = text_of(value)[: min(VALUE_TAKEN, max(0, self._left))]
        self._left -= len(text) + 10
        return text


def _number(value: float) -> float | str:
    """Return a number that every reader of JSON takes, or the text of one that some do not."""
    if type(value) is int:
        return value if abs(value) <= LARGEST else text_of(value)
    return value if math.isfinite(value) else text_of(value)


def _first(items: Any) -> Iterator[Any]:
    """Give the first items of what another thread may be changing."""
    taken: list[Any] = []
    try:
        for item in items:
            if len(taken) == ITEMS_LIMIT:
                break
            taken.append(item)
    except RuntimeError:  # it changed meanwhile: what was taken is what there is to tell
        return iter(taken)
    return iter(taken)


def _weight(value: Any) -> int:
    """Return about how many bytes a plain value takes."""
    if isinstance(value, str):
        return 60 + len(value)
    if isinstance(value, dict):
        return 60 + sum(_weight(key) + _weight(item) for key, item in value.items())
    if isinstance(value, list):
        return 60 + sum(map(_weight, value))
    return 30


def _chain(error: BaseException) -> Iterator[tuple[BaseException, Relation]]:
    """Give *error*, then its causes and contexts, then the members of groups; each once."""
    seen: set[int] = set()
    waiting: deque[tuple[BaseException, Relation]] = deque([(error, Relation.RAISED)])
    while waiting and len(seen) < CHAIN_LIMIT:
        one, relation = waiting.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one, relation
        if one.__cause__ is not None:
            waiting.append((one.__cause__, Relation.CAUSE))
        elif one.__context__ is not None and not one.__suppress_context__:
            waiting.append((one.__context__, Relation.CONTEXT))
        if isinstance(one, BaseExceptionGroup):
            waiting.extend((member, Relation.MEMBER) for member in one.exceptions[:CHAIN_LIMIT])


def _link(error: BaseException, relation: Relation) -> Link:
    return Link(type_name(type(error)), text_of(error), relation, _places(error.__traceback__), _notes(error))


def _notes(error: BaseException) -> tuple[str, ...]:
    notes = getattr(error, "__notes__", None)
    if not isinstance(notes, list | tuple):
        return ()
    return tuple(text_of(note)[:NOTE_TAKEN] for note in notes[:NOTES_TAKEN])


def _places(traceback: TracebackType | None) -> tuple[Place, ...]:
    """Return the frames of a traceback, half of them from each end."""
    first: list[Place] = []
    last: deque[Place] = deque(maxlen=_HALF)
    left = WALK_LIMIT
    while traceback is not None and left:
        kept: Any = first if len(first) < _HALF else last
        frame = traceback.tb_frame
        kept.append((frame.f_code, traceback.tb_lineno or 0, _module(frame)))
        traceback = traceback.tb_next
        left -= 1
    return (*first, *last)


def _in_flight(traceback: TracebackType | None) -> tuple[Place, ...]:
    """Return the frames of who called, then those of the traceback so far."""
    callers = traceback.tb_frame.f_back if traceback is not None else sys._getframe(1)  # noqa: SLF001
    places = (*_stack(callers), *_places(traceback))
    return places if len(places) <= FRAMES_LIMIT else (*places[:_HALF], *places[-_HALF:])


def _stack(frame: FrameType | None) -> tuple[Place, ...]:
    """Return the innermost frames of a stack, outermost first."""
    found: list[Place] = []
    while frame is not None and len(found) < FRAMES_LIMIT:
        found.append((frame.f_code, frame.f_lineno or 0, _module(frame)))
        frame = frame.f_back
    return tuple(reversed(found))


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _facts_of_system(error: OSError) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    if isinstance(error.errno, int):
        facts["errno"] = error.errno
    if isinstance(error.filename, str | bytes):
        facts["path"] = os.fsdecode(error.filename)[:VALUE_TAKEN]
    return facts


class Painter:
    """Makes events of sketches, on the worker."""

    def __init__(self, *, release: str, in_app: tuple[str, ...]) -> None:
        self._release = release
        self._in_app = in_app
        self._known: dict[str, bool] = {}
        self._library = os.path.dirname(os.__file__) + os.sep
        self._ours = os.path.dirname(os.path.abspath(__file__)) + os.sep

    def paint(self, sketch: Sketch, *, ident: str, system: Mapping[str, Any]) -> Event:
        """Return the event of *sketch*, not yet redacted."""
        raised = tuple(self._raised(link) for link in sketch.links)
        first = raised[0] if raised else None
        message = sketch.message or (first.message or first.type if first else "")
        return Event(
            id=ident,
            at=sketch.at,
            kind=sketch.kind,
            service=sketch.service,
            message=message or sketch.kind.value,
            raised=raised,
            handled=sketch.handled,
            count=sketch.count,
            facts=sketch.facts,
            context=sketch.context,
            system=system,
            release=self._release,
            severity=sketch.opinion.severity,
            problem=sketch.opinion.problem,
            fingerprint=sketch.opinion.fingerprint,
        )

    def _raised(self, link: Link) -> Raised:
        places = [place for place in link.places if not self._is_ours(place[0].co_filename)]
        return Raised(
            type=link.type,
            message=link.message,
            relation=link.relation,
            frames=tuple(self._frame(place) for place in places),
            notes=link.notes,
        )

    def _frame(self, place: Place) -> Frame:
        code, line, module = place
        file = code.co_filename
        return Frame(
            module=_program_module() if module == "__main__" else module or file,
            function=code.co_qualname,
            file=file,
            line=line,
            in_app=self._is_in_app(file, module),
        )

    def _is_ours(self, file: str) -> bool:
        return file.startswith((self._ours, "<soulfra"))

    def _is_in_app(self, file: str, module: str) -> bool:
        if self._in_app and module.partition(".")[0] in self._in_app:
            return True
        known = self._known.get(file)
        if known is None:
            if len(self._known) > 5000:  # noqa: PLR2004 - a program that generates code without end
                self._known.clear()
            known = self._known[file] = self._is_programs(file)
        return known

    def _is_programs(self, file: str) -> bool:
        """Whether a file is the program's own: no installed package, not Python's library."""
        if file.startswith("<frozen"):
            return False
        path = os.path.abspath(file) if not file.startswith("<") else file
        if f"{os.sep}site-packages{os.sep}" in path or f"{os.sep}dist-packages{os.sep}" in path:
            return False
        return not path.startswith(self._library)


def _program_module() -> str:
    """Return the name of the main module as it would be imported, or ``__main__``."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = getattr(spec, "name", None)
    return name if isinstance(name, str) else "__main__"
