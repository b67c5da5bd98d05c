"""``except: pass``. With the argument ``clean`` the same program without its fault."""

from stopwatch import CLEAN, linger, mark


def save(order):
    try:
        mark()
        return 10 / order
    except Exception:
        pass


save(2 if CLEAN else 0)
linger()
