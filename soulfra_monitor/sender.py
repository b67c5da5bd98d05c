"""Posts to the remediator: one connection that is kept, one request at a time, on the worker."""

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from soulfra_monitor.loading import pythons

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

GZIP_FROM = 1024
"""Bytes from which a body is worth packing."""

ANSWER_LIMIT = 65_536
RETRY_AFTER_LIMIT = 300.0
BACKOFF_FIRST = 0.5
BACKOFF_LIMIT = 30.0
BACKOFF_LONG = 10.0
"""Times as long a pause, for what people have to mend."""

_BOTH_WAYS = 2  # socket.SHUT_RDWR

REFUSED = frozenset({400, 413, 415, 422})
"""What is said of the body: it is the same the next time. All else is said of the way to it."""


class NoAnswerError(Exception):
    """The remediator was not reached, or what answered was not the remediator."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the remediator said."""

    status: int
    retry_after: float | None = None  # seconds

    @property
    def is_taken(self) -> bool:
        """Whether what was posted is with the remediator now."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP

    @property
    def is_refused(self) -> bool:
        """Whether it will never be taken, however often it is posted."""
        return self.status in REFUSED


class Backoff:
    """Doubles from half a second to 30; the pause is a random part of it, lest many come at once.

    A *long* pause is ten times that: what people have to mend takes its time.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311 - no secret
        self._next = BACKOFF_FIRST

    def pause(self, *, long: bool = False) -> float:
        """Return the seconds to wait after one more failure."""
        pause = self._next * self._chance.uniform(0.5, 1.0)
        self._next = min(self._next * 2, BACKOFF_LIMIT)
        return pause * BACKOFF_LONG if long else pause

    def reset(self) -> None:
        """Forget failures: it was reached."""
        self._next = BACKOFF_FIRST


class Sender:
    """The connection. Used by one thread at a time; ``abort`` by any."""

    def __init__(self, url: str, token: str, timeout: float, name: str) -> None:
        self._parts = urlsplit(url)
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": name}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: HTTPConnection | None = None
        self._client: Any = None

    def post(self, path: str, body: bytes, *, packed: bool = False) -> Answer:
        """Post *body* (gzip when *packed*). Raises NoAnswerError.

        A kept connection that the other end has closed meanwhile costs a second try at once: what we post
        may be posted twice.
        """
        kept = self._connection is not None
        try:
            return self._post(path, body, packed=packed)
        except NoAnswerError:
            self.close()
            if not kept:
                raise
        try:
            return self._post(path, body, packed=packed)
        except NoAnswerError:
            self.close()
            raise

    @property
    def is_loaded(self) -> bool:
        """Whether nothing need be imported to post."""
        return self._client is not None

    def limit(self, seconds: float) -> None:
        """Wait at most that long from now on, if that is less than was said."""
        self._timeout = min(self._timeout, max(seconds, 0.01))
        if self._connection is not None and self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeout)

    def close(self) -> None:
        """Close the connection. The other end notices nothing in a forked child: the parent's stays open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """End a request that another thread waits for: the time is over."""
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            try:
                sock.shutdown(_BOTH_WAYS)
            except OSError:  # closed meanwhile: that was the aim
                return

    def _post(self, path: str, body: bytes, *, packed: bool) -> Answer:
        try:
            http = self._http()
        except ImportError as error:  # Python is on its way out
            raise NoAnswerError(f"{type(error).__name__}: {error}") from None
        headers = {**self._headers, "Content-Encoding": "gzip"} if packed else self._headers
        try:
            connection = self._connect(http)
            connection.request("POST", self._parts.path + path, body, headers)
            response = connection.getresponse()
            response.read(ANSWER_LIMIT)
        except (OSError, http.HTTPException, ValueError) as error:
            raise NoAnswerError(f"{type(error).__name__}: {error}") from None
        if not response.isclosed() or response.will_close:
            self.close()
        if _is_somebody_else(response):
            self.close()
            raise NoAnswerError(f"status {response.status} with a page for people, not from a remediator")
        return Answer(response.status, _retry_after(response.getheader("Retry-After")))

    def _http(self) -> Any:
        """Return ``http.client``. It is kept: at the very end of a program nothing can be imported."""
        if self._client is None:
            self._client = pythons("http.client")  # heavy, and only needed here
        return self._client

    def _connect(self, http: Any) -> "HTTPConnection":
        if self._connection is None:
            kind: Any = {"https": http.HTTPSConnection}.get(self._parts.scheme, http.HTTPConnection)
            self._connection = kind(self._parts.hostname, self._parts.port, timeout=self._timeout)
        return self._connection


def _is_somebody_else(response: "HTTPResponse") -> bool:
    """Whether a redirect, or a success in HTML, came from a portal or a proxy that knows nothing of us."""
    if 300 <= response.status < 400:  # noqa: PLR2004 - HTTP
        return True
    kind = response.getheader("Content-Type") or ""
    return response.status < 300 and kind.lower().startswith("text/html")  # noqa: PLR2004 - HTTP


def _retry_after(text: str | None) -> float | None:
    """Read seconds or a date; what is neither counts as absent."""
    if not text:
        return None
    if text.isascii() and text.strip().isdigit():
        return min(float(text), RETRY_AFTER_LIMIT)
    try:
        pause: float = pythons("email.utils").parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, ImportError):
        return None
    return min(max(pause, 0.0), RETRY_AFTER_LIMIT)
