"""Children of ``multiprocessing`` that die: by an error of their own, a signal or the kernel.

Their exit status is looked at without taking it, so that whoever joins them finds what they would have found.
"""

import os
from types import ModuleType
from typing import Any
from weakref import WeakSet

from soulfra_monitor.hooks import Reporter, Undo, exits
from soulfra_monitor.hooks.patch import Patches

EVERY = 0.2
"""Seconds between two looks at a child that lives."""


def install(reporter: Reporter) -> Undo:
    """Report each process that ends with an exit code other than 0, or by a signal of somebody else."""
    patches = Patches(reporter, "processes")
    patches.on_import("multiprocessing.process", lambda module: _fit(patches, module))
    return patches.undo


class Started:
    """The attribute ``_popen``, which a process gets once it runs.

    ``start`` itself is left alone: a child that is forked there would have our frame on its stack for ever.
    """

    def __init__(self, patches: Patches, signalled: "WeakSet[Any]") -> None:
        self._patches = patches
        self._signalled = signalled

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        found = {} if owner is None else vars(owner)
        if "_popen" not in found:
            raise AttributeError("_popen")
        return found["_popen"]

    def __set__(self, owner: Any, popen: Any) -> None:
        vars(owner)["_popen"] = popen
        if popen is not None:
            self._patches.safely(_watch, self._patches, owner, self._signalled)

    def __delete__(self, owner: Any) -> None:
        vars(owner).pop("_popen", None)


def _fit(patches: Patches, module: ModuleType) -> None:
    signalled: WeakSet[Any] = WeakSet()

    def make_signal(send: Any) -> Any:
        def replaced(self: Any) -> None:
            patches.safely(signalled.add, self._popen)
            send(self)

        return replaced

    patches.replace(module.BaseProcess, "_popen", Started(patches, signalled))
    patches.wrap(module.BaseProcess, "terminate", make_signal)
    patches.wrap(module.BaseProcess, "kill", make_signal)


def _watch(patches: Patches, process: Any, signalled: "WeakSet[Any]") -> None:
    popen, name = process._popen, process.name  # noqa: SLF001 - the process itself may be closed by then

    def look() -> float | None:
        code = _code(popen)
        if code is None:
            return EVERY
        if popen not in signalled and popen.pid not in exits.SIGNALLED and exits.failed(None, code):
            exits.tell(patches.outlet, name, code)
        return None

    patches.look_later(look, EVERY)


def _code(popen: Any) -> int | None:
    """Return how a child has ended, as ``exitcode`` says it; None while nobody can tell."""
    if popen.returncode is not None:
        return int(popen.returncode)
    try:
        found = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # taken at this moment, or a child of the fork server
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
