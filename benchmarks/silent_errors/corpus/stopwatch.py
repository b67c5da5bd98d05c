"""The benchmark's stopwatch. The programs of the corpus know nothing else of anything that watches them."""

import asyncio
import os
import sys
import time

CLEAN = "clean" in sys.argv[1:]


def mark():
    """Note the moment of the fault, once."""
    path = os.environ.get("CORPUS_MARK")
    if path and not os.path.exists(path):
        with open(path, "w") as file:
            file.write(repr(time.time()))


def linger(seconds=None):
    """Go on as a server would."""
    time.sleep(float(os.environ.get("CORPUS_LINGER", "1")) if seconds is None else seconds)


async def linger_async():
    """Go on as a server would, with a loop that runs."""
    await asyncio.sleep(float(os.environ.get("CORPUS_LINGER", "1")))
