"""Answers ``/metrics``: in pieces, so that neither memory nor the loop pays for thousands of targets."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus

from aiohttp import web

from exporter.counters import Counters
from exporter.fields import is_loopback
from exporter.negotiation import negotiate
from exporter.snapshots import Pace, Snapshots
from exporter.state import WorldState

AT_ONCE = 8  # scrapes; more are told to come again
LIMIT = 30.0  # seconds after which a scraper that does not read is given up
SENT = 65536  # characters that go out together
_GZIP = 31  # zlib's way to say gzip


class Scrapes:
    """The handler of ``/metrics`` for one exporter."""

    def __init__(self, world: WorldState, counters: Counters) -> None:
        self._snapshots = Snapshots(world, counters)
        self._running = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one scrape."""
        if self._running >= AT_ONCE:
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="too many scrapes at once\n")
        self._running += 1
        try:
            return await self._answer(request)
        finally:
            self._running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind = negotiate(request.headers.get("Accept", ""))
        taken = await self._snapshots.take()
        response = web.StreamResponse(headers={"Content-Type": kind.content_type})
        zipped = _wants_gzip(request)
        if zipped:
            response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept, Accept-Encoding"
        try:
            async with asyncio.timeout(LIMIT):
                await response.prepare(request)
                pieces = _encoded(self._snapshots.pieces(taken, openmetrics=kind.openmetrics))
                async for data in _zipped(pieces) if zipped else pieces:
                    await response.write(data)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the scraper has gone; there is nobody to tell
        return response


def _wants_gzip(request: web.Request) -> bool:
    """Whether to compress: on the way to this machine itself bytes cost less than compressing them."""
    accepted = "gzip" in request.headers.get("Accept-Encoding", "")
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
