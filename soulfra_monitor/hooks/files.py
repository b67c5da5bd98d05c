"""Files and sockets that the operating system refuses: no right, no space, no handles left.

From Python 3.12 on, ``sys.monitoring`` shows each exception where it is handled (``handled``); one that
nobody handles is told by others. Before, ``open`` and the making of sockets are wrapped: what ``write`` and
``flush`` are refused, as on a full disk, is seen only where it is swallowed, logged or not caught. The
functions of ``os`` are not wrapped: ``shutil.rmtree`` and others look them up in ``os.supports_dir_fd``, and
are less safe without them.
"""

import errno
import io
import os
import sys
from types import ModuleType
from typing import Any

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Reporter, Undo, handled, program
from soulfra_monitor.hooks.patch import Builtin, Patches
from soulfra_monitor.hooks.stacks import here, leave

REFUSALS = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EIO,
    )
)
"""What the system says when something is wrong with it, other than that there is no such file."""


def install(reporter: Reporter) -> Undo:
    """Report each OSError of ``REFUSALS``, whoever catches it. The path is a fact."""
    patches = Patches(reporter, "files")
    if sys.version_info >= (3, 12):
        _listen(patches)
    else:
        _wrap(patches)
    return patches.undo


def _tell(patches: Patches, error: OSError) -> None:
    if error.errno not in REFUSALS:
        return
    facts: dict[str, str | int | float] = {"errno": error.errno}
    if isinstance(error.filename, str | bytes | os.PathLike):
        facts["path"] = os.path.abspath(os.fsdecode(error.filename))
    patches.outlet.raised(Kind.FILE, error, facts=facts, context={"at": _raised_at(error)})


def _opener(patches: Patches, before: Any) -> Builtin:
    def opens(*args: Any, **options: Any) -> Any:
        try:
            return before(*args, **options)
        except Exception as error:
            if isinstance(error, OSError):
                patches.safely(_tell, patches, error)
            leave(error)
            raise

    return Builtin.of(before, "io", opens)


def _wrap(patches: Patches) -> None:
    opener = _opener(patches, io.open)
    patches.replace(io, "open", opener)
    patches.replace(sys.modules["builtins"], "open", opener)
    patches.on_import("socket", lambda module: _fit_socket(patches, module))


def _fit_socket(patches: Patches, module: ModuleType) -> None:
    def make(init: Any) -> Any:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it becomes one
            try:
                init(self, *args, **kwargs)
            except OSError as error:
                patches.safely(_tell, patches, error)
                leave(error)
                raise

        return __init__

    patches.wrap(module.socket, "__init__", make)


def _listen(patches: Patches) -> None:
    def refused(error: OSError) -> None:
        if error.errno in REFUSALS:
            patches.safely(_tell, patches, error)

    undo = handled.on_refused(refused)
    if (
        undo is not None
    ):  # else others have taken all tools; the swallowed and the uncaught ones are still told
        patches.later(undo)


def _raised_at(error: OSError) -> str:
    """Return the innermost place of the program's own code that the error has come through."""
    place, traceback = "", error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if program.is_own(code.co_filename):
            place = f"{code.co_filename}:{traceback.tb_lineno} in {code.co_name}"
        traceback = traceback.tb_next
    return place or here()
