"""A callback of the event loop raises. With the argument ``clean`` the same program without its fault."""

import asyncio

from stopwatch import CLEAN, linger_async, mark


def work(price):
    mark()
    return 10 / price


async def main():
    asyncio.get_running_loop().call_soon(work, 2 if CLEAN else 0)
    await linger_async()


asyncio.run(main())
