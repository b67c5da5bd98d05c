"""A thread calls sys.exit, which ends the thread only. With the argument ``clean`` the same program without its fault."""

import sys
import threading

from stopwatch import CLEAN, linger, mark


def work():
    mark()
    if not CLEAN:
        sys.exit(1)


threading.Thread(target=work).start()
linger()
