"""A coroutine is called and never awaited, so it never runs. With the argument ``clean`` the same program without its fault."""

import asyncio

from stopwatch import CLEAN, linger_async, mark


async def save(order):
    await asyncio.sleep(0)
    return order


async def main():
    mark()
    if CLEAN:
        await save(1)
    else:
        save(1)
    await linger_async()


asyncio.run(main())
