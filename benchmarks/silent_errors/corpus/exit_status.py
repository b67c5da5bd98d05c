"""The program ends itself with a status that means failure. With the argument ``clean`` the same program without its fault."""

import sys

from stopwatch import CLEAN, mark

mark()
sys.exit(0 if CLEAN else 3)
