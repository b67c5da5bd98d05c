"""Starts threads of ours in which no signal for the process arrives: those are for the program's threads.

A program may block a signal in all threads of its own to wait for it; and one that reaches a thread that has
just begun finds no Python there yet. Signals that a thread brings on itself stay as they are.
"""

import _thread
import signal
import threading
from collections.abc import Callable

_OF_A_FAULT = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")


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
