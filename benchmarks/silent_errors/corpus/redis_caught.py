"""Redis is away, and the program does without. With the argument ``clean`` the same program without its fault."""

import os

import redis
from stopwatch import CLEAN, linger, mark

port = os.environ["PORT_REDIS"] if CLEAN else os.environ["PORT_NOBODY"]
cache = redis.Redis(port=int(port), socket_timeout=1)
try:
    cache.set("price", 1)
except redis.RedisError:
    mark()
    price = None
linger()
