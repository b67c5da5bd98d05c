"""A connection is forgotten instead of closed. With the argument ``clean`` the same program without its fault."""

import os
import socket

from stopwatch import CLEAN, linger, mark


def ask():
    peer = socket.create_connection(("127.0.0.1", int(os.environ["PORT_FINE"])))
    if CLEAN:
        peer.close()


ask()
mark()
linger()
