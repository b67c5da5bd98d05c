"""Sends long answers in pieces, so that neither memory nor the loop pays for thousands of targets."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from time import monotonic

from aiohttp import web

from exporter.fields import is_loopback
from exporter.negotiation import takes

HOLD = 0.001  # seconds that work may hold the loop before everything else has its turn
LIMIT = 30.0  # seconds after which a peer that does not read is given up
SENT = 65536  # characters that go out together; larger buffers cost more to get than to fill
_GZIP = 31  # zlib's way to say gzip


class Pace:
    """Gives the loop its turn whenever this work has held it for long enough."""

    def __init__(self) -> None:
        self._until = monotonic() + HOLD

    async def keep(self) -> None:
        """Let everything else run, if it is time."""
        if monotonic() > self._until:
            await asyncio.sleep(0)
            self._until = monotonic() + HOLD


async def stream(request: web.Request, pieces: Iterator[str], content_type: str) -> web.StreamResponse:
    """Answer *request* with *pieces*, each of which must be quickly made."""
    response = web.StreamResponse(headers={"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"})
    if request.method == "HEAD":
        return web.Response(headers=response.headers)
    zipped = _wants_gzip(request)
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    try:
        async with asyncio.timeout(LIMIT):
            await response.prepare(request)
            encoded = _encoded(pieces)
            async for data in _zipped(encoded) if zipped else encoded:
                await response.write(data)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        response.force_close()  # the peer has gone; there is nobody to tell
    return response


def _wants_gzip(request: web.Request) -> bool:
    """Whether to compress: on the way to this machine itself bytes cost less than compressing them."""
    accepted = takes(request.headers.get("Accept-Encoding", ""), "gzip")
    return accepted and request.remote is not None and not is_loopback(request.remote)


async def _encoded(pieces: Iterator[str]) -> AsyncIterator[bytes]:
    pace, held, size = Pace(), list[str](), 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= SENT:
            yield "".join(held).encode()
            held, size = [], 0
        await pace.keep()
    yield "".join(held).encode()


async def _zipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    compressor = zlib.compressobj(level=1, wbits=_GZIP)
    async for piece in pieces:
        data = await asyncio.to_thread(compressor.compress, piece)
        if data:
            yield data
    yield compressor.flush()
