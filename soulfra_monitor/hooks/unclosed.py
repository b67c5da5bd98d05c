"""Files and connections that nobody closed: ResourceWarning, which Python drops by default."""

import atexit
import re
import sys
import time
import warnings
from collections import deque
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches

OURS: tuple[str, None, type[Warning], None, int] = ("always", None, ResourceWarning, None, 0)
"""Our filter. It stands right before the one that drops ResourceWarning, so that all others win as before."""

FILES, FILES_WITHIN = 20, 60.0
"""Files that are left to the garbage collector within that many seconds before one is told: CPython closes
each at once, as in ``json.load(open(path))``. One socket is told by itself."""

STOCK = ("warnings", "_py_warnings")
"""Modules of the functions that Python itself shows warnings with."""


def install(reporter: Reporter) -> Undo:
    """Report each ResourceWarning but those of child processes. What was not printed before is not printed.

    Of files only the twentieth within a minute, and those that follow as fast. Our filter goes at exit: what
    the end of the process closes is nobody's business.

    Where the program's own filters show ResourceWarning, or make errors of it, they are left as they are. In
    ``catch_warnings(record=True)`` warnings are the program's own business.
    """
    patches = Patches(reporter, "unclosed")
    ours = (*OURS,)  # an object of its own: known by identity
    files: deque[float] = deque(maxlen=FILES)
    _insert(ours)

    def remove() -> None:
        _remove(ours)

    atexit.register(remove)
    patches.later(remove)
    patches.later(lambda: atexit.unregister(remove))

    def make(show: Any) -> Any:
        def _showwarnmsg(message: Any) -> None:
            if issubclass(message.category, ResourceWarning):
                silent = patches.safely(_was_dropped, str(message.message), ours)
                if not _recorded():
                    patches.safely(_tell, patches, files, message, sys._getframe(1))  # noqa: SLF001 - where it died
                if silent:
                    return
            show(message)

        return _showwarnmsg

    patches.wrap(warnings, "_showwarnmsg", make)
    return patches.undo


def _recorded() -> bool:
    """Whether warnings go into a list of the program's."""
    shows = getattr(warnings, "_showwarnmsg_impl", None)
    return getattr(shows, "__module__", "") not in STOCK


def _tell(patches: Patches, files: "deque[float]", message: Any, frame: Any) -> None:
    text = str(message.message)
    if sys.is_finalizing() or text.startswith("subprocess "):
        return  # what the end of the process closes; a child that was let go on purpose
    if text.startswith("unclosed file ") and not _too_many(files, time.monotonic()):
        return
    context = {"file": f"{message.filename}:{message.lineno}"}
    patches.outlet.noted(Kind.RESOURCE, text, frame=frame, context=context)


def _too_many(files: "deque[float]", now: float) -> bool:
    """Whether another file makes ``FILES`` within the time."""
    files.append(now)
    return len(files) == FILES and now - files[0] <= FILES_WITHIN


def _insert(ours: Any) -> None:
    for place, found in enumerate(warnings.filters):
        action, text, category, module, line = found
        if issubclass(ResourceWarning, category) and text is None and module is None and not line:
            if action == "ignore":
                warnings.filters.insert(place, ours)  # type: ignore[attr-defined]  # a list, whatever its type says
            return


def _remove(ours: Any) -> None:
    filters: Any = warnings.filters
    for place, found in enumerate(filters):
        if found is ours:
            del filters[place]
            return


def _was_dropped(text: str, ours: Any) -> bool:
    """Whether our filter is the first that this warning meets."""
    for found in warnings.filters:
        if found is ours:
            return True
        _, pattern, category, module, _ = found
        if issubclass(ResourceWarning, category) and module is None and _matches(pattern, text):
            return False
    return False


def _matches(pattern: re.Pattern[str] | str | None, text: str) -> bool:
    if pattern is None:
        return True
    return bool(re.match(pattern, text, re.IGNORECASE) if isinstance(pattern, str) else pattern.match(text))
