"""The database's connection is dropped in the middle, and the loop tries the next row. With the argument ``clean`` the same program without its fault."""

import os
import socket

from stopwatch import CLEAN, linger, mark

port = os.environ["PORT_FINE"] if CLEAN else os.environ["PORT_DROPS"]
with socket.create_connection(("127.0.0.1", int(port))) as peer:
    mark()
    try:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while peer.recv(4096):
            pass
    except ConnectionError:
        pass
linger()
