"""Who may do what: bearer or basic tokens with roles; without tokens, this machine only."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Request, request
from werkzeug.exceptions import HTTPException

from remediator.config import Role

_MAY: Mapping[str, frozenset[Role]] = {
    "alerts": frozenset({Role.ALERTMANAGER, Role.OPERATOR}),
    "read": frozenset({Role.VIEWER, Role.OPERATOR}),
    "ingest": frozenset({Role.INGEST, Role.OPERATOR}),
    "operate": frozenset({Role.OPERATOR}),
}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A token that was presented: whose it is and what it opens. The secret's repr is hidden."""

    name: str
    role: Role


class Gate:
    """Lets a request through or answers why not."""

    def __init__(self, secrets: Mapping[str, Holder]) -> None:
        self._secrets = {secret.encode(): holder for secret, holder in secrets.items()}

    def check(self, what: str, *, presented: str | None = None) -> str:
        """Return the name of who asks. Raises 401 or 403 (as HTTPException) when it may not.

        *presented* is a token that came another way than in Authorization.
        """
        if not self._secrets or _is_basic(request):
            _refuse_foreign_pages(request)
        if not self._secrets:
            _must_come_from_here(request)
            return "local"
        holder = self._find(_presented(request) if presented is None else presented.encode())
        if holder is None:
            raise denied(HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Bearer ...")
        if holder.role not in _MAY[what]:
            raise denied(HTTPStatus.FORBIDDEN, f"the role {holder.role} may not do this")
        return holder.name

    def _find(self, presented: bytes | None) -> Holder | None:
        found = None
        for secret, holder in self._secrets.items():
            # Every secret is compared, so that time tells nothing about which one is near.
            if presented is not None and hmac.compare_digest(secret, presented):
                found = holder
        return found


def denied(status: HTTPStatus, message: str) -> HTTPException:
    """Make an exception that the app answers as JSON."""
    error = HTTPException(message)
    error.code = status.value
    return error


def _presented(asked: Request) -> bytes | None:
    given = asked.authorization
    if given is None:
        return None
    if given.type == "bearer":
        return (given.token or "").encode()
    if given.type == "basic":
        return (given.password or "").encode()
    return None


def _is_basic(asked: Request) -> bool:
    # A browser sends these by itself, whichever page makes the request; bearer tokens it does not.
    return asked.authorization is not None and asked.authorization.type == "basic"


def _refuse_foreign_pages(asked: Request) -> None:
    """Let no page of another site change anything through a browser that may, or that knows a password."""
    origin = asked.headers.get("Origin")
    if asked.method != "GET" and origin is not None and urlsplit(origin).netloc != asked.host:
        raise denied(HTTPStatus.FORBIDDEN, "requests from pages of other sites change nothing")


def _must_come_from_here(asked: Request) -> None:
    """Without tokens a name that leads here by somebody else's DNS must not open the door."""
    name = asked.host.rsplit(":", 1)[0] if not asked.host.endswith("]") else asked.host
    if name not in _LOOPBACK:
        raise denied(HTTPStatus.FORBIDDEN, "without tokens only this machine's own names are served")
