"""Wrappers of functions that count calls, with the signature of what they wrap.

They are generated as source, because a wrapper that takes ``*args, **kwargs`` costs more than the counting.
The templates are the hot path: two clocks, one cell, one note of the call under way. ``~`` stands for a
prefix that keeps our names apart from the parameters'.
"""

import functools
import types
import weakref
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import (
    CO_ASYNC_GENERATOR,
    CO_COROUTINE,
    CO_GENERATOR,
    CO_ITERABLE_COROUTINE,
    CO_VARARGS,
    CO_VARKEYWORDS,
)
from keyword import iskeyword
from math import inf
from textwrap import indent
from time import perf_counter
from typing import Any

from soulfra_monitor import cells
from soulfra_monitor.cells import Cell, Failed, Method
from soulfra_monitor.events import BOUNDS, Kind

Function = types.FunctionType
Watched = Callable[..., Any]

_PREFIX = "_soulfra_"
_PLAIN_LIMIT = 1000

# Finds the cell. Of the watched calls around, on the thread and in the task, the last to begin is the caller.
_FIND = """
try:
    ~state = ~here.state
except ~AttributeError:
    ~state = ~arrive()
~outer = ~state.call
~task = ~around()
if ~task is None or ~outer.started > ~task[1]:
    ~place = ~outer.inside
elif ~task[0].state is ~state:
    ~place = ~task[0].inside
else:
    ~place = ~state.called_by(~task[0].method.service)
try:
    ~cell = ~place[~method]
except ~KeyError:
    ~cell = ~state.open(~place, ~method)
~started = ~clock()
"""

# Notes the call as the innermost of its thread. One by the same caller that is under way already stays noted.
_BEGIN = """
~before = ~cell.outer
if ~before is None:
    ~cell.outer = ~outer
    ~cell.started = ~started
~state.call = ~cell
"""

_END = """
~state.call = ~outer
~cell.outer = ~before
"""

# From another context (somebody closes a coroutine that hangs) there is nothing to put back.
_LEAVE = """
try:
    ~leave(~token)
except ~ValueError:
    pass
"""

# What lasts longer is counted here too, as ``Cell.add`` would: most asynchronous calls do, and calling costs.
_COUNT = """
~took = ~clock() - ~started
if ~took <= ~quick:
    ~cell.seconds += ~took
    ~cell.quick += 1
elif ~took <= ~slow:
    ~cell.seconds += ~took
    ~cell.rest[~bucket(~bounds, ~took)] += 1
else:
    ~long(~cell, ~took)
"""

_SYNC = """
def watched(~parameters):
    nonlocal ~last
    {find}
    {begin}
    try:
        ~result = ~original(~arguments)
    except ~BaseException as ~error:
        {end}
        ~raised(~cell, ~error, ~clock() - ~started)
        raise
    {end}
    if ~type(~result) is not ~last:
        if ~type(~result) not in ~plain and not ~is_plain(~type(~result)):
            return ~later(~cell, ~result, ~started)
        ~last = ~type(~result)
    {count}
    {judge}
    return ~result
"""

# A coroutine may end on another thread than it began on: then that one counts, as each writes its own cells.
_ASYNC = """
async def watched(~parameters):
    {find}
    ~node = (~cell, ~started)
    ~key = ~id(~node)
    ~flights[~key] = ~node
    ~token = ~enter(~node)
    try:
        ~result = await ~original(~arguments)
    except ~BaseException as ~error:
        del ~flights[~key]
        {leave}
        ~raised(~own(~cell), ~error, ~clock() - ~started)
        raise
    del ~flights[~key]
    {leave}
    try:
        if ~here.state is not ~state:
            ~cell = ~own(~cell)
    except ~AttributeError:
        ~cell = ~own(~cell)
    {count}
    {judge}
    return ~result
"""

# The time is the generator's own: while its consumer works, it does not count.
_GENERATOR = """
def watched(~parameters):
    ~given = ~original(~arguments)
    ~spent = 0.0
    ~sent = ~thrown = None
    while True:
        {find}
        {begin}
        try:
            ~value = ~given.send(~sent) if ~thrown is None else ~given.throw(~thrown)
        except ~StopIteration as ~stop:
            ~result = ~stop.value
            break
        except ~BaseException as ~error:
            ~raised(~cell, ~error, ~spent + ~clock() - ~started)
            raise
        finally:
            {end}
            ~thrown = None
        ~spent += ~clock() - ~started
        try:
            ~sent = yield ~value
        except ~GeneratorExit:
            try:
                ~given.close()
            except ~BaseException as ~error:
                ~raised(~own(~cell), ~error, ~spent)
                raise
            ~long(~own(~cell), ~spent)
            raise
        except ~BaseException as ~error:
            ~thrown = ~error
    ~long(~cell, ~spent + ~clock() - ~started)
    return ~result
"""

_ASYNC_GENERATOR = """
async def watched(~parameters):
    ~given = ~original(~arguments)
    ~spent = 0.0
    ~sent = ~thrown = None
    while True:
        {find}
        ~node = (~cell, ~started)
        ~flights[~id(~node)] = ~node
        ~token = ~enter(~node)
        try:
            ~value = await (~given.asend(~sent) if ~thrown is None else ~given.athrow(~thrown))
        except ~StopAsyncIteration:
            break
        except ~BaseException as ~error:
            ~raised(~own(~cell), ~error, ~spent + ~clock() - ~started)
            raise
        finally:
            ~thrown = None
            del ~flights[~id(~node)]
            {leave}
        ~spent += ~clock() - ~started
        try:
            ~sent = yield ~value
        except ~GeneratorExit:
            try:
                await ~given.aclose()
            except ~BaseException as ~error:
                ~raised(~own(~cell), ~error, ~spent)
                raise
            ~long(~own(~cell), ~spent)
            raise
        except ~BaseException as ~error:
            ~thrown = ~error
    ~long(~own(~cell), ~spent + ~clock() - ~started)
"""

# What the service's owner says of the result; whatever comes of that must not hurt the call.
_JUDGE = """
try:
    ~verdict = ~failed(~result)
except ~Exception as ~error:
    ~misjudged(~method, ~error)
    ~verdict = False
if ~verdict:
    ~returned(~cell, ~verdict)
"""

_PARTS = {"{find}": _FIND, "{begin}": _BEGIN, "{end}": _END, "{leave}": _LEAVE, "{count}": _COUNT}

# A with block is one call named "with", which begins in __enter__ and ends in __exit__.
_ENTERED = "~state.enter(~id(~self), ~started)"
_LEFT = "~started = ~own(~cell).state.leave(~id(~self), ~started)"


def wrap(function: Callable[..., Any], method: Method) -> Function | None:
    """Return a function that does what *function* does, and counts it as *method*.

    A function of Python gets one with its signature and of its kind (coroutine function, generator function
    and so on); None when that cannot be had. Other callables get one that takes anything.
    """
    judge = method.failed is not None
    if not isinstance(function, Function):
        return _like(function, _build(_SYNC, _ANY, method, function, judge=judge))
    template = _template(function.__code__.co_flags)
    signature = _Signature.of(function.__code__)
    if template is None or signature is None:
        return None
    return _like(function, _build(template, signature, method, function, judge=judge))


def wrap_edge(function: Function, method: Method, *, entering: bool) -> Function | None:
    """Return what stands for *function*, which enters or leaves a ``with`` block that counts as *method*."""
    template = _template(function.__code__.co_flags)
    signature = _Signature.of(function.__code__)
    if template not in (_SYNC, _ASYNC) or signature is None or not signature.first:
        return None
    edge = (_ENTERED if entering else _LEFT).replace("~self", signature.first)
    template = template.replace("{count}", edge if entering else edge + "\n    {count}")
    return _like(function, _build(template, signature, method, function, judge=False))


def method_of(function: object) -> Method | None:
    """Return what a wrapper made here counts; None for anything else."""
    return _wrappers.get(function) if isinstance(function, Function) else None


@dataclass(frozen=True, slots=True)
class _Signature:
    """Parameters as source, and how to hand them on."""

    parameters: str
    arguments: str
    first: str = ""  # the name of the first positional parameter

    @classmethod
    def of(cls, code: types.CodeType) -> "_Signature | None":
        positional = code.co_argcount
        names = iter(code.co_varnames)
        ordinary = [next(names) for _ in range(positional)]
        keywords = [next(names) for _ in range(code.co_kwonlyargcount)]
        parameters, arguments = list(ordinary), list(ordinary)
        if code.co_posonlyargcount:
            parameters.insert(code.co_posonlyargcount, "/")
        if code.co_flags & CO_VARARGS:
            rest = "*" + next(names)
            parameters.append(rest)
            arguments.append(rest)
        elif keywords:
            parameters.append("*")
        parameters += keywords
        arguments += [f"{name}={name}" for name in keywords]
        if code.co_flags & CO_VARKEYWORDS:
            rest = "**" + next(names)
            parameters.append(rest)
            arguments.append(rest)
        if not all(map(_is_usable, [*ordinary, *keywords])):
            return None
        return cls(", ".join(parameters), ", ".join(arguments), ordinary[0] if ordinary else "")


def _is_usable(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name) and not name.startswith(_PREFIX)


_ANY = _Signature("*args, **kwargs", "*args, **kwargs")
_ONE = _Signature("given", "given")


def _template(flags: int) -> str | None:
    if flags & CO_ITERABLE_COROUTINE:  # a generator that can be awaited; only the compiler can make one
        return None
    if flags & CO_COROUTINE:
        return _ASYNC
    if flags & CO_ASYNC_GENERATOR:
        return _ASYNC_GENERATOR
    return _GENERATOR if flags & CO_GENERATOR else _SYNC


def _build(
    template: str, signature: _Signature, method: Method, original: Callable[..., Any], *, judge: bool
) -> Function:
    make = _factory(template, signature, judge)
    slow = inf if method.slow is None else method.slow
    wrapper: Function = make(original, method, method.quick, slow, method.failed, _Later(method), None)
    _wrappers[wrapper] = method
    return wrapper


@functools.lru_cache(maxsize=1024)
def _factory(template: str, signature: _Signature, judge: bool) -> Callable[..., Any]:
    parts = {**_PARTS, "{judge}": _JUDGE if judge else ""}
    lines = []
    for line in template.splitlines():
        part = parts.get(line.strip())
        lines.append(line if part is None else indent(part, line[: len(line) - len(line.lstrip())]))
    watched = indent("\n".join(lines), "    ")
    source = (
        f"def make(~original, ~method, ~quick, ~slow, ~failed, ~later, ~last):\n{watched}\n    return watched"
    )
    source = source.replace("~parameters", signature.parameters).replace("~arguments", signature.arguments)
    space: dict[str, Any] = dict(_NAMES)
    exec(compile(source.replace("~", _PREFIX), _FILE, "exec"), space)  # noqa: S102 - our template, and names of parameters
    make: Callable[..., Any] = space["make"]
    return make


def _like(function: Callable[..., Any], wrapper: Function) -> Function:
    if isinstance(function, Function):
        wrapper.__defaults__ = function.__defaults__
        wrapper.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(wrapper, function)
    # Code of its own: the interpreter adapts code to what it calls, and shared code would fit nobody.
    wrapper.__code__ = wrapper.__code__.replace(co_name=wrapper.__name__, co_qualname=wrapper.__qualname__)
    return wrapper


class _Later:
    """What becomes of results that are not results yet: they count when they are done."""

    __slots__ = ("method", "wrappers")

    def __init__(self, method: Method) -> None:
        self.method = method
        self.wrappers: dict[str, Function] = {}

    def __call__(self, cell: Cell, given: Any, started: float) -> Any:
        template = _RUNNING.get(type(given))
        if template is None:
            return self._when_done(cell, given, started)
        wrapper = self.wrappers.get(template)
        if wrapper is None:
            judge = self.method.failed is not None
            wrapper = _build(template, _ONE, self.method, _itself, judge=judge)
            self.wrappers[template] = wrapper
        running = wrapper(given)
        running.__name__, running.__qualname__ = given.__name__, given.__qualname__
        return running

    def _when_done(self, cell: Cell, given: Any, started: float) -> Any:
        def done(future: Any) -> None:
            took = perf_counter() - started
            # Not future.exception(): whoever asks for that has taken note of it, and nobody has yet.
            error = None if future.cancelled() else getattr(future, "_exception", None)
            if error is not None:
                _raised(_own(cell), error, took)
                return
            _long(_own(cell), took)
            if self.method.failed is not None and not future.cancelled():
                self._judge(_own(cell), self.method.failed, future.result())

        try:
            given.add_done_callback(done)
        except Exception as error:  # noqa: BLE001 - a future of somebody's own making
            self.method.reporter.broke("wrappers.future", error)
            _long(cell, perf_counter() - started)
        return given

    def _judge(self, cell: Cell, failed: Failed, result: object) -> None:
        try:
            verdict = failed(result)
        except Exception as error:  # noqa: BLE001 - the owner's function
            _misjudged(self.method, error)
        else:
            if verdict:
                _returned(cell, verdict)


def _itself(given: Any) -> Any:
    return given


def _is_plain(kind: type) -> bool:
    """Tell whether results of that type are results at once; and remember it if so."""
    if kind in _RUNNING or (hasattr(kind, "add_done_callback") and hasattr(kind, "cancelled")):
        return False
    if len(_plain) >= _PLAIN_LIMIT:
        _plain.clear()
    _plain.add(kind)
    return True


def _own(cell: Cell) -> Cell:
    """Return the cell of this thread for the same calls."""
    state = cells.arrive()
    return cell if cell.state is state else state.cell(cell.caller, cell.method)


def _long(cell: Cell, seconds: float) -> None:
    """Count a call that is not of the usual kind, and tell when it took longer than it may."""
    cell.add(seconds)
    method = cell.method
    if method.slow is not None and seconds > method.slow:
        method.reporter.noted(
            Kind.SLOW,
            f"{method.name} took {seconds:.3g} s, and {method.slow:g} s is its limit",
            service=method.service,
            facts={"method": method.name, "seconds": seconds, "limit": method.slow},
        )


def _raised(cell: Cell, error: BaseException, seconds: float) -> None:
    """Count a call that ended with an exception, and tell it unless it is an end or expected."""
    cell.add(seconds)
    if (
        not isinstance(error, Exception)
        or isinstance(error, _ENDS)
        or type(error).__name__ == "CancelledError"
        or isinstance(error, cell.method.expected)
    ):
        return
    cell.failures += 1
    method = cell.method
    method.reporter.raised(
        Kind.METHOD,
        error,
        service=method.service,
        handled=False,
        facts={"method": method.name, "seconds": seconds},
    )


def _returned(cell: Cell, verdict: bool | str) -> None:
    """Count and tell a result that means failure."""
    cell.failures += 1
    method = cell.method
    reason = f": {verdict}" if isinstance(verdict, str) else ""
    method.reporter.noted(
        Kind.RETURNED,
        f"{method.name} returned what means failure{reason}",
        service=method.service,
        facts={"method": method.name},
    )


def _misjudged(method: Method, error: Exception) -> None:
    method.reporter.broke("wrappers.failed", error)


_FILE = "<soulfra_monitor, passed over like importlib._bootstrap>"
"""``warnings`` and ``logging`` pass over frames of files with these words: ``stacklevel`` works as before."""

_ENDS = (StopIteration, StopAsyncIteration)
_RUNNING: Mapping[type, str] = {
    types.CoroutineType: _ASYNC,
    types.GeneratorType: _GENERATOR,
    types.AsyncGeneratorType: _ASYNC_GENERATOR,
}
_plain: set[type] = {type(None), bool, int, float, str, bytes, list, dict, tuple, set}
_wrappers: "weakref.WeakKeyDictionary[Function, Method]" = weakref.WeakKeyDictionary()
_BUILTINS: tuple[Any, ...] = (
    *(type, id, BaseException, Exception, AttributeError, KeyError, ValueError),
    *(StopIteration, StopAsyncIteration, GeneratorExit),
)
_NAMES = {
    "__name__": __name__,  # by it, frames of wrappers are known to be ours
    **{
        _PREFIX + name: value
        for name, value in {
            "here": cells.here,
            "arrive": cells.arrive,
            "around": cells.task.get,
            "enter": cells.task.set,
            "leave": cells.task.reset,
            "flights": cells.flights,
            "clock": perf_counter,
            "plain": _plain,
            "is_plain": _is_plain,
            "own": _own,
            "bounds": BOUNDS,
            "bucket": bisect_left,
            "long": _long,
            "raised": _raised,
            "returned": _returned,
            "misjudged": _misjudged,
            **{known.__name__: known for known in _BUILTINS},
        }.items()
    },
}
