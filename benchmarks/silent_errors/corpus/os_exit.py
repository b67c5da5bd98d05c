"""The program ends at once, with a status that means failure and no word. With the argument ``clean`` the same program without its fault."""

import os

from stopwatch import CLEAN, mark

mark()
if not CLEAN:
    os._exit(4)
