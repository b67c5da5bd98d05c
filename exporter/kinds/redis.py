"""``{redis: URL}``: ask a Redis server how it is."""

from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pydantic import Field, SecretStr, model_validator

from exporter.fields import ByteSize, Duration, Percent, RedisUrl
from exporter.kinds import ProbeBase, Tls

DEFAULT_PORT = 6379


class RedisAccess(ProbeBase):
    """How a Redis server is reached and logged in to; the kinds that talk to one share it."""

    username: str | None = None
    password: SecretStr | None = None
    password_file: str | None = None  # read anew for every probe
    tls: Tls | None = None

    def url(self) -> SplitResult:
        """Return the parts of the server's address."""
        text: str = getattr(self, self.kind)
        return urlsplit(text)

    def address(self) -> tuple[str, int] | None:
        """Return host and port; None for a socket file."""
        parts = self.url()
        return None if parts.scheme == "unix" else (parts.hostname or "127.0.0.1", parts.port or DEFAULT_PORT)

    def database(self) -> int:
        """Return the number of the database. Raises ValueError when what stands there is none."""
        parts = self.url()
        named = parse_qs(parts.query).get("db", [""])[0]
        text = named or ("" if parts.scheme == "unix" else parts.path.strip("/")) or "0"
        if not (text.isdecimal() and text.isascii()):
            raise ValueError("the database must be a number, for example redis://127.0.0.1:6379/0")
        return int(text)

    def user(self) -> str:
        """Return the name to log in with; empty for the default user."""
        return self.username or unquote(self.url().username or "")

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        self.database()
        self.address()  # a port that is none is told by urlsplit
        parts = self.url()
        if self.tls is not None and parts.scheme != "rediss":
            raise ValueError("tls needs a rediss:// address")
        passwords = [parts.password, self.password, self.password_file]
        if sum(bool(given) for given in passwords) > 1:
            raise ValueError("give the password once: in the address, as password or as password_file")
        if self.username and parts.username:
            raise ValueError("give the user once: in the address or as username")
        if self.user() and not any(passwords):
            raise ValueError("a user needs a password; password_file names a file that has it")
        return self


class RedisProbe(RedisAccess):
    """Send PING to a Redis server, check its role and hold what it says of itself against limits."""

    kind: ClassVar[str] = "redis"
    redis: RedisUrl
    role: Literal["master", "replica"] | None = None
    max_lag: Duration | None = None  # since a replica heard of its master, or a master of each replica
    max_lag_bytes: ByteSize | None = None  # of each replica, as the master sees it
    min_replicas: Annotated[int, Field(ge=1)] | None = None  # of a master
    max_memory: Percent | None = None  # of maxmemory
    max_clients: Percent | None = None  # of maxclients

    @model_validator(mode="after")
    def _only_a_master_knows(self) -> Self:
        for key in ("max_lag_bytes", "min_replicas"):
            if self.role == "replica" and getattr(self, key) is not None:
                raise ValueError(f"only the master knows {key}: put it to the probe of the master")
        return self
