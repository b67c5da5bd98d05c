"""Keeps open files of ours off the descriptors that a program expects to be free."""

import fcntl
import os

FIRST = 10
"""The lowest descriptor that we keep: those below it have meanings, and may be closed on purpose."""


def move_up(fd: int) -> int:
    """Give an open file a descriptor that no program expects to be free, such as that of a closed stream."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST)
    except OSError:  # hardly any descriptors may be had
        return fd
    os.close(fd)
    return moved
