"""Coroutines that were made and never awaited: their work was not done."""

import sys
import warnings
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches


def install(reporter: Reporter) -> Undo:
    """Report each coroutine that dies unawaited, whatever the filters of warnings say about its warning.

    The interpreter calls ``warnings._warn_unawaited_coroutine`` for each; the frame that it is called from
    is the one in which the coroutine was dropped.
    """
    patches = Patches(reporter, "coroutines")

    def make(warn: Any) -> Any:
        stock = getattr(warn, "__module__", "") in ("warnings", "_py_warnings")

        def _warn_unawaited_coroutine(coroutine: Any) -> None:
            patches.safely(_tell, patches, coroutine, sys._getframe(1))  # noqa: SLF001 - where it was dropped
            if stock:
                # As the interpreter's own does, which would name our line here and not the program's.
                warnings.warn(_text(coroutine), RuntimeWarning, stacklevel=2, source=coroutine)
            else:
                warn(coroutine)

        return _warn_unawaited_coroutine

    patches.wrap(warnings, "_warn_unawaited_coroutine", make)
    return patches.undo


def _tell(patches: Patches, coroutine: Any, frame: Any) -> None:
    code = coroutine.cr_code
    name = coroutine.__qualname__
    context: dict[str, Any] = {
        "coroutine": name,
        "defined": f"{code.co_filename}:{code.co_firstlineno}",
    }
    if coroutine.cr_origin:
        context["made"] = [f"{file}:{line} in {function}" for file, line, function in coroutine.cr_origin]
    patches.outlet.noted(
        Kind.NEVER_AWAITED, f"coroutine '{name}' was never awaited", frame=frame, context=context
    )


def _text(coroutine: Any) -> str:
    """Return what Python says of *coroutine*; where it was made is known in asyncio's debug mode."""
    said = f"coroutine '{coroutine.__qualname__}' was never awaited"
    if coroutine.cr_origin is None:
        return said
    import linecache  # noqa: PLC0415 - as Python itself does
    import traceback  # noqa: PLC0415

    places = [
        (file, line, function, linecache.getline(file, line))
        for file, line, function in reversed(coroutine.cr_origin)
    ]
    made = "".join(traceback.format_list(places))
    return f"{said}\nCoroutine created at (most recent call last)\n{made}".rstrip("\n")
