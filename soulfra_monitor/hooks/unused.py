"""Whether anybody uses what a function or an await is about to give, or what a variable holds.

The compiler says so: an expression statement drops its value, and a local variable that is only ever assigned
is dropped as well. Looked at only after something has failed.
"""

from collections.abc import Mapping
from types import CodeType
from typing import Any

from soulfra_monitor.loading import pythons

_AWAITING = ("SEND", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD", "END_SEND", "CACHE", "NOP", "EXTENDED_ARG")


def thrown_away(code: CodeType, last: int, *, asked_for_none: bool = False) -> bool:
    """Whether the value of the call or the await at the offset *last* of *code* is dropped.

    With *asked_for_none* a value that is only compared with None counts as dropped too.
    """
    dis = pythons("dis")  # of no use to a program in which nothing fails
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    after = [step for step in steps if step.offset > last and not step.opname.startswith(_AWAITING)]
    if not after:
        return False
    first = after[0]
    if first.opname == "POP_TOP":
        return True
    if asked_for_none and first.opname.endswith(("IF_NONE", "IF_NOT_NONE")):
        return True
    if first.opname.startswith("STORE_FAST") and isinstance(first.argval, str):
        return not any("LOAD" in step.opname and _names(step.argval, first.argval) for step in steps)
    return False


def read_later(code: CodeType, last: int, name: str, *, container: bool) -> bool:
    """Whether *code*, which has come to the offset *last*, will or may yet read its variable *name*.

    With *container* a ``for`` that *code* is in counts as reading it: nothing says what it goes through.
    """
    dis = pythons("dis")  # as above
    if name in code.co_cellvars:  # a function in it may read it whenever it is called
        return True
    steps = {step.offset: step for step in dis.get_instructions(code) if step.opname != "CACHE"}
    backs = [
        step.argval
        for step in steps.values()
        if "JUMP_BACKWARD" in step.opname
        and step.opname != "JUMP_BACKWARD_NO_INTERRUPT"  # an await that waits
        and step.argval <= last < step.offset
    ]
    if container and any(_is_for(steps, target) for target in backs):
        return True
    first = min([last + 1, *backs])
    return any(
        step.offset >= first and step.opname.startswith(_READING) and _names(step.argval, name)
        for step in steps.values()
    )


_READING = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "STORE_FAST_LOAD_FAST")


def _is_for(steps: Mapping[int, Any], offset: int) -> bool:
    return offset in steps and steps[offset].opname in ("FOR_ITER", "GET_ANEXT", "EXTENDED_ARG")


def _names(value: object, name: str) -> bool:
    return value == name or (isinstance(value, tuple) and name in value)
