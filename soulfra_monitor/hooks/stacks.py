"""What frames hold."""

from types import FrameType
from typing import Any

ITEMS_LIMIT = 10_000
"""Items of a container that are looked through; a larger one counts as not holding anything."""


def holds(frame: FrameType, wanted: object) -> bool:
    """Whether a local variable of *frame* is *wanted*, or a plain container with it. By identity."""
    return any(value is wanted or _has(value, wanted) for value in list(frame.f_locals.values()))


def _has(container: Any, wanted: object) -> bool:
    if type(container) not in (list, tuple, set, dict) or len(container) > ITEMS_LIMIT:
        return False
    items = list(container)  # at once, as another thread may change it
    if type(container) is dict:
        items += list(container.values())
    return any(item is wanted for item in items)
