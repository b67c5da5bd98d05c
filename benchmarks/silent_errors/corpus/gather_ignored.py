"""The exceptions among gathered results are never looked at. With the argument ``clean`` the same program without its fault."""

import asyncio

from stopwatch import CLEAN, linger_async, mark


async def work(price):
    await asyncio.sleep(0.01)
    mark()
    return 10 / price


async def main():
    await asyncio.gather(work(2), work(2 if CLEAN else 0), return_exceptions=True)
    await linger_async()


asyncio.run(main())
