"""Ask an HTTP address and hold the answer against what is expected."""

import json
import re
import ssl
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
from yarl import URL

from exporter.fields import Scalar
from exporter.kinds.http import HttpExpect, HttpProbe
from exporter.observation import HttpFacts, Outcome, Reason, TlsFacts, shorten
from exporter.probes.certificate import ask_facts, tls_facts
from exporter.probes.context import Context, Progress, failure_of, guarded
from soulfra_monitor import __version__

PATTERN_LIMIT = 16 * 1024
"""Bytes that regular expressions see: they hold the event loop, some in the square of the length."""
_CHARSETS = frozenset(
    {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "iso-8859-15", "windows-1252", "utf-16"}
)
BODY_LIMIT = 1024 * 1024
_VALUE_LIMIT = 60
_HEADERS = {"User-Agent": f"soulfra-exporter/{__version__}", "Accept": "*/*"}

Finding = tuple[Reason, str]


async def probe(config: HttpProbe, context: Context) -> Outcome:
    """Send the request once, over a new connection. Never raises: a failure is the outcome.

    Redirects are not followed: a 3xx answer is its own status.
    """
    progress = context.progress()
    return await guarded(_ask(config, context, progress), progress, context.timeout)


class _Response(aiohttp.ClientResponse):
    """Keeps the peer's certificate, which aiohttp lets go of with the connection."""

    tls: TlsFacts | None = None

    async def start(self, connection: Any) -> Self:
        """Look at the certificate before the answer, and with it the connection, may be over."""
        transport = connection.transport
        self.tls = tls_facts(transport.get_extra_info("ssl_object")) if transport else None
        await super().start(connection)
        return self


async def _connected(_: aiohttp.ClientSession, trace: SimpleNamespace, __: object) -> None:
    progress: Progress = trace.trace_request_ctx
    progress.connected = True
    progress.reach("connect")


async def _resolved(_: aiohttp.ClientSession, trace: SimpleNamespace, __: object) -> None:
    progress: Progress = trace.trace_request_ctx
    progress.reach("resolve")


def _new_session() -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_dns_resolvehost_end.append(_resolved)
    trace.on_connection_create_end.append(_connected)
    return aiohttp.ClientSession(
        # A new connection and a fresh name each time: what a kept one says is not the whole truth.
        connector=aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        response_class=_Response,
        trace_configs=[trace],
        headers=_HEADERS,
    )


async def _ask(config: HttpProbe, context: Context, progress: Progress) -> Outcome:
    url = _parsed(config.http)
    session = context.tools.session(_new_session)
    secure = context.tools.tls(config.tls) if url.scheme == "https" else True
    try:
        async with session.request(
            config.method,
            url,
            headers=config.headers,
            data=config.body.encode() if config.body is not None else None,
            allow_redirects=False,
            ssl=secure,
            server_hostname=config.tls.server_name if url.scheme == "https" else None,
            trace_request_ctx=progress,
        ) as response:
            return await _judge(config.expect, response, progress)
    except aiohttp.ClientError as error:
        return await _failed(error, config, url, progress)


async def _judge(expect: HttpExpect, response: aiohttp.ClientResponse, progress: Progress) -> Outcome:
    progress.reach("processing")
    if isinstance(response, _Response):
        progress.tls = response.tls
    finding = check_head(expect, response)
    body = b"" if finding else await _read(response)
    progress.reach("transfer")
    if finding is None:
        finding = check_body(expect, body, response.charset or "utf-8")
    reason, detail = finding or (None, f"answered {response.status}")
    return progress.outcome(reason, detail, http=HttpFacts(status=response.status))


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, or None when it is longer than the limit."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def check_head(expect: HttpExpect, response: aiohttp.ClientResponse) -> Finding | None:
    """Say what is wrong with status or headers, or None."""
    if response.status not in expect.status:
        wanted = " or ".join(str(status) for status in expect.status)
        return Reason.STATUS, f"answered {response.status}, expected {wanted}"
    for name, pattern in expect.headers.items():
        values = response.headers.getall(name, [])
        if not any(re.search(pattern, value[:PATTERN_LIMIT]) for value in values):
            # The value stays out: headers carry secrets.
            return Reason.HEADER, f"header {name} " + ("does not match" if values else "is missing")
    return None


def check_body(expect: HttpExpect, body: bytes | None, charset: str) -> Finding | None:
    """Say what is wrong with the body, or None. A body of None was too large to be read."""
    if body is None:
        return Reason.TOO_LARGE, f"the body is larger than {BODY_LIMIT} bytes"
    if expect.body is not None and not re.search(expect.body, _text(body[:PATTERN_LIMIT], charset)):
        return Reason.BODY, "the body does not match"
    if not expect.json_:
        return None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return Reason.JSON, "the body is not JSON"
    for path, wanted in expect.json_.items():
        finding = _check_value(answer, path, wanted)
        if finding is not None:
            return finding
    return None


def _check_value(answer: object, path: str, wanted: Scalar) -> Finding | None:
    value = answer
    for key in path.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return Reason.JSON, f"{path} is missing"
    # In Python True == 1, in JSON it is not.
    if value == wanted and isinstance(value, bool) is isinstance(wanted, bool):
        return None
    return Reason.JSON, f"{path} is {shorten(json.dumps(value), _VALUE_LIMIT)}, expected {json.dumps(wanted)}"


def _text(body: bytes, charset: str) -> str:
    # The peer names the charset, and some of Python's decoders take minutes or refuse everything.
    known = charset.lower() if charset.lower() in _CHARSETS else "utf-8"
    return body.decode(known, errors="replace")


async def _failed(error: aiohttp.ClientError, config: HttpProbe, url: URL, progress: Progress) -> Outcome:
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ServerTimeoutError):
        return progress.outcome(Reason.RESET, "the connection was closed without an answer")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return progress.outcome(Reason.PROTOCOL, "the answer is not valid HTTP")
    if isinstance(error, aiohttp.InvalidURL):
        return progress.outcome(Reason.INTERNAL, "the address is not valid")
    certificate = getattr(error, "certificate_error", None)
    cause = certificate if isinstance(certificate, ssl.SSLError) else error
    reason, detail = failure_of(cause, connected=progress.connected)
    if isinstance(cause, ssl.SSLCertVerificationError) and url.host and url.port:
        progress.tls = await ask_facts(url.host, url.port, config.tls.server_name or url.host)
    return progress.outcome(reason, detail)


@lru_cache(maxsize=4096)
def _parsed(address: str) -> URL:
    return URL(address)
