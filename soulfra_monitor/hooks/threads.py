"""What ends a thread: ``threading.excepthook``."""

import sys
from types import ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches
from soulfra_monitor.hooks.stacks import leave_all


def install(reporter: Reporter) -> Undo:
    """Report what reaches ``threading.excepthook``; SystemExit too, which it drops without a word.

    Also where the program has put a hook of its own there that calls no other: the thread itself is asked.

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

        def make_maker(maker: Any) -> Any:
            def _make_invoke_excepthook() -> Any:
                invoke = maker()

                def invoke_excepthook(thread: Any) -> None:
                    if threading.excepthook is not excepthook:
                        patches.safely(_tell_end, patches, thread)
                    invoke(thread)

                return invoke_excepthook

            return _make_invoke_excepthook

        patches.replace(threading, "excepthook", excepthook)
        patches.wrap(threading, "_make_invoke_excepthook", make_maker)

    patches.on_import("threading", fit)
    return patches.undo


def _tell(patches: Patches, args: Any) -> None:
    _tell_of(patches, args.exc_value, args.thread)


def _tell_end(patches: Patches, thread: Any) -> None:
    _tell_of(patches, sys.exc_info()[1], thread)


def _tell_of(patches: Patches, error: BaseException | None, thread: Any) -> None:
    if error is None or isinstance(error, KeyboardInterrupt):
        return
    if isinstance(error, SystemExit) and not error.code:
        return
    context = {"thread": thread.name} if thread is not None else None
    patches.outlet.raised(Kind.THREAD, error, handled=False, context=context)
