"""Errors that the program catches and does nothing about.

Two means, one meaning: on Python 3.12 and later the interpreter tells of every handled exception
(``swallowed_monitoring``); before that, the handlers of the program's own modules get one call more when they
are imported (``swallowed_ast``). Which handlers count is written in ``shapes``. Nothing costs anything until
an exception is handled. SOULFRA_SWALLOWED=off turns all of it off.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from time import monotonic
from types import FrameType, SimpleNamespace, TracebackType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo, program
from soulfra_monitor.hooks.shapes import NEVER, Finding, is_everyday, is_in_trouble

SWITCH = "SOULFRA_SWALLOWED"

BURST = 20
"""Errors of one site in a second that are handed on one by one; the others are counted, and their number
goes along with a later one as the fact ``repeats``."""


class Site:
    """One place that swallows, and what it swallowed lately."""

    __slots__ = ("context", "count", "everyday", "tell", "trouble", "until")

    def __init__(self, file: str, finding: Finding, tell: "Tell") -> None:
        self.context = {
            "handler": f"{file}:{finding.line}",
            "catches": finding.catches,
            "why": finding.why,
        }
        self.everyday = finding.everyday
        self.trouble = finding.trouble
        self.tell = tell
        self.count = 0  # since the second began; threads may lose one now and then
        self.until = 0.0

    def hit(self, error: BaseException | None = None) -> None:
        """Take one error, by default the one that is being handled. Never raises."""
        self.count = count = self.count + 1
        if count > BURST and monotonic() < self.until:
            return
        self.tell(self, sys.exception() if error is None else error)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be something that takes hits and does nothing where somebody sends the code to another process."""
        return SimpleNamespace, (), {"hit": int}


Tell = Callable[[Site, BaseException | None], None]
Broke = Callable[[str, BaseException], None]


def teller(reporter: Reporter) -> Tell:
    """Return what hands the errors of sites on to *reporter*."""

    def tell(site: Site, error: BaseException | None) -> None:
        try:
            if error is None or is_no_error(error) or is_normal(site, error):
                return
            repeats = max(0, site.count - BURST - 1)
            if site.count == 1 or site.count > BURST:
                site.count, site.until = 1, monotonic() + 1.0
            facts = {"repeats": repeats} if repeats else None
            reporter.raised(Kind.SWALLOWED, error, facts=facts, context=site.context)
        except RecursionError:
            return  # the program is at its depth, and nothing of ours is broken
        except Exception as failure:  # noqa: BLE001 - the edge to the host: nothing of ours may reach it
            reporter.broke("swallowed", failure)

    return tell


def is_no_error(error: BaseException) -> bool:
    """Tell whether an exception only says "stop": an end of an iteration, a cancellation, a wish to exit."""
    return any(kind.__name__ in NEVER for kind in type(error).__mro__)


def is_normal(site: Site, error: BaseException) -> bool:
    """Tell whether *error* is what the handler at *site* is meant for, by its class or its code."""
    return is_everyday(error, site.everyday) or (site.trouble and not is_in_trouble(error))


def install(reporter: Reporter) -> Undo:
    """Report errors that the program's own code swallows, by the best means that this Python has."""
    if os.environ.get(SWITCH, "").strip().lower() in {"off", "0", "no", "false"}:
        return _nothing
    tell = teller(reporter)
    undos = [_means(tell, reporter.broke), _suppress(tell, reporter.broke)]

    def undo() -> None:
        for step in undos:
            step()

    return undo


def _nothing() -> None:
    """Undo nothing."""


def _means(tell: Tell, broke: Broke) -> Undo:
    if sys.version_info >= (3, 12):
        from soulfra_monitor.hooks import swallowed_monitoring  # noqa: PLC0415 - it needs Python 3.12

        if (undo := swallowed_monitoring.install(tell, broke)) is not None:
            return undo
    from soulfra_monitor.hooks import swallowed_ast  # noqa: PLC0415 - not needed where the other works

    return swallowed_ast.install(tell, broke)


def _suppress(tell: Tell, broke: Broke) -> Undo:
    """Watch ``contextlib.suppress``."""
    original: Callable[..., Any] = contextlib.suppress.__exit__
    known: dict[tuple[str, int], Site | None] = {}

    def __exit__(  # noqa: N807 - what it stands in for
        self: contextlib.suppress,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        suppressed = original(self, kind, error, traceback)
        if suppressed and kind is not None:
            try:
                if (site := _suppressing(known, sys._getframe(1), tell)) is not None:  # noqa: SLF001
                    site.hit(error)
            except Exception as failure:  # noqa: BLE001 - the edge to the host
                broke("swallowed.suppress", failure)
        return suppressed

    contextlib.suppress.__exit__ = __exit__  # type: ignore[method-assign]  # that is the hook

    def undo() -> None:
        if contextlib.suppress.__exit__ is __exit__:
            contextlib.suppress.__exit__ = original  # type: ignore[method-assign]  # as above

    return undo


def _suppressing(known: dict[tuple[str, int], Site | None], frame: FrameType, tell: Tell) -> Site | None:
    place = (frame.f_code.co_filename, frame.f_lineno)
    if place not in known:
        finding = program.source(place[0]).suppressions.get(place[1]) if program.is_own(place[0]) else None
        known[place] = None if finding is None else Site(place[0], finding, tell)
    return known[place]
