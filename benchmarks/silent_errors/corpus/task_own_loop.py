"""A task fails in a loop that was made before anything else ran. With the argument ``clean`` the same program without its fault."""

import asyncio

from stopwatch import CLEAN, linger_async, mark

LOOP = asyncio.new_event_loop()


async def work(price):
    await asyncio.sleep(0.01)
    mark()
    return 10 / price


LOOP.create_task(work(2 if CLEAN else 0))
LOOP.run_until_complete(linger_async())
LOOP.close()
