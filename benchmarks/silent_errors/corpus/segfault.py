"""The interpreter itself crashes. With the argument ``clean`` the same program without its fault."""

import ctypes

from stopwatch import CLEAN, mark

mark()
if not CLEAN:
    ctypes.string_at(0)
