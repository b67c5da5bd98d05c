"""What is written to a log by who caught it."""

import sys
from types import FrameType, ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Patches

CALLBACKS = "concurrent.futures"
"""The logger that tells of callbacks of futures that raised."""

OURS = "soulfra_monitor"
LOOPS = "asyncio"  # its errors without an exception come by the loop's handler, see ``tasks``


def install(reporter: Reporter) -> Undo:
    """Report records of WARNING and above with an exception, and of ERROR and above without.

    The exception is the record's or the one being handled. Records count whether or not a handler writes
    them, but not those that levels and the logger's own filters drop.
    """
    patches = Patches(reporter, "logs")

    def fit(logging: ModuleType) -> None:
        warning, error = logging.WARNING, logging.ERROR
        source = logging._srcfile  # noqa: SLF001 - which frames are logging's own

        def make(call: Any) -> Any:
            def callHandlers(self: Any, record: Any) -> None:  # noqa: N802 - its name
                level = record.levelno
                if level >= error or (level >= warning and (record.exc_info or sys.exc_info()[1])):
                    frame = sys._getframe(1)  # noqa: SLF001 - who logs
                    patches.safely(_tell, patches, record, level >= error, (frame, source))
                call(self, record)

            return callHandlers

        patches.wrap(logging.Logger, "callHandlers", make)

    patches.on_import("logging", fit)
    return patches.undo


def _tell(patches: Patches, record: Any, serious: bool, place: tuple[FrameType, str]) -> None:
    if record.name.partition(".")[0] == OURS:
        return
    told = record.exc_info
    error = told[1] if isinstance(told, tuple) else sys.exc_info()[1]
    context = {"logger": record.name, "level": record.levelname, "log": _text(record)}
    if error is not None:
        kind = Kind.CALLBACK if record.name == CALLBACKS else Kind.LOGGED
        patches.outlet.raised(kind, error, context=context)
    elif serious and record.name != LOOPS:
        patches.outlet.noted(Kind.LOGGED, context["log"], frame=_outside(*place), context=context)


def _text(record: Any) -> str:
    try:
        return str(record.getMessage())
    except Exception:  # noqa: BLE001 - arguments that do not fit: logging tells of it by itself
        return str(record.msg)


def _outside(frame: FrameType | None, source: str) -> FrameType | None:
    while frame is not None and frame.f_code.co_filename == source:
        frame = frame.f_back
    return frame
