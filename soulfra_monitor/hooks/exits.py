"""What is told of a child process that failed, and which failures are none."""

import os
import signal
from collections import deque

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact
from soulfra_monitor.hooks.patch import Outlet

ORDERLY = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE))
"""Signals that end a process on somebody's wish."""

ANSWERS_NO = frozenset(
    ("cmp", "diff", "egrep", "expr", "false", "fgrep", "grep", "pgrep", "pidof", "rg", "test", "which", "[")
)
"""Programs whose exit code 1 means no, or nothing found."""

SIGNALLED: deque[int] = deque(maxlen=1000)
"""Processes, and leaders of groups, that this program has sent a signal to by ``os.kill`` or ``killpg``."""

SHELL_BASE = 128
"""A shell says 128 + n when its last command was killed by signal n."""


def failed(program: str, code: int) -> bool:
    """Whether a *program* that ended with *code* (negative: by a signal, as ``Popen`` says it) has failed."""
    if code == 0 or -code in ORDERLY or code - SHELL_BASE in ORDERLY:
        return False
    return not (code == 1 and program in ANSWERS_NO)


def program_of(args: object) -> str:
    """Return the name of the program, without its arguments: they may hold secrets."""
    if isinstance(args, str | bytes | os.PathLike):
        return "sh"  # a line for the shell, or a program's path; its words are not ours to tell
    first = next(iter(args), "") if isinstance(args, list | tuple) else ""
    return os.fsdecode(first).rpartition("/")[2] if isinstance(first, str | bytes | os.PathLike) else ""


def tell(outlet: Outlet, program: str, code: int, at: str = "") -> None:
    """Tell of a child that failed. *at* is the place that learned of it."""
    name = program or "a child process"
    context = {"program": name, "at": at} if at else {"program": name}
    if code < 0:
        message = f"{name} was killed by {_signal_name(-code)}"
        facts: dict[str, Fact] = {"signal": -code}
    else:
        message, facts = f"{name} ended with exit code {code}", {"exit_code": code}
    outlet.noted(Kind.CHILD, message, facts=facts, context=context)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
