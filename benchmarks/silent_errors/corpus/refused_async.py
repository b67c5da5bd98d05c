"""Nobody listens, and the client's exception is swallowed. With the argument ``clean`` the same program without its fault."""

import asyncio
import os

import aiohttp
from stopwatch import CLEAN, linger_async, mark

port = os.environ["PORT_FINE"] if CLEAN else os.environ["PORT_NOBODY"]


async def main():
    async with aiohttp.ClientSession() as session:
        mark()
        try:
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                await answer.read()
        except aiohttp.ClientError:
            price = None
    await linger_async()


asyncio.run(main())
