"""Whether anybody uses what a function or an await is about to give.

The compiler says so: an expression statement drops its value, and a local variable that is only ever assigned
is dropped as well. Looked at only after something has failed.
"""

from types import CodeType

_AWAITING = ("SEND", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD", "END_SEND", "CACHE", "NOP", "EXTENDED_ARG")


def thrown_away(code: CodeType, last: int, *, asked_for_none: bool = False) -> bool:
    """Whether the value of the call or the await at the offset *last* of *code* is dropped.

    With *asked_for_none* a value that is only compared with None counts as dropped too.
    """
    import dis  # noqa: PLC0415 - of no use to a program in which nothing fails

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


def _names(value: object, name: str) -> bool:
    return value == name or (isinstance(value, tuple) and name in value)
