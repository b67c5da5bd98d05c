"""Nobody listens at a stream of asyncio, and the function gives nothing back. With the argument ``clean`` the same program without its fault."""

import asyncio
import os

from stopwatch import CLEAN, linger_async, mark

port = int(os.environ["PORT_FINE"] if CLEAN else os.environ["PORT_NOBODY"])


async def rows():
    try:
        _, writer = await asyncio.open_connection("localhost", port)
    except OSError:
        return []
    writer.close()
    await writer.wait_closed()
    return [1]


async def main():
    mark()
    await rows()
    await linger_async()


asyncio.run(main())
