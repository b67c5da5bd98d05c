"""Starts threads of ours in which no signal for the process arrives: those are for the program's threads.

A program may block a signal in all threads of its own to wait for it; and one that reaches a thread that has
just begun finds no Python there yet. Signals that a thread brings on itself stay as they are.
"""

import _thread
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

UNWINDER = "libgcc_s.so.1"
"""What glibc loads when Python, on its way out, ends a thread that still runs."""

_NOW = 2  # RTLD_NOW
_OF_A_FAULT = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")


def prepare() -> None:
    """Load what the end of a thread needs, while there are handles to do so: glibc ends the process else."""
    with suppress(ImportError, AttributeError, OSError):  # not glibc, not Linux, or built without it
        import _ctypes  # noqa: PLC0415 - the small half of ctypes, and not everywhere

        _ctypes.dlopen(UNWINDER, _NOW)


def start(run: Callable[..., None], *arguments: object) -> None:
    """Start a thread, without waiting for it. Raises RuntimeError where none can be had."""
    if not hasattr(signal, "pthread_sigmask"):
        _thread.start_new_thread(run, arguments)
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _blocked())
        _thread.start_new_thread(run, arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unname() -> None:
    """Take out what ``threading`` has made of this thread if anything, as logging does, has asked it for one.

    Who counts the program's threads, or lists them, is to find none of ours.
    """
    active = threading._active  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way
    ident = _thread.get_ident()
    if isinstance(active.get(ident), threading._DummyThread):  # noqa: SLF001 - likewise
        active.pop(ident, None)


def _blocked() -> set[signal.Signals]:
    faults = {getattr(signal, name) for name in _OF_A_FAULT if hasattr(signal, name)}
    return {number for number in signal.valid_signals() if number not in faults}
