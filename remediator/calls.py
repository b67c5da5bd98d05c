"""HTTP calls of the remediator: one pool, short timeouts, bounded answers, no redirects.

Addresses can be secrets, so that no message of a failure contains one.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

ANSWER_LIMIT = 8 * 1024 * 1024
_CHUNK = 65536


class CallError(Exception):
    """No usable answer. *permanent* means that asking again cannot help."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    complete: bool  # false: the body was longer than the limit and is cut

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of successes

    @property
    def refused(self) -> bool:
        """Whether asking again in the same words cannot help."""
        return 300 <= self.status < 500 and self.status not in (408, 425, 429)  # noqa: PLR2004 - status classes

    def text(self, limit: int) -> str:
        """Return the beginning of the body on one line."""
        return " ".join(self.body[: limit * 4].decode(errors="replace").split())[:limit]

    def json(self) -> Any:
        """Return the parsed body. Raises CallError when it is not whole JSON."""
        if not self.complete:
            raise CallError(f"its answer is longer than {ANSWER_LIMIT} bytes")
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise CallError(f"its answer is not JSON (status {self.status})") from error


def call(
    method: str,
    url: str,
    *,
    timeout: float,
    fields: list[tuple[str, str]] | None = None,
    json_body: Any = None,
    headers: Mapping[str, str] | None = None,
    limit: int = ANSWER_LIMIT,
) -> Answer:
    """Call an address once within *timeout* seconds, whatever the status of the answer.

    *fields* become the query. A GET over a connection that the other side had closed meanwhile is
    sent once more. Raises CallError when nobody answered.
    """
    details: dict[str, Any] = {"headers": {"User-Agent": "soulfra-remediator", **(headers or {})}}
    if fields is not None:
        details["fields"] = fields
    if json_body is not None:
        details["json"] = json_body
    deadline = time.monotonic() + timeout
    try:
        return _call_once(method, url, deadline, limit, details)
    except _ClosedError:
        if method != "GET":
            raise
    return _call_once(method, url, deadline, limit, details)


class _ClosedError(CallError):
    """The other side closed the connection without an answer."""


def _call_once(method: str, url: str, deadline: float, limit: int, details: Mapping[str, Any]) -> Answer:
    from urllib3 import Timeout  # noqa: PLC0415 - 10 MB that a process without calls does not need
    from urllib3.exceptions import HTTPError, ProtocolError  # noqa: PLC0415 - as above

    left = max(0.001, deadline - time.monotonic())
    try:
        response = _pool().request(
            method,
            url,
            timeout=Timeout(total=left),
            retries=False,
            redirect=False,
            preload_content=False,
            **details,
        )
        try:
            body, complete = _read(response, deadline, limit)
        finally:
            response.close()  # a connection whose body was read to its end is back in the pool already
    except ProtocolError as error:
        raise _ClosedError("the connection was closed before an answer came") from error
    except (HTTPError, OSError, ValueError) as error:
        raise _explain(error) from error
    return Answer(status=response.status, body=body, complete=complete)


def _read(response: "BaseHTTPResponse", deadline: float, limit: int) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    size = 0
    while part := response.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > limit:
            return b"".join(parts)[:limit], False
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts), True


def _explain(error: Exception) -> CallError:
    from urllib3 import exceptions  # noqa: PLC0415 - loaded already

    if isinstance(error, exceptions.LocationValueError | ValueError):
        return CallError("the address cannot be used", permanent=True)
    if isinstance(error, exceptions.NameResolutionError):
        return CallError("its host name cannot be resolved")
    if isinstance(error, exceptions.SSLError):
        return CallError("the TLS connection failed")
    if isinstance(error, exceptions.NewConnectionError):
        return CallError("the connection was refused or the host cannot be reached")
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return CallError("no answer in time")
    return CallError(f"the call failed: {type(error).__name__}")


@cache
def _pool() -> "PoolManager":
    from urllib3 import PoolManager  # noqa: PLC0415 - as above

    return PoolManager(num_pools=32, maxsize=8)
