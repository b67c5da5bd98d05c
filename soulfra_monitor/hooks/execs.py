"""Programs that become another program: ``os.exec*``. No atexit handler runs then.

What there is to tell is sent before, as at the end of a program, and the record of this life says goodbye.
"""

import os
from typing import Any

from soulfra_monitor import crashes
from soulfra_monitor.hooks import Reporter, Undo
from soulfra_monitor.hooks.patch import Builtin, Patches
from soulfra_monitor.hooks.stacks import leave


def install(reporter: Reporter) -> Undo:
    """Have *reporter* step aside before another program takes this process, if it can and there is one."""
    patches = Patches(reporter, "execs")
    step_aside = getattr(reporter, "step_aside", None)
    for name in ("execv", "execve"):  # what all others call
        patches.replace(os, name, _becoming(patches, getattr(os, name), step_aside))
    return patches.undo


def _becoming(patches: Patches, before: Any, step_aside: Any) -> Builtin:
    def becomes(*args: Any, **options: Any) -> None:
        record = None
        if patches.safely(_is_program, args[0] if args else options.get("path")):
            if step_aside is not None:
                patches.safely(step_aside)
            record = crashes.current()
            patches.safely(_say_goodbye, record)
        try:
            before(*args, **options)
        except BaseException as error:  # none of those that come back has become another
            patches.safely(_stay, record)
            leave(error)
            raise

    return Builtin.of(before, "os", becomes)


def _is_program(path: Any) -> bool:
    """Whether there is anything that can be run; who looks through PATH tries many places."""
    return isinstance(path, int) or (os.path.isfile(path) and os.access(path, os.X_OK))


def _say_goodbye(record: crashes.Record | None) -> None:
    if record is not None:
        record.step_aside()


def _stay(record: crashes.Record | None) -> None:
    if record is not None:
        record.come_back()
