"""What is told of a request over HTTP, whoever makes it."""

import time
from collections.abc import Mapping
from types import FrameType

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Fact
from soulfra_monitor.hooks.patch import Outlet
from soulfra_monitor.hooks.stacks import here

FAILED_FROM = 500
TOO_MANY = 429

clock = time.monotonic


def means_failure(status: int) -> bool:
    """Whether an answer of this status is told: 5xx, and 429."""
    return status >= FAILED_FROM or status == TOO_MANY


class Asked:
    """A request under way. Cheap to make; its address is looked at when there is something to tell."""

    __slots__ = ("_began", "_method", "_url")

    def __init__(self, method: object, url: object, began: float | None = None) -> None:
        self._method = method
        self._url = url
        self._began = clock() if began is None else began

    def failed(self, outlet: Outlet, error: BaseException) -> None:
        """Tell that no answer came."""
        outlet.raised(Kind.HTTP, error, facts=self._facts(), context={"at": here()})

    def answered(self, outlet: Outlet, status: int, frame: FrameType | None) -> None:
        """Tell of an answer that means failure; *frame* is who asked."""
        facts = {**self._facts(), "status": status}
        message = f"{facts['method']} {facts['url']}: status {status}"
        outlet.noted(Kind.HTTP_STATUS, message, frame=frame, facts=facts)

    def refused(self, outlet: Outlet, error: BaseException, status: int) -> None:
        """Tell of such an answer that the library has made an exception of."""
        facts = {**self._facts(), "status": status}
        outlet.raised(Kind.HTTP_STATUS, error, facts=facts, context={"at": here()})

    def _facts(self) -> Mapping[str, Fact]:
        url, peer = bare(str(self._url))
        seconds = round(clock() - self._began, 3)
        return {"method": str(self._method), "url": url, "peer": peer, "seconds": seconds}


def bare(url: str) -> tuple[str, str]:
    """Return *url* without user, query and fragment, and its host:port."""
    url = url.partition("#")[0].partition("?")[0]
    scheme, found, rest = url.partition("://")
    if not found:
        return url, ""
    authority, slash, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    known = {"http": ":80", "https": ":443"}.get(scheme, "")
    has_port = ":" in authority.rpartition("]")[2]
    return f"{scheme}://{authority}{slash}{path}", authority if has_port else authority + known
