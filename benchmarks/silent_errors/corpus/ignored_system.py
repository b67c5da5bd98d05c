"""A command line fails, and nobody looks at the status that os.system gives. With the argument ``clean`` the same program without its fault."""

import os

from stopwatch import CLEAN, linger, mark

os.system("exit 0" if CLEAN else "exit 3")
mark()
linger()
