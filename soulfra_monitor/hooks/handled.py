"""Exceptions as they are handled, on Python 3.12 and later: one tool of ``sys.monitoring`` for all hooks.

Python calls a tool for every exception that is handled anywhere, in libraries too, and lets no tool choose
the places of this event. So there is one tool with one event, and what no hook asks for is left at once.
"""

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from soulfra_monitor.hooks import Undo, program

Handled = Callable[[CodeType, int, BaseException], None]
Refused = Callable[[OSError], None]

TOOLS = (4, 3)
"""Numbers of tools that Python keeps for nobody, in the order in which they are tried."""

FILES_LIMIT = 10_000
"""Names of files of which is remembered whose they are: a program may make up names without end."""

_handled: list[Handled] = []
_refused: list[Refused] = []
_own: dict[str, bool] = {}
_tool: int | None = None


def on_handled(listener: Handled) -> Undo | None:
    """Call *listener* with what the program's own code handles: the code, the offset and the exception.

    It is called on the thread of the handler, in a frame below it, and must not raise. None where Python
    offers no tool.
    """
    return _add(_handled, listener)


def on_refused(listener: Refused) -> Undo | None:
    """Call *listener* with each OSError that is handled anywhere, likewise."""
    return _add(_refused, listener)


def _add(listeners: list[Any], listener: Any) -> Undo | None:
    if not _hold():
        return None
    listeners.append(listener)

    def undo() -> None:
        if listener in listeners:
            listeners.remove(listener)
            _let_go()

    return undo


def _hold() -> bool:
    global _tool  # noqa: PLW0603 - one process, one tool
    monitoring: Any = getattr(sys, "monitoring", None)
    if monitoring is None or _tool is not None:
        return monitoring is not None
    _tool = next((number for number in TOOLS if monitoring.get_tool(number) is None), None)
    if _tool is None:
        return False
    monitoring.use_tool_id(_tool, "soulfra_monitor")
    monitoring.register_callback(_tool, monitoring.events.EXCEPTION_HANDLED, _listen)
    monitoring.set_events(_tool, monitoring.events.EXCEPTION_HANDLED)
    return True


def _let_go() -> None:
    """Give the tool back when nobody listens any more."""
    global _tool  # noqa: PLW0603 - as above
    if _handled or _refused or _tool is None:
        return
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # Python 3.12 and later
    monitoring.set_events(_tool, 0)
    monitoring.register_callback(_tool, monitoring.events.EXCEPTION_HANDLED, None)
    monitoring.free_tool_id(_tool)
    _tool = None


def _listen(code: CodeType, offset: int, error: BaseException) -> None:
    if isinstance(error, OSError):
        for refused in _refused:
            refused(error)
    try:
        own = _own[code.co_filename]
    except KeyError:
        if len(_own) >= FILES_LIMIT:
            _own.clear()
        own = _own[code.co_filename] = program.is_own(code.co_filename)
    if own:
        for handled in _handled:
            handled(code, offset, error)
