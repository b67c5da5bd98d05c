"""A request times out, and the program goes on with a default. With the argument ``clean`` the same program without its fault."""

import os
import urllib.request

from stopwatch import CLEAN, linger, mark

port = os.environ["PORT_FINE"] if CLEAN else os.environ["PORT_HANGS"]
try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=0.2).read()
except OSError:
    mark()
    rates = {}
linger()
