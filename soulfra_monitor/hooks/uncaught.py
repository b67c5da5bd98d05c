"""What ends the program: ``sys.excepthook``."""

import atexit
import sys
from types import TracebackType

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import leave_all


def install(reporter: Reporter) -> Undo:
    """Report what reaches ``sys.excepthook``. What a person types at a prompt is theirs, and so is Ctrl-C.

    A hook that the program puts in the place of ours, and that calls no other, leaves the error where Python
    keeps it for debuggers: there it is found at the end.

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

    def look() -> None:
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if sys.excepthook is excepthook or hasattr(sys, "ps1") or not isinstance(error, BaseException):
            return
        if not isinstance(error, KeyboardInterrupt) and _has_left_main(error):
            patches.outlet.raised(Kind.UNCAUGHT, error, handled=False)

    patches.replace(sys, "excepthook", excepthook)
    atexit.register(look)
    patches.later(lambda: atexit.unregister(look))
    return patches.undo


def _has_left_main(error: BaseException) -> bool:
    """Whether *error* came out of the program's main module: consoles and test runners keep others there."""
    names = vars(sys.modules["__main__"])
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") == "runpy":
        traceback = traceback.tb_next
    if traceback is None:
        return False
    frame, code = traceback.tb_frame, traceback.tb_frame.f_code
    is_typed = code.co_filename.startswith("<") and code.co_filename not in ("<string>", "<stdin>")
    return frame.f_globals is names and code.co_name == "<module>" and not is_typed
