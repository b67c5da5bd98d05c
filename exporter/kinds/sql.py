"""What the probes of databases have in common: who asks what, and what is expected of the answer."""

import re
from importlib.util import find_spec
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, model_validator

from exporter.fields import Scalar, Strict
from exporter.kinds import ProbeBase, Tls
from exporter.kinds.unix import SocketPath

_URL = re.compile(r"^[a-z]+://(?:[^\s/?#@]+@)?[^\s/?#@]*(?:/[^\s/?#]*)?$")


class Between(Strict):
    """Bounds of a number."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("write at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most, so that nothing fits")
        return self

    def holds(self, number: float) -> bool:
        """Whether *number* is within."""
        return (self.at_least is None or number >= self.at_least) and (
            self.at_most is None or number <= self.at_most
        )

    def __str__(self) -> str:
        """Write the bounds for people."""
        bounds = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return " and ".join(bounds)


class SqlExpect(Strict):
    """What the answer to the query must be to count as healthy."""

    value: Between | Scalar = None  # of the first column of the first row; left out: any
    rows: Between | None = None

    def asks_for_value(self) -> bool:
        """Whether a value is expected; ``value: null`` expects NULL."""
        return "value" in self.model_fields_set


class SqlProbe(ProbeBase):
    """Log in to a database, send one query that may only read, and check the answer."""

    username: str | None = None
    password: SecretStr | None = None
    password_file: str | None = None  # read anew for every probe
    socket: SocketPath | None = None  # instead of host and port of the address
    query: Annotated[str, Field(min_length=1, max_length=100_000)] = "SELECT 1"
    expect: SqlExpect = SqlExpect()
    tls: Tls | None = None

    def url(self) -> str:
        """Return the address as it is written."""
        raise NotImplementedError

    def default_port(self) -> int:
        """Return the port of an address without one."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _address_fits(self) -> Self:
        parts = urlsplit(self.url())
        if bool(parts.hostname) == (self.socket is not None):
            raise ValueError("write the host in the address, or leave it out and write socket: PATH")
        if self.socket is not None and self.tls is not None:
            raise ValueError("tls is for hosts; a socket file is not spoken to by TLS")
        given = [parts.password, self.password, self.password_file]
        if sum(way is not None for way in given) > 1:
            raise ValueError("give the password once: in the address, as password or as password_file")
        if parts.username and self.username:
            raise ValueError("give the user once: in the address or as username")
        if not self.user_name():
            raise ValueError("a user is missing: write it into the address, user@HOST, or as username")
        return self

    def address(self) -> tuple[str, int] | None:
        """Return host and port; None for a socket file."""
        parts = urlsplit(self.url())
        return None if self.socket else (parts.hostname or "", parts.port or self.default_port())

    def user_name(self) -> str:
        """Return who logs in."""
        return self.username or unquote(urlsplit(self.url()).username or "")

    def url_password(self) -> str:
        """Return the password that stands in the address, or nothing."""
        return unquote(urlsplit(self.url()).password or "")

    def database(self) -> str:
        """Return the name of the database; empty for none."""
        return unquote(urlsplit(self.url()).path.removeprefix("/"))


def check_url(value: str, schemes: tuple[str, ...]) -> str:
    """Return *value* when it is an address of one of *schemes*. Raises ValueError otherwise."""
    example = f"{schemes[0]}://user@db.example.org/name"
    if not _URL.match(value) or urlsplit(value).scheme not in schemes:
        raise ValueError(f"must be an address such as {example}, without options after it")
    try:
        port = urlsplit(value).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port of the address must be 1 to 65535")
    return value


def need(package: str, extra: str) -> None:
    """Raise ValueError with the mend when the library of a kind is not installed."""
    if find_spec(package) is None:
        raise ValueError(f"{package} is not installed; pip install 'soulfra-monitor[{extra}]'")


Role = Literal["primary", "replica"]
