"""The handler prints the traceback, and that is all. With the argument ``clean`` the same program without its fault."""

import traceback

from stopwatch import CLEAN, linger, mark

try:
    mark()
    print(10 / (2 if CLEAN else 0))
except Exception:
    traceback.print_exc()
linger()
