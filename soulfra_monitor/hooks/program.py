"""The program's own source, as far as swallowed errors need it: which files are its own, and their tries."""

import ast
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType

from soulfra_monitor.hooks import shapes

SOURCE_LIMIT = 2_000_000
"""Bytes above which a file is left alone: it was generated, and reading it takes long."""

_STANDARD = os.path.dirname(os.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the tries of a file are, by the lines on which Python says that an exception is handled."""

    handlers: Mapping[int, ast.Try | ast.TryStar] = field(default_factory=dict)
    finals: Mapping[int, ast.Try | ast.TryStar] = field(default_factory=dict)
    suppressions: Mapping[int, shapes.Finding] = field(default_factory=dict)


def is_own(file: str) -> bool:
    """Tell whether *file* is the program's own: not Python's, not an installed package, not ours."""
    if file.startswith(("<", _OURS)):
        return False
    installed = file.startswith(_STANDARD) or any(part in file for part in _INSTALLED)
    return not installed or _is_listed(file)


def _is_listed(file: str) -> bool:
    """Tell whether the package is the program's own though it is installed (setting ``in_app``)."""
    listed = os.environ.get("SOULFRA_IN_APP", "")
    names = filter(None, (name.strip().replace(".", os.sep) for name in listed.split(",")))
    return any(f"{os.sep}{name}{end}" in file for name in names for end in (os.sep, ".py"))


@lru_cache(maxsize=1000)
def source(file: str) -> Source:
    """Return the tries of *file*, read once; none where it cannot be read or is no Python."""
    try:
        if os.path.getsize(file) > SOURCE_LIMIT:
            return Source()
        with open(file, "rb") as opened:
            tree = parse(opened.read(), file)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return Source()
    return Source(
        handlers=dict(_handlers(tree)), finals=dict(_finals(tree)), suppressions=dict(_suppressions(tree))
    )


def parse(data: bytes, file: str) -> ast.Module:
    """Return the tree of a module. Raises SyntaxError and ValueError as ``compile`` does."""
    tree = compile(data, file, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    assert isinstance(tree, ast.Module)  # noqa: S101 - that is what this flag and mode give
    return tree


def compiled(data: bytes, file: str) -> CodeType:
    """Return the code of a module as an import makes it. Raises SyntaxError and ValueError."""
    with quiet(file):
        code: CodeType = compile(data, file, "exec", dont_inherit=True)
        return code


@contextmanager
def quiet(path: str) -> Iterator[None]:
    """Keep the compiler's warnings of *path* back: they were told when Python compiled it for itself.

    Not ``warnings.catch_warnings``: that would undo what another thread does to the filters meanwhile.
    """
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    warnings.filterwarnings("ignore", module=re.escape(os.path.splitext(path)[0]))
    ours = warnings.filters[:2]
    try:
        yield
    finally:
        for one in ours:
            warnings.filters.remove(one)  # type: ignore[attr-defined]  # a list, whatever the stubs say


def _handlers(tree: ast.AST) -> Iterator[tuple[int, ast.Try | ast.TryStar]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Try, ast.TryStar)) and node.handlers:
            first = node.handlers[0]
            last = first.lineno if first.type is None else (first.type.end_lineno or first.lineno)
            yield from ((line, node) for line in range(first.lineno, last + 1))


def _finals(tree: ast.AST) -> Iterator[tuple[int, ast.Try | ast.TryStar]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Try, ast.TryStar)) and shapes.judge_finally(node) is not None:
            yield node.finalbody[0].lineno, node


def _suppressions(tree: ast.AST) -> Iterator[tuple[int, shapes.Finding]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for finding in shapes.suppressions(node):
                yield from ((line, finding) for line in range(node.lineno, finding.line + 1))
