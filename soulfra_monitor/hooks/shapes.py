"""Which handlers swallow errors, told by their shape alone. Pure.

======================  ==============================================  ====================================
catches                 and drops (pass, ``...``, continue, break,      and answers (returns or assigns a
                        return, return None, sleep, a debug line)       value, calls something else)
======================  ==============================================  ====================================
everything (bare,       reported                                        reported if the answer is ready-made
Exception,                                                              (a constant, a name, an empty
BaseException)                                                          container), else normal
a failure (OSError,     reported, unless the try only cleans up         normal: an alternative
RuntimeError, what is   (close, unlink, kill ...)
not in ``FLOW``)
flow control            normal around at most two statements,           normal
(KeyError, ValueError,  reported around more: there it is a net
FileNotFoundError ...)
an import that fails    normal around an import                         normal
======================  ==============================================  ====================================

Whether something is flow control is seen by its name, and again by its class when it is raised: an own
subclass of ValueError is an everyday exception too (``is_everyday``). An OSError that gets a ready-made
answer is reported when it says that the system is out of something: no space, no handles
(``is_in_trouble``). A timeout around at most two statements of a loop that just ends or goes on (break,
continue) is a poll, and normal.

Normal whatever it catches: a handler that raises, reads the exception, logs, prints, counts (``n += 1``) or
asks ``sys.exc_info()``; and one for StopIteration, GeneratorExit, KeyboardInterrupt, SystemExit or a
cancellation. A ``finally`` that always returns, breaks or continues swallows whatever passes it.
"""

import ast
import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

BROAD = frozenset({"Exception", "BaseException"})

NEVER = frozenset(
    {
        "StopIteration",
        "StopAsyncIteration",
        "GeneratorExit",
        "KeyboardInterrupt",
        "SystemExit",
        "CancelledError",
        "Cancelled",
    }
)
"""Exceptions that say "stop" rather than "failed"."""

FLOW = frozenset(
    {
        "ArithmeticError",
        "AttributeError",
        "BlockingIOError",
        "ChildProcessError",
        "DoesNotExist",
        "Empty",
        "EOFError",
        "FileExistsError",
        "FileNotFoundError",
        "Full",
        "IndexError",
        "IntegrityError",
        "InterruptedError",
        "KeyError",
        "LookupError",
        "NameError",
        "NoOptionError",
        "NoSectionError",
        "NotADirectoryError",
        "NotImplementedError",
        "OverflowError",
        "ProcessLookupError",
        "QueueEmpty",
        "QueueFull",
        "TypeError",
        "UnboundLocalError",
        "UnicodeDecodeError",
        "UnicodeEncodeError",
        "UnicodeError",
        "UnsupportedOperation",
        "ValueError",
        "ZeroDivisionError",
    }
)
"""Exceptions that often stand for an answer: no such key, not a number, nothing there."""

SYSTEM = frozenset({"OSError", "IOError", "EnvironmentError"})
"""Names by which everything that the system refuses is caught."""

TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
"""What the system says when it has run out of something, whatever was asked of it."""

POLLS = frozenset({"TimeoutError", "timeout", "TimeoutExpired"})
"""Exceptions by which a call says that nothing has happened yet."""

PROBES = frozenset({"ImportError", "ModuleNotFoundError", "PackageNotFoundError"})
_IMPORTS = frozenset({"import_module", "__import__", "find_spec", "version", "distribution", "load_module"})

_TELLS = frozenset(
    {
        # logging and what follows its names
        "critical", "error", "exception", "fatal", "info", "log", "msg", "notice", "warn", "warning",
        # printing
        "echo", "format_exc", "print", "print_exc", "print_exception", "secho", "write",
        # what knows of errors
        "add_note", "capture_exception", "capture_message", "exc_info", "fail", "format_exception",
        "notify_error",
        "record_exception", "report", "report_error", "report_exception", "set_exception", "skip",
        # counting
        "count", "inc", "incr", "increment",
        # ending
        "_exit", "abort", "exit",
    }
)  # fmt: skip
"""Calls by which a handler tells somebody, counts or gives up."""

_IDLE = frozenset({"debug", "sleep", "trace"})
"""Calls that are as good as nothing."""

_CLEANS = frozenset(
    {
        "aclose", "cancel", "close", "disconnect", "join", "kill", "killpg", "quit", "release", "remove",
        "remove_reader", "remove_signal_handler", "remove_writer", "removedirs", "rmdir", "rmtree",
        "shutdown", "stop", "terminate", "unlink", "wait", "wait_closed",
    }
)  # fmt: skip
"""Calls that put away: what fails there was mostly gone already."""

GUARDED = 2
"""Statements in a ``try`` up to which catching a flow-control exception is an answer and no net."""

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_TRIES = (ast.Try, ast.TryStar)


class _Catch(Enum):
    EVERYTHING = "everything"
    FAILURE = "a failure"
    FLOW = "flow control"
    NEVER = "a stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A handler that swallows, or would if an error came."""

    line: int  # of ``except``, or of the statement in ``finally`` that swallows
    catches: str  # as written; "anything" for ``except:`` and ``finally``
    why: str
    everyday: tuple[str, ...] = ()  # named so, it is normal after all if it ``is_everyday``
    trouble: bool = False  # it is normal unless the system ``is_in_trouble``


def findings(tree: ast.AST) -> Iterator[Finding]:
    """Give what swallows in *tree*, in the order of its tries."""
    for node in ast.walk(tree):
        if isinstance(node, _TRIES):
            for handler in node.handlers:
                if (found := judge(node, handler)) is not None and not found.trouble:
                    yield found
            if (found := judge_finally(node)) is not None:
                yield found
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            yield from suppressions(node)


def judge(node: ast.Try | ast.TryStar, handler: ast.ExceptHandler) -> Finding | None:
    """Say why *handler* swallows, or None if it does something about the error, or its kind is normal."""
    catch, ready_made, drops = _catch(handler.type), _ready_made(handler.body), _drops(handler.body)
    normal = catch is _Catch.NEVER or _is_probe(node, handler.type, catch) or _is_poll(node, handler)
    if normal or _does_something(handler):
        return None
    if catch is _Catch.EVERYTHING and (drops or ready_made):
        return _found(handler, "catches everything and says nothing")
    if catch is _Catch.FAILURE and drops and not _only_cleans(node.body):
        everyday = names(handler.type) if _statements(node.body) <= GUARDED else ()
        return replace(_found(handler, "a failure is dropped"), everyday=everyday)
    if catch is _Catch.FLOW and drops and _statements(node.body) > GUARDED and not _only_cleans(node.body):
        return _found(handler, "an everyday exception is dropped around more than it is meant for")
    if ready_made and SYSTEM.intersection(names(handler.type)):
        return replace(_found(handler, "trouble of the system gets a ready-made answer"), trouble=True)
    return None


def judge_finally(node: ast.Try | ast.TryStar) -> Finding | None:
    """Say that a ``finally`` which always leaves by itself swallows, or None."""
    for statement in node.finalbody:
        if isinstance(statement, (ast.Return, ast.Break, ast.Continue)):
            word = type(statement).__name__.lower()
            why = f"{word} in finally drops whatever error passes"
            return Finding(line=statement.lineno, catches="anything", why=why)
    return None


def names(expression: ast.expr | None) -> tuple[str, ...]:
    """Return the last parts of the names that an ``except`` lists; nothing for a bare one."""
    if expression is None:
        return ()
    parts = expression.elts if isinstance(expression, ast.Tuple) else [expression]
    return tuple(_last(part) for part in parts)


def is_everyday(error: BaseException, caught: tuple[str, ...]) -> bool:
    """Tell whether what an ``except`` names, and *error* is one of, is flow control by its class.

    What the system says stays a failure whatever else it is: a wrong certificate is a ValueError too.
    """
    kinds = type(error).__mro__
    named = next((kind for kind in kinds if kind.__name__ in caught), None)
    if named is None:  # by another name than its own
        return False
    from_system = issubclass(named, OSError)
    return any(
        kind.__name__ in FLOW and (kind is named or issubclass(kind, OSError) or not from_system)
        for kind in named.__mro__
    )


def is_in_trouble(error: BaseException) -> bool:
    """Tell whether *error* says that the system has run out of something: no answer is meant for that."""
    return isinstance(error, OSError) and error.errno in TROUBLE


def _found(handler: ast.ExceptHandler, why: str) -> Finding:
    catches = "anything" if handler.type is None else ast.unparse(handler.type)
    return Finding(line=handler.lineno, catches=catches, why=why)


def _last(expression: ast.expr) -> str:
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else "?"


def _catch(expression: ast.expr | None) -> _Catch:
    caught = names(expression)
    if expression is None or BROAD.intersection(caught):
        return _Catch.EVERYTHING
    rest = [name for name in caught if name not in NEVER]
    if not rest:
        return _Catch.NEVER
    return _Catch.FLOW if all(name in FLOW for name in rest) else _Catch.FAILURE


def _is_probe(node: ast.Try | ast.TryStar, expression: ast.expr | None, catch: _Catch) -> bool:
    """Tell whether somebody looks what is installed."""
    if catch is _Catch.EVERYTHING:
        return all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in node.body)
    return bool(PROBES.intersection(names(expression))) and any(map(_imports, _inside(node.body)))


def _is_poll(node: ast.Try | ast.TryStar, handler: ast.ExceptHandler) -> bool:
    """Tell whether a loop only waits in slices."""
    caught = names(handler.type)
    goes_on = all(isinstance(statement, (ast.Break, ast.Continue)) for statement in handler.body)
    return bool(caught) and POLLS.issuperset(caught) and goes_on and _statements(node.body) <= GUARDED


def _imports(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return _last(node.func) in _IMPORTS
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _does_something(handler: ast.ExceptHandler) -> bool:
    return any(_acts(node, handler.name) for node in _inside(handler.body))


def _acts(node: ast.AST, bound: str | None) -> bool:
    if isinstance(node, ast.Call):
        return _last(node.func) in _TELLS
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Load) and node.id == bound
    if isinstance(node, ast.Attribute):  # without a call: handed to somebody, or kept
        return node.attr in {"exc_info", "exception"}
    return isinstance(node, (ast.Raise, ast.AugAssign, ast.Assert, ast.Yield, ast.YieldFrom))


def _drops(body: list[ast.stmt]) -> bool:
    """Tell whether nothing is left of the error: no value, no call that could answer it."""
    return all(map(_is_nothing, body))


def _is_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Continue() | ast.Break() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Return(value=None) | ast.Return(value=ast.Constant(value=None)):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case (
            ast.Expr(value=ast.Call(func=function)) | ast.Expr(value=ast.Await(value=ast.Call(func=function)))
        ):
            return _last(function) in _IDLE
    return False


def _ready_made(body: list[ast.stmt]) -> bool:
    """Tell whether the answer was there before the error: nothing was tried instead."""
    return all(_is_nothing(statement) or _is_plain_answer(statement) for statement in body)


def _is_plain_answer(statement: ast.stmt) -> bool:
    match statement:
        case ast.Return(value=value) | ast.Assign(value=value) if value is not None:
            return _is_plain(value)
        case ast.AnnAssign(value=value) if value is not None:
            return _is_plain(value)
    return False


def _is_plain(value: ast.expr) -> bool:
    if isinstance(value, (ast.Constant, ast.Name, ast.Attribute)):
        return True
    parts = _parts(value)
    return parts is not None and all(map(_is_plain, parts))


def _parts(value: ast.expr) -> list[ast.expr] | None:
    """Return what a value that is written out is made of; None where it has to be worked out."""
    match value:
        case ast.UnaryOp(operand=part) | ast.FormattedValue(value=part):
            return [part]
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return parts
        case ast.Dict(values=parts) | ast.JoinedStr(values=parts):
            return parts
        case ast.Call(func=ast.Name(id="dict" | "list" | "set" | "tuple"), args=parts, keywords=named):
            return [*parts, *(keyword.value for keyword in named)]
    return None


def _only_cleans(body: list[ast.stmt]) -> bool:
    return all(map(_cleans, body))


def _cleans(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr):
        return isinstance(statement, ast.Delete)
    value = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
    return isinstance(value, ast.Call) and _last(value.func) in _CLEANS


def _statements(body: list[ast.stmt]) -> int:
    return sum(isinstance(node, ast.stmt) for node in _inside(body))


def _inside(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Walk what runs with *body*: not into functions and classes defined there."""
    for node in body:
        yield node
        if not isinstance(node, _SCOPES):
            yield from _inside(ast.iter_child_nodes(node))


def suppressions(node: ast.With | ast.AsyncWith) -> Iterator[Finding]:
    """Give the ``contextlib.suppress`` of a ``with`` that swallow, judged like ``except ...: pass``."""
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call) and _last(call.func) == "suppress" and call.args:
            catches = ast.Tuple(elts=call.args) if len(call.args) > 1 else call.args[0]
            handler = ast.ExceptHandler(type=catches, name=None, body=[ast.Pass()], lineno=call.lineno)
            stand_in = ast.Try(body=node.body, handlers=[handler], orelse=[], finalbody=[])
            found = judge(stand_in, handler)
            if found is not None:
                caught = ", ".join(map(ast.unparse, call.args))
                yield replace(found, catches=caught, why="suppress drops it")
