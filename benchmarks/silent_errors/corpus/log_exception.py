"""The handler writes the exception to the log. With the argument ``clean`` the same program without its fault."""

import logging

from stopwatch import CLEAN, linger, mark

try:
    mark()
    print(10 / (2 if CLEAN else 0))
except Exception:
    logging.exception("the order was not saved")
linger()
