"""Who may ask: on loopback this machine, elsewhere who shows a password or a certificate.

A page of another site that uses this machine's browser may not, whatever the browser sends along.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web

from exporter.fields import is_loopback
from exporter.users import Admission, Users
from exporter.webconfig import OPEN, WebConfig

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SERVER = "soulfra"  # what answers say of us; versions help those who look for holes

_READS = ("GET", "HEAD")
_STARTS_PROBES = ("/check", "/probe")
_OWN_SITES = ("same-origin", "none")  # none: a person typed the address


class Door:
    """The protection of the port that is in force now."""

    def __init__(self, config: WebConfig = OPEN) -> None:
        self.config = config
        self.on_change: Callable[[], Awaitable[None]] | None = None  # told when the TLS side changes
        self._users = Users(config.settings.basic_auth_users)

    async def use(self, config: WebConfig) -> None:
        """Protect the port as *config* says from now on; connections that stand keep their TLS."""
        before, self.config = self.config, config
        try:
            if config != before and (config.context or before.context) and self.on_change is not None:
                await self.on_change()
        except BaseException:
            self.config = before  # as a whole or not at all
            raise
        if config.settings.basic_auth_users != before.settings.basic_auth_users:
            users, self._users = self._users, Users(config.settings.basic_auth_users)
            users.retire()

    def close(self) -> None:
        """Let go of what looking at passwords needs."""
        self._users.close()

    async def refusal(self, request: web.Request) -> web.Response | None:
        """Answer somebody who may not come in; None for those who may."""
        settings = self.config.settings
        tls = settings.tls_server_config
        if tls is not None and tls.client_allowed_sans:
            seen = request.transport and request.transport.get_extra_info("peercert")
            names = {value for _, value in (seen or {}).get("subjectAltName", ())}
            if names.isdisjoint(tls.client_allowed_sans):
                return _refused("the certificate names nobody who is allowed in")
        if not settings.basic_auth_users:
            return None
        match await self._users.admits(request.headers.get("Authorization", "")):
            case Admission.YES:
                return None
            case Admission.BUSY:
                return _error(HTTPStatus.SERVICE_UNAVAILABLE, "too many passwords wait to be looked at")
            case Admission.NO:
                refused = _error(HTTPStatus.UNAUTHORIZED, "name and password are needed")
                refused.headers["WWW-Authenticate"] = 'Basic realm="soulfra exporter", charset="UTF-8"'
                return refused


DOOR = web.AppKey("DOOR", Door)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in whom the web configuration lets in."""
    return await request.app[DOOR].refusal(request) or await handler(request)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of the web configuration to every answer."""
    response.headers["Server"] = SERVER
    response.headers.update(request.app[DOOR].config.settings.http_server_config.headers)


@web.middleware
async def refuse_foreign(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 403 to names that only somebody else's DNS leads here, and to acts of foreign pages."""
    host = request.headers.get("Host")
    # Who had to show a password or a certificate may call this machine by any name.
    open_to_all = not request.app[DOOR].config.authenticates
    if open_to_all and host is not None and not is_loopback(_name_of(host)):
        return _refused("only this machine's own names are served")
    acts = request.method not in _READS or request.path in _STARTS_PROBES
    if acts and _is_foreign(request):
        return _refused("requests from pages of other sites start and change nothing")
    return await handler(request)


def _name_of(host: str) -> str:
    name = host if host.endswith("]") else host.rsplit(":", 1)[0]
    return name.strip("[]")


def _is_foreign(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    if origin is not None and _place_of(origin) != request.headers.get("Host"):
        return True
    # Browsers send no Origin with a GET that a page makes for an image or a script, but they say this.
    return request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES


def _place_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _refused(message: str) -> web.Response:
    return _error(HTTPStatus.FORBIDDEN, message)


def _error(status: HTTPStatus, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
