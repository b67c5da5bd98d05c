"""A handler at the program's end raises. With the argument ``clean`` the same program without its fault."""

import atexit

from stopwatch import CLEAN, mark


@atexit.register
def flush():
    mark()
    print(10 / (2 if CLEAN else 0))
