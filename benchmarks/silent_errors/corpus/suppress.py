"""``contextlib.suppress`` hides more than was meant. With the argument ``clean`` the same program without its fault."""

from contextlib import suppress

from stopwatch import CLEAN, linger, mark

with suppress(Exception):
    mark()
    print(10 / (2 if CLEAN else 0))
linger()
