"""What an outsider says of a program's end. Loaded when it has ended."""

import signal
import sys
from collections.abc import Collection
from dataclasses import dataclass

from soulfra_monitor import child, crashes
from soulfra_monitor.crashes import Life
from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact
from soulfra_monitor.hooks.table import HOOKS
from soulfra_monitor.monitor import ErrorMonitor

_STOPS = {"SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE"}
_REQUESTS = {"SIGTERM", "SIGHUP"}  # nothing but a wish to stop, whoever sent them and to whom
_ASKED = 128  # and a signal's number: what a program that was asked to stop exits with


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a program ended, in words and in facts."""

    message: str
    facts: dict[str, Fact]
    at_once: bool = False  # without what programs do at their end


def judge(code: int, asked: Collection[int], life: Life | None, *, oom: bool) -> Ending | None:
    """Say what is wrong with an end, or None: it was a good one, asked for, or told by the program itself.

    *code* is the exit status, or the negative number of the signal; *asked* are the signals that were sent.
    """
    if code == 0 or _was_asked(code, asked):
        return None
    if code > 0:
        if life is not None and life.told:
            return None
        at_once = life is not None and not life.said_goodbye
        how = " at once, as by os._exit" if at_once else ""
        message = f"the program ended{how} with status {code}"
        return Ending(message=message, facts={"exit_code": code}, at_once=at_once)
    name = _name(-code)
    if oom and name == "SIGKILL":
        return Ending(message="the kernel killed the program: memory ran out", facts={"signal": name})
    crash = f": {life.crash}" if life is not None and life.crash else ""
    return Ending(message=f"the program was ended by {name}{crash}", facts={"signal": name})


def tell(code: int, asked: Collection[int], command: list[str], record: str, *, oom: bool) -> None:
    """Tell the remediator of a program's end and of what it could not tell itself, or leave it in the spool.

    Waits at most 2 s.
    """
    sys.argv = [child.name_of(command[0], command[1])]
    monitor = ErrorMonitor(without=HOOKS)  # there is nothing to watch here
    life = _left(monitor, record) if record else None
    ending = judge(code, asked, life, oom=oom)
    left = life is not None and life.left_errors
    if ending is None and not left:
        return
    with monitor:
        if left:
            monitor.send_left(monitor.settings.exit_timeout)
        if ending is not None:
            context = {**_context(command, life), **({"at_once": True} if ending.at_once else {})}
            monitor.noted(Kind.EXIT, ending.message, facts=ending.facts, context=context)


def _left(monitor: ErrorMonitor, record: str) -> Life | None:
    try:
        return crashes.take(record)
    except OSError as error:  # the end is told without what the program left
        monitor.broke("crashes", error)
        return None


def _context(command: list[str], life: Life | None) -> dict[str, object]:
    context: dict[str, object] = {"command": command[1:]}
    if life is not None:
        context["pid"] = life.pid
        context["started"] = life.started
        context["crash"] = life.dump
        context["left_at"] = next((note[5:] for note in life.notes if note.startswith("exit ")), "")
    return {key: value for key, value in context.items() if value}


def _was_asked(code: int, asked: Collection[int]) -> bool:
    number = -code if code < 0 else code - _ASKED
    if code < 0 and _name(number) in _REQUESTS:
        return True
    return number in asked and _name(number) in _STOPS


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
