"""``{redis: URL}``: ask a Redis server how it is."""

from typing import ClassVar, Literal
from urllib.parse import urlsplit

from exporter.fields import RedisUrl
from exporter.kinds import ProbeBase

DEFAULT_PORT = 6379


class RedisProbe(ProbeBase):
    """Send PING to a Redis server and check its role."""

    kind: ClassVar[str] = "redis"
    redis: RedisUrl
    role: Literal["master", "replica"] | None = None

    def address(self) -> tuple[str, int] | None:
        """Return host and port; None for a socket file."""
        parts = urlsplit(self.redis)
        return None if parts.scheme == "unix" else (parts.hostname or "127.0.0.1", parts.port or DEFAULT_PORT)
