"""Runs calls that may hang for good, such as a look at a file on a dead network filesystem.

A thread that hangs in the kernel cannot be ended. So each probe has one at most, and none is one of
the loop's own workers: others need those, and Python waits for them at its end.
"""

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_LOOK = "look in a thread"  # key of what is recalled


async def in_thread(work: Callable[[], T], recall: dict[str, Any]) -> T:
    """Return what *work* returns, or raise what it raises; OSError when there is no thread for it.

    While an earlier call of the same probe hangs it waits for that one and starts none: the caller's
    time limit ends the waiting, and threads do not pile up.
    """
    while (earlier := recall.get(_LOOK)) is not None and not earlier.done():
        await asyncio.wait([earlier])
    look: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    look.add_done_callback(_heard)
    recall[_LOOK] = look
    try:
        threading.Thread(target=_run, args=(work, look), daemon=True, name="patience").start()
    except RuntimeError as error:
        look.cancel()
        raise OSError(errno.EAGAIN, "no thread can be started") from error
    return await asyncio.shield(look)


def _run(work: Callable[[], T], look: "asyncio.Future[T]") -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - the edge of the thread: it is raised where it is awaited
        _tell(look, look.set_exception, error)
    else:
        _tell(look, look.set_result, result)


def _tell(look: "asyncio.Future[Any]", settle: Callable[[Any], None], value: object) -> None:
    try:
        look.get_loop().call_soon_threadsafe(settle, value)
    except RuntimeError:  # the loop was closed meanwhile, so nobody waits any more
        return


def _heard(look: "asyncio.Future[Any]") -> None:
    """Take note of a failure that nobody waits for any more, so that asyncio does not complain."""
    if not look.cancelled():
        look.exception()
