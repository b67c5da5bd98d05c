"""What the operating system allows this process."""

import ctypes
import os
import resource

OWN_FILES = 100  # listening sockets, scrapes, logs, the loop's own
FILES_PER_PROBE = 3  # its connection, the look at a certificate that does not verify, and one in closing
ENOUGH_FILES = 65_536  # commands inherit the limit, and some walk through all files that they might have


STANDARD_FILES = 3


def hold_standard_files() -> None:
    """Open those of standard input, output and error that this process was not given.

    A connection would get their numbers else, and libuv ends the process that closes one of them.
    """
    handle = os.open(os.devnull, os.O_RDWR)
    while handle < STANDARD_FILES:  # the lowest number that is free
        handle = os.open(os.devnull, os.O_RDWR)
    os.close(handle)


def raise_open_files() -> int:
    """Allow this process as many open files as the system lets it, but no absurd number; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def concurrency_for(wanted: int) -> int:
    """Return how many of *wanted* probes at once the open files suffice for; at least one."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (files - OWN_FILES) // FILES_PER_PROBE))


def return_memory() -> None:
    """Give back to the system what start-up has freed and the C library still keeps, about a megabyte."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; others give it back by themselves
    if trim is not None:
        trim(0)
