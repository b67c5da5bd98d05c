"""Nobody listens at a plain socket, and the function says no. With the argument ``clean`` the same program without its fault."""

import os
import socket

from stopwatch import CLEAN, linger, mark

port = int(os.environ["PORT_FINE"] if CLEAN else os.environ["PORT_NOBODY"])


def reach():
    try:
        with socket.create_connection(("localhost", port), timeout=2):
            return True
    except OSError:
        return False


mark()
reach()
linger()
