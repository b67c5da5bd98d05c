"""Loads what we need of Python's library, and what only the worker needs on the worker, never across a fork.

A program may have a module of its own by the name of one of Python's, such as ``email`` or ``resource``. It
is not to run because of us, and not to stand in for Python's where we need that.

A process that forks while a thread imports leaves the child with a module that is never complete and a lock
that nobody releases: the child's own import of it would wait for ever. So a fork waits for the end of this.
Nothing here may register what runs before forks, as logging does: during a fork that comes too late for its
first half.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from threading import Lock, get_ident
from types import ModuleType
from typing import Any

MODULES = ("http.client", "tempfile", "email.utils", "encodings.idna", "resource")
SECURE = ("ssl",)
WAIT = 2.0
"""Seconds that a fork waits at most. It takes some 30 ms, once in a process."""

_LIBRARY = os.path.dirname(os.path.abspath(os.__file__))
_PLACES = [_LIBRARY, os.path.join(_LIBRARY, "lib-dynload")]
_lock = Lock()
_held = False  # by a fork
_loaded: dict[str, ModuleType] = {}


def load(*, secure: bool) -> None:
    """Load all that may be needed later. What a platform does not have is left out."""
    with _lock:
        for name in MODULES + (SECURE if secure else ()):
            with suppress(ImportError):
                pythons(name)


def pythons(name: str) -> Any:
    """Return a module of Python's library. Raises ImportError where there is none, or at the very end."""
    module = _loaded.get(name)
    if module is None:
        with pythons_own():
            module = _loaded[name] = import_module(name)
    return module


@contextmanager
def pythons_own() -> Iterator[None]:
    """Have imports of this thread find Python's modules where the program has some of the same name.

    Afterwards the program finds its own by these names. What it has imported before stays as it is.
    """
    finder: Any = _Pythons()
    path: list[Any] | None = sys.meta_path
    if path is not None:  # else Python is on its way out
        path.insert(0, finder)
    try:
        yield
    finally:
        if path is not None and finder in path:
            path.remove(finder)
        for name in list(sys.modules) if finder.hidden else ():
            if name.partition(".")[0] in finder.hidden:
                sys.modules.pop(name, None)


class _Pythons:
    """Finds modules of Python's library for one thread, whatever else has their name."""

    def __init__(self) -> None:
        self.hidden: set[str] = set()  # modules of Python's that the program has its own of
        self._thread = get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or name not in sys.stdlib_module_names or get_ident() != self._thread:
            return None
        if name in sys.builtin_module_names:
            return None
        own = PathFinder.find_spec(name, _PLACES)
        if own is None or own.origin is None:
            return None
        found = PathFinder.find_spec(name)
        if found is None or found.origin == own.origin:
            return None
        self.hidden.add(name)
        return own


def _before_fork() -> None:
    global _held  # noqa: PLW0603 - a fork is one in a process
    _held = _lock.acquire(timeout=WAIT)


def _after_fork() -> None:
    if _held:
        _lock.release()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - who held it is not here
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
