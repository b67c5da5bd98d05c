"""Answers ``/metrics``."""

from http import HTTPStatus

from aiohttp import web

from exporter.counters import Counters
from exporter.negotiation import negotiate
from exporter.snapshots import Snapshots
from exporter.state import WorldState
from exporter.streaming import stream

AT_ONCE = 8  # scrapes; more are told to come again


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
            kind = negotiate(request.headers.get("Accept", ""))
            pieces = self._snapshots.pieces(await self._snapshots.take(), openmetrics=kind.openmetrics)
            return await stream(request, pieces, kind.content_type)
        finally:
            self._running -= 1
