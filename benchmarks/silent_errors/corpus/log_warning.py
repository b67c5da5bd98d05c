"""The handler writes a warning without the exception. With the argument ``clean`` the same program without its fault."""

import logging

from stopwatch import CLEAN, linger, mark

try:
    mark()
    print(10 / (2 if CLEAN else 0))
except Exception as error:
    logging.warning("the order was not saved: %s", error)
linger()
