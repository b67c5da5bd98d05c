"""Where silent errors surface in a Python process, one module per source.

A hook is a function ``install(reporter) -> undo``. It changes the process so that errors of its kind reach
the reporter, calls whatever stood there before with the same arguments, and hands exceptions on unchanged.
``undo`` puts back what it found, unless somebody else has put theirs on top meanwhile. That nothing is
installed twice is up to ``soulfra_monitor.monitor``.
"""

from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Protocol

from soulfra_monitor.events import Kind

Undo = Callable[[], None]
Fact = str | int | float


class Reporter(Protocol):
    """Takes what hooks see. Never raises, never waits, and does nothing while it is itself at work."""

    def raised(
        self,
        kind: Kind,
        error: BaseException,
        *,
        service: str | None = None,  # default: the process's
        message: str | None = None,  # default: the exception's
        handled: bool = True,
        facts: Mapping[str, Fact] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Take an exception. The same object is told once, whichever hooks see it; the first kind counts."""

    def noted(
        self,
        kind: Kind,
        message: str,
        *,
        service: str | None = None,
        frame: FrameType | None = None,  # where; its stack is told
        facts: Mapping[str, Fact] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Take an error that no exception stands for."""

    def broke(self, place: str, error: BaseException) -> None:
        """Count and log a failure of our own, once a minute per place."""


Install = Callable[[Reporter], Undo]
