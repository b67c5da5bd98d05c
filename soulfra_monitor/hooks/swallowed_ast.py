"""Swallowed errors before Python 3.12: handlers of the program's own modules say when they run.

What is imported from now on is told here; ``swallowed_loaded`` sees to what was imported before.

The module is compiled from a tree in which each suspicious handler (``shapes``) begins with one call. That
call has the line of its ``except``, so lines, tracebacks, coverage and ``inspect`` see what they saw. The
compiled code that Python keeps in ``__pycache__`` is read and written as always, and is not ours.
"""

import ast
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any

from soulfra_monitor.hooks import Undo, program, shapes, swallowed_loaded
from soulfra_monitor.hooks.swallowed import Broke, Site, Tell

_MARK = "\0soulfra_swallowed "
"""Begins the constants in whose place the sites are put once all is compiled."""

_installed: tuple[Tell, Broke] | None = None

_SITES: list[Site] = []  # for as long as their code may run
_NOWHERE: dict[str, Any] = {"lineno": -1, "col_offset": -1, "end_lineno": -1, "end_col_offset": -1}
_IMPORTLIB = "<frozen importlib._bootstrap_external>"


def install(tell: Tell, broke: Broke) -> Undo:
    """Rewrite the program's own modules: those that are loaded, and those that are imported from now on."""
    global _installed  # noqa: PLW0603 - one at a time, as the hook itself
    had_own = "get_code" in vars(SourceFileLoader)
    original: Callable[[Any, str], CodeType | None] = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        return rewritten_for(self, fullname, original(self, fullname))

    def rewritten_for(loader: SourceFileLoader, fullname: str, code: CodeType | None) -> CodeType | None:
        path = loader.get_filename(fullname)
        if code is None or not program.is_own(path):
            return code
        return _rewritten(code, lambda: loader.get_data(path), path, (tell, broke))

    # Python hides its import machinery from tracebacks by this name; a frame of ours would show it all.
    get_code.__code__ = get_code.__code__.replace(co_filename=_IMPORTLIB)

    _installed = (tell, broke)
    _retell(tell)
    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]  # that is the hook
    put_back = swallowed_loaded.remark(partial(rewrite, tell=tell), broke)

    def undo() -> None:
        global _installed  # noqa: PLW0603 - as above
        _installed = None
        put_back()
        _retell(_ignore)  # rewritten modules live on
        if SourceFileLoader.get_code is get_code:
            if had_own:
                SourceFileLoader.get_code = original  # type: ignore[method-assign, assignment]  # as above
            else:
                del SourceFileLoader.get_code

    return undo


def rewritten_main(code: CodeType, data: bytes, path: str) -> CodeType:
    """Return *code* of the main program, which no loader loads, with calls in it if the hook is installed."""
    return code if _installed is None else _rewritten(code, lambda: data, path, _installed)


def _rewritten(
    code: CodeType, read: Callable[[], bytes], path: str, installed: tuple[Tell, Broke]
) -> CodeType:
    tell, broke = installed
    try:
        return (rewrite(read(), path, tell) if _has_handlers(code) else None) or code
    except Exception as failure:  # noqa: BLE001 - the edge to the host: the module is run as it is
        broke("swallowed.rewrite", failure)
        return code


def rewrite(data: bytes, path: str, tell: Tell) -> CodeType | None:
    """Return the module's code with calls in the handlers that swallow, or None if it has none.

    Raises what ``compile`` raises.
    """
    with program.quiet(path):
        tree = program.parse(data, path)
        if not _mark(tree, path, tell):
            return None
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return _filled(code)


def _filled(code: CodeType) -> CodeType:
    """Put the sites in the place of their marks."""
    return code.replace(co_consts=tuple(map(_constant, code.co_consts)))


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _filled(value)
    if isinstance(value, str) and value.startswith(_MARK):
        return _SITES[int(value.removeprefix(_MARK))]
    return value


def _ignore(site: Site, error: BaseException | None) -> None:
    """Stand in for the reporter after ``undo``."""


def _retell(tell: Tell) -> None:
    for site in _SITES:
        site.tell = tell


def _has_handlers(code: CodeType) -> bool:
    return bool(code.co_exceptiontable) or any(
        _has_handlers(inner) for inner in code.co_consts if isinstance(inner, CodeType)
    )


def _mark(tree: ast.AST, path: str, tell: Tell) -> bool:
    """Put the calls into *tree*; tell whether there are any."""
    before = len(_SITES)
    for node in list(ast.walk(tree)):
        if isinstance(node, (ast.Try, ast.TryStar)):
            _mark_try(node, path, tell)
    return len(_SITES) > before


def _mark_try(node: ast.Try | ast.TryStar, path: str, tell: Tell) -> None:
    found = [(handler, shapes.judge(node, handler)) for handler in node.handlers]
    last = shapes.judge_finally(node)
    for handler, finding in found:
        if finding is not None:
            handler.body.insert(0, _call(Site(path, finding, tell), _at(handler)))
    if last is not None:
        _mark_finally(node, Site(path, last, tell))


def _mark_finally(node: ast.Try | ast.TryStar, site: Site) -> None:
    """Have ``try: A finally: B`` be ``try: (try: A except: call; raise) finally: B``, without new lines."""
    inner = type(node)(body=node.body, handlers=node.handlers, orelse=node.orelse, finalbody=[])
    body: list[ast.stmt] = [ast.copy_location(inner, node)] if node.handlers else node.body
    again = ast.Raise(exc=None, cause=None, **_NOWHERE)
    call = _call(site, _NOWHERE)
    handler = ast.ExceptHandler(type=None, name=None, body=[call, again], **_NOWHERE)
    outer = ast.Try(body=body, handlers=[handler], orelse=[], finalbody=[])
    node.body, node.handlers, node.orelse = [ast.copy_location(outer, node)], [], []


def _call(site: Site, where: dict[str, Any]) -> ast.Expr:
    _SITES.append(site)
    mark = ast.Constant(value=f"{_MARK}{len(_SITES) - 1}", **where)
    hit = ast.Attribute(value=mark, attr="hit", ctx=ast.Load(), **where)
    return ast.Expr(value=ast.Call(func=hit, args=[], keywords=[], **where), **where)


def _at(node: ast.ExceptHandler) -> dict[str, Any]:
    """Return the place of the word ``except``."""
    line, column = node.lineno, node.col_offset
    return {
        "lineno": line,
        "col_offset": column,
        "end_lineno": line,
        "end_col_offset": column + len("except"),
    }
