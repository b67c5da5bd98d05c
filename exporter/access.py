"""Who may ask: this machine. A page of another site that uses this machine's browser may not."""

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from exporter.fields import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_READS = ("GET", "HEAD")
_STARTS_PROBES = ("/check", "/probe")
_OWN_SITES = ("same-origin", "none")  # none: a person typed the address


@web.middleware
async def refuse_foreign(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 403 to names that only somebody else's DNS leads here, and to acts of foreign pages."""
    host = request.headers.get("Host")
    if host is not None and not is_loopback(_name_of(host)):
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
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        return True
    # Browsers send no Origin with a GET that a page makes for an image or a script, but they say this.
    return request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES


def _refused(message: str) -> web.Response:
    return web.json_response({"error": message}, status=403)
