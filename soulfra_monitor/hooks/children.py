"""Children of ``subprocess`` that fail without anybody looking at their exit code.

``check=True``, ``check_call`` and ``check_output`` look. So does who reads ``returncode``, or makes use of
what ``wait``, ``poll`` or ``call`` give, or of the stderr that ``communicate`` gives. A child that nobody has
looked at after the grace time, or by the time its object is gone, is told, unless its end was no failure: the
program itself has sent a signal, the signal was an orderly one, or the exit code is a 1 that means no
(``exits``). Other exit codes of 1 are told once per program.
"""

import os
import sys
from types import FrameType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from soulfra_monitor.hooks import Reporter, Undo, exits
from soulfra_monitor.hooks.patch import Builtin, Outlet, Patches
from soulfra_monitor.hooks.stacks import leave
from soulfra_monitor.hooks.unused import thrown_away

_CHECKING = frozenset(("check_call", "check_output"))
_LOOKING = frozenset(("check_returncode", "__repr__"))
_GIVING = frozenset(("wait", "poll", "call"))
_COROUTINE = 0x80  # inspect.CO_COROUTINE

PROGRAMS_LIMIT = 1000
"""Programs whose first exit code of 1 is remembered."""


def install(reporter: Reporter) -> Undo:
    """Report children of ``subprocess`` and ``asyncio.subprocess`` whose failure nobody looks at."""
    patches = Patches(reporter, "children")
    exits_seen = Exits(patches)
    for name in ("kill", "killpg"):
        patches.replace(os, name, _killer(getattr(os, name)))
    patches.on_import("subprocess", lambda module: _fit(patches, exits_seen, module))
    patches.on_import("asyncio.subprocess", lambda module: _fit_asyncio(patches, exits_seen, module))
    return patches.undo


def _killer(before: Any) -> Builtin:
    def kills(*args: Any, **options: Any) -> None:
        match args:
            case (int(pid), int(number)) if number:
                exits.SIGNALLED.append(pid)
        try:
            before(*args, **options)
        except Exception as error:
            leave(error)
            raise

    return Builtin.of(before, "os", kills)


class Exit:
    """A failure that nobody has looked at yet. Lives as long as the object that holds the exit code."""

    __slots__ = ("__weakref__", "_at", "_code", "_outlet", "_program", "read")

    def __init__(self, outlet: Outlet, program: str, code: int, at: str) -> None:
        self._outlet = outlet
        self._program = program
        self._code = code
        self._at = at
        self.read = False

    def look(self) -> None:
        """Tell of it unless it was looked at, once."""
        if not self.read:
            self.read = True
            exits.tell(self._outlet, self._program, self._code, self._at)

    def __del__(self) -> None:
        self.look()


class Exits:
    """The failed children of this process that nobody has looked at."""

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self._exits: WeakKeyDictionary[Any, Exit] = WeakKeyDictionary()
        self._signalled: WeakSet[Any] = WeakSet()
        self._ones: set[str] = set()

    def signalled(self, owner: Any) -> None:
        """Take note that the program itself sends a signal to the child: its end is wished for."""
        self._signalled.add(owner)

    def failed(self, owner: Any, args: Any, code: int, at: str, pid: int | None) -> None:
        """Take note of a child's end, known to *owner*."""
        program = exits.program_of(args)
        if (
            pid in exits.SIGNALLED
            or owner in self._signalled
            or owner in self._exits
            or not exits.failed(args, code)
        ):
            return
        if code == 1 and not self._first(program):
            return
        found = Exit(self._patches.outlet, program, code, at)
        self._exits[owner] = found
        place = ref(found)

        def look() -> None:
            waiting = place()
            if waiting is not None:
                waiting.look()

        self._patches.look_later(look)

    def looked(self, owner: Any) -> None:
        """Take note that somebody looks at the exit code."""
        found = self._exits.get(owner)
        if found is not None:
            found.read = True

    def pending(self, owner: Any) -> bool:
        """Whether anybody has yet to look at a failure of *owner*."""
        found = self._exits.get(owner)
        return found is not None and not found.read

    def _first(self, program: str) -> bool:
        if program in self._ones or len(self._ones) >= PROGRAMS_LIMIT:
            return False
        self._ones.add(program)
        return True


class Code:
    """The attribute ``returncode``, which takes note of who reads one that means failure."""

    def __init__(self, patches: Patches, seen: Exits, module: ModuleType) -> None:
        self._patches = patches
        self._seen = seen
        self._module = module

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            raise AttributeError("returncode")
        try:
            code = vars(owner)["returncode"]
        except KeyError:
            raise AttributeError("returncode") from None
        if code:
            self._patches.safely(self._read, owner, sys._getframe(1))  # noqa: SLF001 - who reads
        return code

    def __set__(self, owner: Any, code: Any) -> None:
        vars(owner)["returncode"] = code

    def __delete__(self, owner: Any) -> None:
        vars(owner).pop("returncode", None)

    def _read(self, owner: Any, frame: FrameType) -> None:
        if self._seen.pending(owner) and _looks(frame, self._module):
            self._seen.looked(owner)


def _fit(patches: Patches, seen: Exits, module: ModuleType) -> None:
    code = Code(patches, seen, module)

    def make_handle(handle: Any) -> Any:
        def _handle_exitstatus(self: Any, *args: Any, **kwargs: Any) -> None:
            handle(self, *args, **kwargs)
            if vars(self).get("returncode"):
                patches.safely(_ended, seen, self, sys._getframe(1), module)  # noqa: SLF001 - who learns of it

        return _handle_exitstatus

    def make_send(send: Any) -> Any:
        def send_signal(self: Any, sig: Any) -> None:
            patches.safely(seen.signalled, self)
            send(self, sig)

        return send_signal

    def make_completed(init: Any) -> Any:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it becomes one
            init(self, *args, **kwargs)
            if vars(self).get("returncode"):
                patches.safely(_completed, seen, self, sys._getframe(1), module)  # noqa: SLF001 - likewise

        return __init__

    patches.wrap(module.Popen, "_handle_exitstatus", make_handle)
    patches.wrap(module.Popen, "send_signal", make_send)
    patches.wrap(module.CompletedProcess, "__init__", make_completed)
    patches.replace(module.Popen, "returncode", code)
    patches.replace(module.CompletedProcess, "returncode", code)


def _ended(seen: Exits, popen: Any, frame: FrameType, module: ModuleType) -> None:
    names, outside = _climb(frame, module)
    if "run" in names or _CHECKING & set(names):  # those give or raise it by other means
        return
    if "communicate" in names and popen.stderr is not None and not _drops(outside):
        return  # who reads what the child complains of looks at its failure
    seen.failed(popen, popen.args, vars(popen)["returncode"], _place(outside), popen.pid)


def _drops(frame: FrameType | None) -> bool:
    return frame is None or thrown_away(frame.f_code, frame.f_lasti)


def _completed(seen: Exits, completed: Any, frame: FrameType, module: ModuleType) -> None:
    names, outside = _climb(frame, module)
    if names[:1] == ["run"] and not frame.f_locals.get("check"):
        code = vars(completed)["returncode"]
        seen.failed(completed, completed.args, code, _place(outside), None)


def _climb(frame: FrameType | None, module: ModuleType) -> tuple[list[str], FrameType | None]:
    """Return the functions of *module* that *frame* is in, innermost first, and who called them."""
    names: list[str] = []
    while frame is not None and (frame.f_globals is vars(module) or _is_ours(frame)):
        if not _is_ours(frame):
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names, frame


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("soulfra_monitor.hooks.")


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _looks(frame: FrameType, module: ModuleType) -> bool:
    """Whether the code that is read at *frame* comes to the eyes of somebody outside of ``subprocess``."""
    names, outside = _climb(frame, module)
    if not names or _LOOKING & set(names):
        return True
    if names[-1] not in _GIVING or outside is None:
        return False
    return not thrown_away(outside.f_code, outside.f_lasti, asked_for_none=names[-1] == "poll")


def _fit_asyncio(patches: Patches, seen: Exits, module: ModuleType) -> None:  # noqa: C901 - one thing: its parts
    """See to ``asyncio.subprocess``, of any loop. The protocol of a process stands for it."""

    def make_exited(exited: Any) -> Any:
        def process_exited(self: Any) -> None:
            patches.safely(_exited, seen, self)
            exited(self)

        return process_exited

    def make_wait(wait: Any) -> Any:
        async def replaced(self: Any) -> Any:
            code = await wait(self)
            if code:
                frame = sys._getframe(1)  # noqa: SLF001 - who awaits
                patches.safely(_waited, seen, self._protocol, frame)
            return code

        return replaced

    def make_signal(send: Any) -> Any:
        def replaced(self: Any, *args: Any) -> None:
            patches.safely(seen.signalled, self._protocol)
            send(self, *args)

        return replaced

    def returncode(self: Any) -> Any:
        code = self._transport.get_returncode()
        if code:
            patches.safely(seen.looked, self._protocol)
        return code

    patches.wrap(module.SubprocessStreamProtocol, "process_exited", make_exited)
    patches.wrap(module.Process, "wait", make_wait)
    for name in ("send_signal", "terminate", "kill"):
        patches.wrap(module.Process, name, make_signal)
    patches.replace(module.Process, "returncode", property(returncode))


def _exited(seen: Exits, protocol: Any) -> None:
    transport = protocol._transport  # noqa: SLF001 - it has no other name
    code = transport.get_returncode()
    if code:
        popen = transport.get_extra_info("subprocess")  # uvloop's has none
        seen.failed(protocol, getattr(popen, "args", None), code, "", transport.get_pid())


def _waited(seen: Exits, protocol: Any, frame: FrameType) -> None:
    awaits = frame.f_code.co_flags & _COROUTINE
    if not awaits or not thrown_away(frame.f_code, frame.f_lasti):
        seen.looked(protocol)
