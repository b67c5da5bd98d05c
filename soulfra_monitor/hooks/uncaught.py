"""What ends the program: ``sys.excepthook``."""

import sys
from types import TracebackType

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import leave_all


def install(reporter: Reporter) -> Undo:
    """Report what reaches ``sys.excepthook``. What a person types at a prompt is theirs, and so is Ctrl-C.

    Our frames are taken from the traceback, as whoever shows it is to show what it would without us.
    """
    patches = Patches(reporter, "uncaught")
    before = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        ours = isinstance(error, BaseException) and not isinstance(error, KeyboardInterrupt)
        if ours and not hasattr(sys, "ps1"):
            patches.outlet.raised(Kind.UNCAUGHT, error, handled=False)
        if isinstance(error, BaseException) and error.__traceback__ is traceback:
            patches.safely(leave_all, error)
            traceback = error.__traceback__
        before(kind, error, traceback)

    patches.replace(sys, "excepthook", excepthook)
    return patches.undo
