"""What ends a thread: ``threading.excepthook``."""

from types import ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import leave_all


def install(reporter: Reporter) -> Undo:
    """Report what reaches ``threading.excepthook``; SystemExit too, which it drops without a word.

    A thread that leaves by ``sys.exit()`` or ``sys.exit(0)`` has done what it meant to.
    """
    patches = Patches(reporter, "threads")

    def fit(threading: ModuleType) -> None:
        before = threading.excepthook

        def excepthook(args: Any) -> None:
            patches.safely(_tell, patches, args)
            if args.exc_value is not None:
                patches.safely(leave_all, args.exc_value)
            before(args)

        patches.replace(threading, "excepthook", excepthook)

    patches.on_import("threading", fit)
    return patches.undo


def _tell(patches: Patches, args: Any) -> None:
    error = args.exc_value
    if error is None or isinstance(error, KeyboardInterrupt):
        return
    if isinstance(error, SystemExit) and not error.code:
        return
    context = {"thread": args.thread.name} if args.thread is not None else None
    patches.outlet.raised(Kind.THREAD, error, handled=False, context=context)
