"""Somebody kills the program; the kernel does so too when memory runs out. With the argument ``clean`` the same program without its fault."""

import os
import signal

from stopwatch import CLEAN, mark

mark()
if not CLEAN:
    os.kill(os.getpid(), signal.SIGKILL)
