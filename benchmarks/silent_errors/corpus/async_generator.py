"""The end of an async generator that nobody finished raises. With the argument ``clean`` the same program without its fault."""

import asyncio
import gc

from stopwatch import CLEAN, linger_async, mark


async def rows():
    try:
        yield 1
        yield 2
    finally:
        mark()
        print(10 / (2 if CLEAN else 0))


async def first():
    async for row in rows():
        return row


async def main():
    await first()
    gc.collect()
    await linger_async()


asyncio.run(main())
