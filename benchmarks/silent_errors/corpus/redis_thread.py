"""Redis is away, and a thread dies of it. With the argument ``clean`` the same program without its fault."""

import os
import threading

import redis
from stopwatch import CLEAN, linger, mark

port = os.environ["PORT_REDIS"] if CLEAN else os.environ["PORT_NOBODY"]


def refresh():
    try:
        redis.Redis(port=int(port), socket_timeout=1).set("price", 1)
    finally:
        mark()


threading.Thread(target=refresh).start()
linger()
