"""An exception ends the program. With the argument ``clean`` the same program without its fault."""

from stopwatch import CLEAN, mark


def total(prices):
    return sum(prices) / len(prices)


mark()
print(total([2, 4] if CLEAN else []))
