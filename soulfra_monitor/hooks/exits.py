"""What is told of a child process that failed, and which failures are none."""

import os
import re
import signal
from collections import deque

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact
from soulfra_monitor.hooks.patch import Outlet

ORDERLY = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE))
"""Signals that end a process on somebody's wish."""

ANSWERS_NO = frozenset(
    {
        "[", "[[", "ack", "ag", "cmp", "colordiff", "diff", "egrep", "expr", "false", "fgrep", "findmnt",
        "git", "grep", "lsof", "mountpoint", "pgrep", "pidof", "pkill", "rg", "test", "type", "which",
        "zgrep",
    }
)  # fmt: skip
"""Programs whose exit code 1 means no, or nothing found; git says 128 and 129 when it fails."""

SHELLS = frozenset(("ash", "bash", "dash", "ksh", "sh", "zsh"))
_SEPARATORS = re.compile(r"&&|\|\||[|;&\n(){}]|\b(?:do|elif|else|if|then|until|while)\b")
_COMMAND = re.compile(r"\s*(?:!\s+)?(?:\w+=\S*\s+)*(?:\S*/)?(\S+)")

LINE_LIMIT = 2000
"""Characters of a shell's line that are looked at."""

SIGNALLED: deque[int] = deque(maxlen=1000)
"""Processes, and leaders of groups, that this program has sent a signal to by ``os.kill`` or ``killpg``."""

SHELL_BASE = 128
"""A shell says 128 + n when its last command was killed by signal n."""


def failed(args: object, code: int) -> bool:
    """Whether what was started by *args* has failed with *code* (negative: by a signal, as of ``Popen``)."""
    if code == 0 or -code in ORDERLY or code - SHELL_BASE in ORDERLY:
        return False
    return not (code == 1 and ANSWERS_NO.intersection(_programs(args)))


def _programs(args: object) -> list[str]:
    """Return the programs that *args* start, as far as one can see: for a shell, those in its line."""
    if isinstance(args, list | tuple):
        words = [os.fsdecode(word) for word in args if isinstance(word, str | bytes | os.PathLike)]
        name = program_of(args)
        line = " ".join(words[1:]).partition("-c ")[2] if name in SHELLS else ""
    elif isinstance(args, str | bytes | os.PathLike):
        name, line = "", os.fsdecode(args)
    else:
        return []
    commands = (_COMMAND.match(part) for part in _SEPARATORS.split(line[:LINE_LIMIT]))
    return [name, *(command[1] for command in commands if command is not None)]


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
