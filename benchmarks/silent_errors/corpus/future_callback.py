"""A done-callback of a future raises. With the argument ``clean`` the same program without its fault."""

from concurrent.futures import ThreadPoolExecutor

from stopwatch import CLEAN, linger, mark


def note(future):
    mark()
    print(10 / (2 if CLEAN else 0), future.result())


with ThreadPoolExecutor() as pool:
    pool.submit(int, "1").add_done_callback(note)
    linger()
