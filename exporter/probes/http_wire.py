"""One request and its answer over one connection: HTTP/1.1 by httptools, everything capped."""

import asyncio
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from exporter.observation import Reason
from exporter.probes.context import Progress

HEAD_LIMIT = 64 * 1024  # bytes
HEADERS_LIMIT = 200
INTERIM_LIMIT = 20
"""Answers of 1xx before the one that counts."""
FRAMING_FACTOR = 8
"""Bytes on the wire for a byte of the body: six with chunks of one byte, any number with hostile ones."""
_SWITCHING = 101
_BODILESS = (204, 304)


class AnswerError(Exception):
    """The peer's answer, or the lack of one, ends the probe."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How much of an answer is wanted."""

    body_for: Container[int]  # statuses; of others the head is enough
    keep_body: bool  # or only count its bytes
    body_limit: int
    phases: bool = True  # whether its times are phases of their own


@dataclass(slots=True)
class Answer:
    """What came back; names of headers are in small letters."""

    status: int = 0
    version: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_length: int | None = None
    body_bytes: int = 0  # as they came, packed or not
    unpacked_bytes: int | None = None  # where a packed body was asked for
    parts: list[bytes] = field(default_factory=list)  # what is kept of the body

    @property
    def body(self) -> bytes:
        """The body that is kept. Put together when it is first asked for: of a large one in a thread."""
        if len(self.parts) > 1:
            self.parts = [b"".join(self.parts)]
        return self.parts[0] if self.parts else b""

    @property
    def kept_bytes(self) -> int:
        """How large the body is that is kept."""
        return sum(map(len, self.parts))

    def values(self, name: bytes) -> list[str]:
        """Return every value of a header, *name* in small letters."""
        return [value.decode("utf-8", "replace") for key, value in self.headers if key == name]

    def value(self, name: bytes) -> str:
        """Return the first value of a header, or nothing."""
        for key, value in self.headers:
            if key == name:
                return value.decode("utf-8", "replace")
        return ""


class Exchange(asyncio.Protocol):
    """Sends a request as soon as it is connected; ``answer`` is done when as much has come as is wanted.

    It raises AnswerError, or OSError when the connection is lost.
    """

    def __init__(self, request: bytes, wish: Wish, progress: Progress, *, headless: bool = False) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._request = request
        self._wish = wish
        self._progress = progress
        self._bodiless = headless
        self._parser = HttpResponseParser(self)
        self._got = Answer()
        self._received = 0
        self._head_bytes = 0
        self._interim = 0
        self._head_done = False
        self._until_close = False
        self._over = False

    @property
    def head(self) -> Answer | None:
        """What has come so far, once the head is whole."""
        return self._got if self._head_done else None

    def connection_made(self, transport: Any) -> None:
        """Send the request."""
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless it is more than is wanted."""
        if self._over:
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail(Reason.PROTOCOL, "the answer is not valid HTTP")
            return
        if not self._head_done and self._received > HEAD_LIMIT:
            self._fail(Reason.TOO_LARGE, f"the head of the answer is larger than {HEAD_LIMIT} bytes")
        elif self._received > HEAD_LIMIT + FRAMING_FACTOR * self._wish.body_limit:
            self._fail(Reason.TOO_LARGE, "the answer is little body in many bytes")

    def connection_lost(self, error: Exception | None) -> None:
        """End the answer: rightly where its length is told by the end of the connection."""
        if self._over:
            return
        if error is not None:
            self._end(error if isinstance(error, OSError) else ConnectionResetError())
        elif self._head_done and self._until_close:
            self.on_message_complete()
        elif self._head_done:
            self._fail(Reason.PROTOCOL, "the connection was closed before the whole body had come")
        elif self._received:
            self._fail(Reason.PROTOCOL, "the connection was closed in the head of the answer")
        else:
            self._fail(Reason.RESET, "the connection was closed without an answer")

    def on_message_begin(self) -> None:
        """Begin an answer: the one that counts, or one before it."""
        if not self._head_done:  # bytes behind the body may look like one more
            self._got.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, within limits."""
        headers = self._got.headers
        if self._over:
            return
        self._head_bytes += len(name) + len(value)
        if not self._head_done:  # what follows the body is no part of the head
            headers.append((name.lower(), value))
        if self._head_bytes > HEAD_LIMIT or len(headers) > HEADERS_LIMIT:
            told = f"more than {HEADERS_LIMIT} headers or {HEAD_LIMIT} bytes of them"
            self._fail(Reason.TOO_LARGE, f"the answer has {told}")

    def on_headers_complete(self) -> None:
        """Decide whether the body is wanted."""
        if self._over:
            return
        answer = self._got
        answer.status = self._parser.get_status_code()
        if answer.status < 200:  # noqa: PLR2004 - interim answers are those of 1xx
            self._count_interim(answer.status)
            return
        answer.version = self._parser.get_http_version()
        self._head_done = True
        if self._wish.phases:
            self._progress.reach("processing")
        self._look_at_length(answer)
        if self._over:
            return
        if self._bodiless or answer.status not in self._wish.body_for:
            self.on_message_complete()

    def on_body(self, part: bytes) -> None:
        """Count the body, and keep it if it is wanted."""
        if self._over:
            return
        self._got.body_bytes += len(part)
        if self._got.body_bytes > self._wish.body_limit:
            self._fail_large()
        elif self._wish.keep_body:
            self._got.parts.append(part)

    def on_message_complete(self) -> None:
        """Hand the answer over, unless it was an interim one."""
        if self._over or not self._head_done:
            return
        if self._wish.phases:
            self._progress.reach("transfer")
        self._over = True
        if not self.answer.done():
            self.answer.set_result(self._got)

    def _look_at_length(self, answer: Answer) -> None:
        chunked = False
        for name, value in answer.headers:
            if name == b"content-length" and value.isdigit():
                answer.content_length = int(value[:20])
            elif name == b"transfer-encoding":
                chunked = value.lower().endswith(b"chunked")
        if answer.content_length is None and answer.status in _BODILESS:
            answer.content_length = 0
        self._until_close = answer.content_length is None and not chunked
        wanted = not self._bodiless and answer.status in self._wish.body_for
        if wanted and (answer.content_length or 0) > self._wish.body_limit:
            self._fail_large()

    def _count_interim(self, status: int) -> None:
        self._interim += 1
        if status == _SWITCHING:
            self._fail(Reason.PROTOCOL, "the answer switches to another protocol")
        elif self._interim > INTERIM_LIMIT:
            self._fail(Reason.PROTOCOL, f"more than {INTERIM_LIMIT} interim answers")

    def _fail_large(self) -> None:
        self._fail(Reason.TOO_LARGE, f"the body is larger than {self._wish.body_limit} bytes")

    def _fail(self, reason: Reason, detail: str) -> None:
        self._end(AnswerError(reason, detail))

    def _end(self, error: Exception) -> None:
        self._over = True
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # nobody may be waiting any more, and that is no news
