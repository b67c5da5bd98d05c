"""Cookies that live as long as one run of a probe."""

from collections.abc import Iterable
from dataclasses import dataclass, field

COOKIES_LIMIT = 50
COOKIE_LIMIT = 4096  # characters, as browsers have it

_CONTROL = {*map(chr, range(32)), "\x7f"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """One cookie and where it goes."""

    value: str
    domain: str
    host_only: bool
    path: str
    secure: bool


@dataclass(slots=True)
class Cookies:
    """What servers have set; each sees its own alone."""

    _kept: dict[tuple[str, str, str], Cookie] = field(default_factory=dict, repr=False)

    def take(self, host: str, headers: Iterable[str], *, secure: bool) -> None:
        """Keep what the Set-Cookie *headers* of an answer of *host* say; nonsense is passed over."""
        for header in headers:
            self._take_one(host, header, secure=secure)

    def header_for(self, host: str, target: str, *, secure: bool) -> str:
        """Return the value of the header Cookie for a request, or nothing."""
        path = target.partition("?")[0]
        return "; ".join(
            f"{name}={cookie.value}"
            for (name, _, _), cookie in self._kept.items()
            if _goes_to(cookie, host, path, secure=secure)
        )

    def _take_one(self, host: str, header: str, *, secure: bool) -> None:
        pair, *rest = header.split(";")
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not name or len(header) > COOKIE_LIMIT or not _CONTROL.isdisjoint(pair):
            return
        attributes = {
            key.strip().lower(): told.strip() for key, _, told in (one.partition("=") for one in rest)
        }
        domain = attributes.get("domain", "").lower().lstrip(".")
        if domain and domain != host and not ("." in domain and host.endswith(f".{domain}")):
            return
        path = attributes.get("path", "/")
        key = (name, domain or host, path)
        # An end in the past takes a cookie away; how long others live does not matter here.
        if attributes.get("max-age", "1").startswith(("0", "-")):
            self._kept.pop(key, None)
        elif len(self._kept) < COOKIES_LIMIT or key in self._kept:
            self._kept[key] = Cookie(
                value=value,
                domain=domain or host,
                host_only=not domain,
                path=path if path.startswith("/") else "/",
                secure="secure" in attributes and secure,
            )


def _goes_to(cookie: Cookie, host: str, path: str, *, secure: bool) -> bool:
    of_host = host == cookie.domain or (not cookie.host_only and host.endswith(f".{cookie.domain}"))
    below = cookie.path if cookie.path.endswith("/") else f"{cookie.path}/"
    of_path = path == cookie.path or path.startswith(below)
    return of_host and of_path and (secure or not cookie.secure)
