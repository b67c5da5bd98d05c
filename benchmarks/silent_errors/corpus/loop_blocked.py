"""A call that waits holds up the whole event loop. With the argument ``clean`` the same program without its fault."""

import asyncio
import time

from stopwatch import CLEAN, linger_async, mark


async def report():
    if CLEAN:
        await asyncio.sleep(2)
    else:
        time.sleep(2)


async def main():
    mark()
    await report()
    await linger_async()


asyncio.run(main())
