"""What Python can raise nowhere: ``sys.unraisablehook``. Failures of atexit handlers come this way too."""

import sys
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches


def install(reporter: Reporter) -> Undo:
    """Report what reaches ``sys.unraisablehook``: ``__del__``, weak references, the collector, atexit."""
    patches = Patches(reporter, "unraisable")
    before = sys.unraisablehook

    def unraisablehook(unraisable: Any) -> None:
        patches.safely(_tell, patches, unraisable)
        before(unraisable)

    patches.replace(sys, "unraisablehook", unraisablehook)
    return patches.undo


def _tell(patches: Patches, unraisable: Any) -> None:
    error = unraisable.exc_value
    if error is None or isinstance(error, KeyboardInterrupt):
        return
    kind = _kind(error, unraisable.err_msg or "")
    # Only names are taken: the object may be half gone, and must not come to life again.
    where = unraisable.object
    name = getattr(where, "__qualname__", None) or type(where).__qualname__
    patches.outlet.raised(kind, error, context=None if where is None else {"in": str(name)})


def _kind(error: BaseException, said: str) -> Kind:
    if isinstance(error, ResourceWarning):  # made an error by a filter, but nobody there to raise it to
        return Kind.RESOURCE
    if isinstance(error, RuntimeWarning) and "was never awaited" in str(error):
        return Kind.NEVER_AWAITED
    if "thread started by" in said:  # by _thread, not by threading
        return Kind.THREAD
    return Kind.ATEXIT if "atexit" in said else Kind.UNRAISABLE
