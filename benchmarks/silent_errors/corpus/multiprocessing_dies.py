"""A process of multiprocessing dies, and nobody looks. With the argument ``clean`` the same program without its fault."""

import multiprocessing
import os

from stopwatch import CLEAN, linger, mark


def work():
    os._exit(0 if CLEAN else 9)


if __name__ == "__main__":
    child = multiprocessing.Process(target=work)
    child.start()
    child.join()
    mark()
    linger()
