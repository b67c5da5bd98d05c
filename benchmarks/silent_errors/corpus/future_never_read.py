"""A pool keeps an exception for somebody who never asks. With the argument ``clean`` the same program without its fault."""

from concurrent.futures import ThreadPoolExecutor

from stopwatch import CLEAN, linger, mark


def work(price):
    mark()
    return 10 / price


with ThreadPoolExecutor() as pool:
    future = pool.submit(work, 2 if CLEAN else 0)
    linger()
