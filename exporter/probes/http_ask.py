"""Requests and the way to their answers: addresses, proxies, redirects, cookies."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import quote, unquote, urljoin, urlsplit

from exporter.gate import OPEN, ForbiddenAddressError, Gate
from exporter.kinds.http import HttpAsk
from exporter.observation import HttpFacts, Reason
from exporter.probes.context import Context, Progress
from exporter.probes.cookies import Cookies
from exporter.probes.dial import Secure, dial, dial_socket_file, preferred_version, start_tls
from exporter.probes.http_wire import Answer, AnswerError, Exchange, Wish
from exporter.probes.resolver import literal_version
from soulfra_monitor.redaction import is_secret_key

_PATH_SAFE = "/%:@!$&'()*+,;=~-._[]?|^`{}\"<>\\"
FOLLOWED = frozenset({301, 302, 303, 307, 308})
_AS_GET = {301, 302, 303}
_OK = range(200, 300)
_STAYS_HOME = {"host", "authorization", "cookie", "proxy-authorization"}
_OF_BODY = {"content-type", "content-encoding", "content-language", "content-location"}
_HTTP, _HTTPS = 80, 443
_TUNNEL = Wish(body_for=(), keep_body=False, body_limit=1, phases=False)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request goes and what it asks for there."""

    secure: bool
    host: str
    port: int
    target: str  # path and query, fit to stand in a request
    user: str | None = None  # of the address, with its password

    @property
    def authority(self) -> str:
        """Host and port as they stand in an address; the usual port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (_HTTPS if self.secure else _HTTP) else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """The whole address, without user and password."""
        return f"http{'s' if self.secure else ''}://{self.authority}{self.target}"

    def is_at_home_of(self, other: "Place") -> bool:
        """Whether what is secret at *other* may be told here: the same place, or the same host by TLS."""
        if self.host != other.host:
            return False
        upgraded = self.secure and not other.secure and (other.port, self.port) == (_HTTP, _HTTPS)
        return upgraded or (self.secure, self.port) == (other.secure, other.port)


def place_of(address: str) -> Place:
    """Read an http or https address. Raises ValueError when it is none."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http or https address")
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode()
    if any(character <= " " or character in "/?#@\\" for character in host):
        raise ValueError("has no valid host")
    secure = parts.scheme == "https"
    target = quote(parts.path or "/", safe=_PATH_SAFE.replace("?", ""))
    if parts.query:
        target += "?" + quote(parts.query, safe=_PATH_SAFE)
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
    return Place(
        secure=secure, host=host, port=parts.port or (_HTTPS if secure else _HTTP), target=target, user=user
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked, before it is known how to get there."""

    method: str
    place: Place
    headers: Headers = field(repr=False)
    body: bytes | None = field(default=None, repr=False)

    def with_cookies(self, cookies: str) -> "Request":
        """Add cookies to those that are given already."""
        own = [value for name, value in self.headers if name.lower() == "cookie"]
        rest = tuple(pair for pair in self.headers if pair[0].lower() != "cookie")
        return replace(self, headers=(*rest, ("Cookie", "; ".join([*own, cookies]))))

    def wire(self, more: Headers = (), *, absolute: bool = False) -> bytes:
        """Write the request as it is sent."""
        target = self.place.address if absolute else self.place.target
        lines = [f"{self.method} {target} HTTP/1.1"]
        given = {name.lower() for name, _ in self.headers}
        if "host" not in given:
            lines.append(f"Host: {self.place.authority}")
        lines += [f"{name}: {value}" for name, value in (*self.headers, *more)]
        if self.body is not None or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body or b'')}")
        lines.append("Connection: close\r\n\r\n")
        return "\r\n".join(lines).encode() + (self.body or b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """The last answer, where it came from, and how many redirects led there."""

    answer: Answer
    place: Place
    redirects: int
    leads_on: bool = False  # whether it is one more redirect


def facts_of(seen: Visit) -> HttpFacts:
    """Return what is told of the last answer."""
    answer = seen.answer
    return HttpFacts(
        status=answer.status,
        version=answer.version,
        redirects=seen.redirects,
        redirects_met=seen.redirects + seen.leads_on,
        content_length=answer.content_length,
        body_bytes=answer.body_bytes,
        unpacked_bytes=answer.unpacked_bytes,
        last_modified=_last_modified(answer),
        secure=seen.place.secure,
    )


def _last_modified(answer: Answer) -> float | None:
    text = answer.value(b"last-modified")
    if not text:
        return None
    try:
        return parsedate_to_datetime(text[:64]).timestamp()
    except (ValueError, OverflowError):
        return None


def basic(user_and_password: str) -> str:
    """Return the value of Authorization for USER:PASSWORD."""
    return f"Basic {b64encode(user_and_password.encode()).decode()}"


def with_defaults(headers: Mapping[str, str], defaults: Mapping[str, str]) -> Headers:
    """Return *headers* and those of *defaults* that are not among them, whatever their case."""
    given = {name.lower() for name in headers}
    rest = ((name, value) for name, value in defaults.items() if name.lower() not in given)
    return (*headers.items(), *rest)


async def visit(
    request: Request,
    ask: HttpAsk,
    wish: Wish,
    *,
    context: Context,
    progress: Progress,
    cookies: Cookies | None = None,
    wire: bytes | None = None,
) -> Visit:
    """Send *request* and follow redirects as *ask* allows. Raises AnswerError or OSError.

    *wire* is the request already written, for where nothing is to be added to it.
    """
    if ask.redirects and cookies is None:
        cookies = Cookies()
    for name, value in request.headers:
        if name.lower() == "authorization":  # a peer may send it back, in a value that is told
            progress.hide(value.rpartition(" ")[2])
    redirects = 0
    home = request.place.host
    gate = context.gate
    while True:
        way = Way(ask, home, context, progress, redirects, gate)
        answer = await _send(request, wire, way, wish, cookies)
        progress.note("answered %d by HTTP/%s, %d bytes", answer.status, answer.version, answer.body_bytes)
        if cookies is not None:
            cookies.take(request.place.host, answer.values(b"set-cookie"), secure=request.place.secure)
        location = answer.value(b"location")
        leads_on = answer.status in FOLLOWED and bool(location)
        seen = Visit(answer=answer, place=request.place, redirects=redirects, leads_on=leads_on)
        if not ask.redirects or not leads_on:
            return seen
        if redirects == ask.redirects:
            progress.http = facts_of(seen)
            raise AnswerError(Reason.REDIRECT, f"more than {ask.redirects} redirects")
        if redirects == 0:
            gate = gate.after_redirect(_address_of(way))
        redirects += 1
        request, wire = redirected(request, answer.status, location), None
        if ask.socket is not None and request.place.host != home:
            raise AnswerError(Reason.REDIRECT, "a redirect leads away from the socket file")
        progress.note("follows a redirect to %s", request.place.address)


@dataclass(frozen=True, slots=True)
class Way:
    """What decides how a place is reached."""

    ask: HttpAsk
    home: str  # the host that was asked first
    context: Context
    progress: Progress
    redirects: int = 0  # so far
    gate: Gate = OPEN  # for the place; a proxy is named by the configuration, whatever redirects say

    async def secure(self, place: Place) -> Secure | None:
        """Return what TLS to *place* needs. Raises OSError when one of our own files cannot be used."""
        if not place.secure:
            return None
        tls = self.ask.tls
        name = tls.server_name if tls.server_name and place.host == self.home else place.host
        return Secure(context=await self.context.tls(tls), server_name=name)


async def _send(
    request: Request, wire: bytes | None, way: Way, wish: Wish, cookies: Cookies | None
) -> Answer:
    way.progress.tls, way.progress.connected = None, False
    place = request.place
    if cookies is not None:
        kept = cookies.header_for(place.host, place.target, secure=place.secure)
        if kept:
            request, wire = request.with_cookies(kept), None
    proxied = way.ask.proxy is not None and not place.secure
    if wire is None or proxied:
        more = _proxy_headers(way.ask) if proxied else ()
        wire = request.wire(more, absolute=proxied)
    make = partial(Exchange, wire, wish, way.progress, headless=request.method == "HEAD")
    transport, exchange = await _open(make, place, way)
    try:
        return await exchange.answer
    except BaseException:
        if exchange.head is not None:
            seen = Visit(answer=exchange.head, place=place, redirects=way.redirects)
            way.progress.http = facts_of(seen)
        raise
    finally:
        transport.abort()


async def _open(make: Callable[[], Exchange], place: Place, way: Way) -> tuple[asyncio.Transport, Exchange]:
    ask, progress = way.ask, way.progress
    secure = await way.secure(place)
    if ask.socket is not None:
        return await dial_socket_file(make, ask.socket, progress=progress, secure=secure)
    if ask.proxy is not None:
        return await _through_proxy(make, place_of(ask.proxy), place, secure, way)
    context = replace(way.context, gate=way.gate) if way.redirects else way.context
    version = ask.ip_version
    if version is not None:
        version = await preferred_version(
            place.host, version, fallback=ask.ip_fallback, context=context, progress=progress
        )
    return await dial(
        make, place.host, place.port, context=context, progress=progress, version=version, secure=secure
    )


def _address_of(way: Way) -> str:
    """Return the address of the place that was asked, if it is known: a proxy resolves names itself."""
    if way.ask.proxy is None:
        return way.progress.address
    return way.home if literal_version(way.home) is not None else ""


async def _through_proxy(
    make: Callable[[], Exchange], proxy: Place, place: Place, secure: Secure | None, way: Way
) -> tuple[asyncio.Transport, Exchange]:
    context, progress = way.context, way.progress
    _check_behind_proxy(place, way.gate)
    if secure is None:
        return await dial(make, proxy.host, proxy.port, context=context, progress=progress)
    authority = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    lines += [f"{name}: {value}" for name, value in _proxy_headers(way.ask)]
    asked = partial(Exchange, "\r\n".join([*lines, "\r\n"]).encode(), _TUNNEL, progress, headless=True)
    transport, tunnel = await dial(asked, proxy.host, proxy.port, context=context, progress=progress)
    try:
        answer = await tunnel.answer
    except BaseException:
        transport.abort()
        raise
    if answer.status not in _OK:
        transport.abort()
        raise AnswerError(Reason.CONNECT_FAILED, f"the proxy answered {answer.status}")
    progress.reach("connect")
    exchange = make()
    upgraded = await start_tls(transport, exchange, secure, None, progress)
    exchange.connection_made(upgraded)
    return upgraded, exchange


def _check_behind_proxy(place: Place, gate: Gate) -> None:
    """Ask the gate about a place whose name the proxy will resolve."""
    if literal_version(place.host) is not None:
        gate.check(place.host, place.host, place.port)
    elif not gate.knows_name(place.host, place.port):
        raise ForbiddenAddressError(f"{place.host}, port {place.port}, is not in {gate.where}")


def _proxy_headers(ask: HttpAsk) -> Headers:
    user = place_of(ask.proxy).user if ask.proxy is not None else None
    return (("Proxy-Authorization", basic(user)),) if user is not None else ()


def redirected(request: Request, status: int, location: str) -> Request:
    """Return the request that follows a redirect. Raises AnswerError when it is not to be followed."""
    try:
        place = place_of(urljoin(request.place.address, location))
    except ValueError as error:
        raise AnswerError(Reason.REDIRECT, f"the place of a redirect {error}") from error
    headers = request.headers
    if not place.is_at_home_of(request.place):
        headers = tuple(pair for pair in headers if not _is_secret(pair[0]))
    method, body = request.method, request.body
    if status in _AS_GET and method not in ("GET", "HEAD"):
        method, body = "GET", None
        headers = tuple(pair for pair in headers if pair[0].lower() not in _OF_BODY)
    return replace(request, method=method, place=replace(place, user=None), headers=headers, body=body)


def _is_secret(header: str) -> bool:
    return header.lower() in _STAYS_HOME or is_secret_key(header)
