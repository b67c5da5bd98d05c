"""Asks a Docker engine, which speaks HTTP and JSON over a socket file or TCP.

Not the docker package: it blocks, so every question would need a thread, and brings 12 MB.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import httptools

from exporter.kinds.container import ContainerProbe
from exporter.probes.context import Context, Progress
from exporter.probes.dial import dial_stream, dial_unix, secured

ANSWER_LIMIT = 512 * 1024
_CHUNK = 16 * 1024


class EngineError(Exception):
    """The engine did not answer the question."""


class NotFoundError(EngineError):
    """The engine has no such thing."""


@dataclass(slots=True)
class _Reply:
    """What httptools's parser tells of an answer."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass(slots=True)
class Engine:
    """An open connection to an engine, for one question after the other."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    clock: int = 0  # the engine's, epoch seconds, of its last answer

    async def ask(self, path: str, **query: str) -> Any:
        """Return the answer to GET *path*, the JSON lines of a stream as a list.

        Raises NotFoundError, EngineError or OSError.
        """
        given = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        self.writer.write(f"GET {path}?{given} HTTP/1.1\r\nHost: engine\r\n\r\n".encode())
        reply = _Reply()
        parser = httptools.HttpResponseParser(reply)
        received = 0
        while not reply.complete:
            chunk = await self.reader.read(_CHUNK)
            received += len(chunk)
            if not chunk or received > ANSWER_LIMIT:
                raise EngineError("its answer " + ("is too large" if chunk else "has no end"))
            try:
                parser.feed_data(chunk)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                raise EngineError("its answer is not HTTP") from error
        self._read_clock(reply)
        return _value(parser.get_status_code(), bytes(reply.body))

    def _read_clock(self, reply: _Reply) -> None:
        try:
            date = parsedate_to_datetime(reply.headers.get(b"date", b"")[:64].decode("latin-1"))
            self.clock = int(date.timestamp())
        except (ValueError, OverflowError):
            return


def _value(status: int, body: bytes) -> Any:
    if status == HTTPStatus.NOT_FOUND:
        raise NotFoundError("it has no such container")
    if status != HTTPStatus.OK:
        raise EngineError(f"it answered with status {status}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _lines(body)


def _lines(body: bytes) -> list[Any]:
    try:
        return [json.loads(line) for line in body.splitlines() if line]
    except (ValueError, RecursionError) as error:
        raise EngineError("its answer is not JSON") from error


@asynccontextmanager
async def engine_of(config: ContainerProbe, context: Context, progress: Progress) -> AsyncIterator[Engine]:
    """Open a connection to the engine of *config* and close it in the end. Raises OSError."""
    place = config.engine_address()
    if place is None:
        path = urlsplit(config.engine).path
        progress.note("asking the engine at %s", path)
        reader, writer = await dial_unix(path, progress=progress)
    else:
        secure = None
        if config.tls is not None:
            secure = await secured(config.tls, place[0], context)
        reader, writer = await dial_stream(*place, context=context, progress=progress, secure=secure)
    try:
        yield Engine(reader=reader, writer=writer)
    finally:
        writer.transport.abort()


def filters(**wanted: list[str]) -> str:
    """Write filters the way the engine takes them."""
    return json.dumps(wanted)


def mapping(value: object) -> Mapping[str, Any]:
    """Return *value*, or nothing when it is no object."""
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """Return *value*, or None when it is no number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
