"""Exit statuses of ``os.system``, ``os.popen(...).close`` and ``os.spawn*`` that nobody looks at.

Whether anybody looks is seen by the code that gets the status (``unused``), and only when it means failure.
``fork`` with ``waitpid``, and ``posix_spawn``, are for programs that manage processes themselves.
"""

import os
import sys
from functools import partial
from types import FrameType
from typing import Any

from soulfra_monitor.hooks import Reporter, Undo, exits
from soulfra_monitor.hooks.patch import Builtin, Patches
from soulfra_monitor.hooks.stacks import leave
from soulfra_monitor.hooks.unused import thrown_away


def install(reporter: Reporter) -> Undo:
    """Report programs that ``os`` has run, that failed, and whose status is thrown away."""
    patches = Patches(reporter, "statuses")
    patches.replace(os, "system", _system(patches, os.system))
    patches.wrap(os._wrap_close, "close", partial(_make_close, patches))  # noqa: SLF001 - what popen gives
    patches.wrap(os, "_spawnvef", partial(_make_spawn, patches))  # all of spawn* go through it
    return patches.undo


def _system(patches: Patches, before: Any) -> Builtin:
    def system(*args: Any, **options: Any) -> Any:
        try:
            status = before(*args, **options)
        except Exception as error:
            leave(error)
            raise
        if status:
            patches.safely(_ended, patches, "sh", status, sys._getframe(1))  # noqa: SLF001 - who gets it
        return status

    return Builtin.of(before, "os", system)


def _make_close(patches: Patches, close: Any) -> Any:
    def replaced(self: Any) -> Any:
        status = close(self)
        if status:
            patches.safely(_ended, patches, "sh", status, sys._getframe(1))  # noqa: SLF001 - likewise
        return status

    return replaced


def _make_spawn(patches: Patches, spawn: Any) -> Any:
    def replaced(mode: Any, file: Any, *args: Any) -> Any:
        code = spawn(mode, file, *args)
        if code and mode == os.P_WAIT:
            patches.safely(_failed, patches, exits.program_of([file]), code, sys._getframe(1))  # noqa: SLF001
        return code

    return replaced


def _ended(patches: Patches, program: str, status: int, frame: FrameType) -> None:
    _failed(patches, program, os.waitstatus_to_exitcode(status), frame)


def _failed(patches: Patches, program: str, code: int, frame: FrameType | None) -> None:
    inside = vars(os)
    while frame is not None and frame.f_globals is inside and frame.f_code.co_name != "__exit__":
        frame = frame.f_back
    if frame is None or not exits.failed(program, code) or not thrown_away(frame.f_code, frame.f_lasti):
        return
    while frame is not None and frame.f_globals is inside:  # a ``with`` drops it
        frame = frame.f_back
    place = "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    exits.tell(patches.outlet, program, code, place)
