"""A ``__del__`` raises. With the argument ``clean`` the same program without its fault."""

import gc

from stopwatch import CLEAN, linger, mark


class Handle:
    def __del__(self):
        mark()
        print(10 / (2 if CLEAN else 0))


handle = Handle()
del handle
gc.collect()
linger()
