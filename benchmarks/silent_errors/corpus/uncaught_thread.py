"""An exception ends a thread, and the program goes on. With the argument ``clean`` the same program without its fault."""

import threading

from stopwatch import CLEAN, linger, mark


def work(price):
    mark()
    return 10 / price


thread = threading.Thread(target=work, args=(2 if CLEAN else 0,))
thread.start()
thread.join()
linger()
