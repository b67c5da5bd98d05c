"""What is printed by who caught it: ``traceback.print_exc`` and ``print_exception``."""

import sys
from types import ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches


def install(reporter: Reporter) -> Undo:
    """Report exceptions printed to the process's own output; one that is made into a text may go anywhere."""
    patches = Patches(reporter, "printed")

    def fit(traceback: ModuleType) -> None:
        def make(show: Any) -> Any:
            def print_exception(*args: Any, **kwargs: Any) -> None:
                patches.safely(_tell, patches, args, kwargs)
                show(*args, **kwargs)

            return print_exception

        patches.wrap(traceback, "print_exception", make)

    patches.on_import("traceback", fit)
    return patches.undo


def _tell(patches: Patches, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Read the arguments as ``print_exception(exc, value, tb, limit, file, chain)`` does."""
    error = args[1] if len(args) > 1 else kwargs.get("value", args[0] if args else None)
    file = args[4] if len(args) > 4 else kwargs.get("file")  # noqa: PLR2004 - the fifth argument
    if file not in (None, sys.stderr, sys.stdout) or isinstance(error, KeyboardInterrupt):
        return
    if isinstance(error, BaseException):
        patches.outlet.raised(Kind.LOGGED, error)
