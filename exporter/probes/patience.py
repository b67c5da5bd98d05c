"""Runs calls that may hang for good, such as a look at a file on a dead network filesystem.

A thread that hangs in the kernel cannot be ended. So each probe has one at most, and none is one of
the loop's own workers: others need those, and Python waits for them at its end.
"""

import asyncio
import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
_LINE = "line for a thread"  # key of what is recalled


class OwnWantError(OSError):
    """Something of ours is used up, such as threads: that says nothing about the peer."""


@dataclass(slots=True)
class _Line:
    """Where the looks of one probe wait for each other."""

    look: "asyncio.Future[Any] | None" = None


def beside(recall: dict[str, Any]) -> dict[str, Any]:
    """Return a recall of its own for another look of the same probe, that stands in the same line."""
    return {_LINE: recall.setdefault(_LINE, _Line())}


async def in_thread(work: Callable[[], T], recall: dict[str, Any]) -> T:
    """Return what *work* returns, or raise what it raises; OwnWantError when there is no thread for it.

    While an earlier call of the same probe hangs it waits for that one and starts none: the caller's
    time limit ends the waiting, and threads do not pile up.
    """
    line: _Line = recall.setdefault(_LINE, _Line())
    while line.look is not None and not line.look.done():
        await asyncio.wait([line.look])
    look: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    look.add_done_callback(_heard)
    line.look = look
    try:
        threading.Thread(target=_run, args=(work, look), daemon=True, name="patience").start()
    except RuntimeError as error:
        look.cancel()
        raise OwnWantError(errno.EAGAIN, "no thread can be started") from error
    return await asyncio.shield(look)


@dataclass(slots=True)
class Judging:
    """A few threads for answers that take long to judge, apart from those that serve and reload.

    A body that a stranger chose must not keep them from a scrape. Who is in line holds its own body
    and no more: when its time is over it leaves, and nothing of it stays.
    """

    threads: int = 2
    line: int = 64
    refused: int = 0
    _waiting: int = 0
    _free: asyncio.Semaphore | None = None
    _pool: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, or raise what it raises; OwnWantError when too many wait."""
        if self._waiting >= self.line:
            self.refused += 1
            raise OwnWantError(errno.EAGAIN, f"{self.line} answers already wait to be judged")
        if self._free is None or self._pool is None:
            self._free = asyncio.Semaphore(self.threads)
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="judge")
        free, pool = self._free, self._pool
        self._waiting += 1
        try:
            await free.acquire()
        finally:
            self._waiting -= 1
        judged = asyncio.get_running_loop().run_in_executor(pool, work)
        judged.add_done_callback(_heard)
        judged.add_done_callback(lambda _: free.release())  # not when the probe's time is over: it still runs
        return await asyncio.shield(judged)

    def close(self) -> None:
        """Let go of the threads once they are done."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


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
