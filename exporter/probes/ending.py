"""Learns of the end of a process from the kernel, at once."""

import asyncio
import os
from collections.abc import Callable

from exporter.observation import ProcessFacts
from exporter.probes.procfs import read_stat


class ProcessEnd:
    """Calls *on_end* once when the process of *facts* has ended, unless closed before.

    Raises OSError when the kernel gives no handle for a process that is there.
    """

    def __init__(self, facts: ProcessFacts, on_end: Callable[[], None]) -> None:
        self.facts = facts
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._handle: int | None = None
        try:
            self._handle = os.pidfd_open(facts.pid)
        except ProcessLookupError:
            self._loop.call_soon(self._ended)
            return
        self._loop.add_reader(self._handle, self._ended)
        try:
            same = self._is_same()
        except OSError:
            self._release()
            raise
        # The number may have gone to another process between the look and the handle.
        if not same:
            self._loop.call_soon(self._ended)

    def is_of(self, facts: ProcessFacts) -> bool:
        """Whether the process of *facts* is the one that is watched."""
        return (facts.pid, facts.start_ticks) == (self.facts.pid, self.facts.start_ticks)

    def close(self) -> None:
        """Stop watching."""
        self._on_end = _nothing
        self._release()

    def _is_same(self) -> bool:
        stat = read_stat(self.facts.pid)
        return stat is not None and stat.start_ticks == self.facts.start_ticks

    def _ended(self) -> None:
        self._release()
        on_end, self._on_end = self._on_end, _nothing
        on_end()

    def _release(self) -> None:
        if self._handle is not None:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = None


def _nothing() -> None:
    """Stand in for the callback once it has been called or is no longer wanted."""
