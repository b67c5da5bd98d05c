"""Two threads wait for each other for ever. With the argument ``clean`` the same program without its fault."""

import threading
import time

from stopwatch import CLEAN, linger, mark

first, second = threading.Lock(), threading.Lock()
both = threading.Barrier(2)


def transfer(mine, other):
    with mine:
        both.wait()
        if CLEAN:
            return
        with other:
            time.sleep(0)


threads = [
    threading.Thread(target=transfer, args=pair, daemon=True) for pair in ((first, second), (second, first))
]
for thread in threads:
    thread.start()
mark()
linger(12 if not CLEAN else None)
