"""An asyncio task fails; it is kept, and never asked. With the argument ``clean`` the same program without its fault."""

import asyncio

from stopwatch import CLEAN, linger_async, mark

TASKS = []


async def work(price):
    await asyncio.sleep(0.01)
    mark()
    return 10 / price


async def main():
    TASKS.append(asyncio.create_task(work(2 if CLEAN else 0)))
    await linger_async()


asyncio.run(main())
