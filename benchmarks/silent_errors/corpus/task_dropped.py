"""An asyncio task fails, and nobody keeps it. With the argument ``clean`` the same program without its fault."""

import asyncio

from stopwatch import CLEAN, linger_async, mark


async def work(price):
    await asyncio.sleep(0.01)
    mark()
    return 10 / price


async def main():
    asyncio.get_running_loop().create_task(work(2 if CLEAN else 0))
    await linger_async()


asyncio.run(main())
