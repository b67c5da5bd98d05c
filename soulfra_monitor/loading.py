"""Loads what only the worker needs, on the worker, and never across a fork.

A process that forks while a thread imports leaves the child with a module that is never complete and a lock
that nobody releases: the child's own import of it would wait for ever. So a fork waits for the end of this.
Nothing here may register what runs before forks, as logging does: during a fork that comes too late for its
first half.
"""

import os
from contextlib import suppress
from importlib import import_module
from threading import Lock

MODULES = ("http.client", "tempfile", "email.utils", "encodings.idna", "fcntl", "resource")
SECURE = ("ssl",)
WAIT = 2.0
"""Seconds that a fork waits at most. It takes some 30 ms, once in a process."""

_lock = Lock()
_held = False  # by a fork


def load(*, secure: bool) -> None:
    """Load all that may be needed later. What a platform does not have is left out."""
    with _lock:
        for name in MODULES + (SECURE if secure else ()):
            with suppress(ImportError):
                import_module(name)


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
