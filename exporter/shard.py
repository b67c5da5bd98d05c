"""A part of the services for each of several exporters: ``i/n``, by a hash of the name."""

from dataclasses import dataclass
from typing import Self
from zlib import crc32

from exporter.config import WatchConfig
from exporter.fields import check_shard


@dataclass(frozen=True, slots=True)
class Shard:
    """The ``index``-th of ``count`` exporters, counted from 0."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``0/3``. Raises ValueError."""
        index, _, count = check_shard(text).partition("/")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, target: str) -> bool:
        """Whether *target* is watched here; exactly one shard of the same count says so, on every machine."""
        return crc32(target.encode()) % self.count == self.index

    def of(self, config: WatchConfig) -> WatchConfig:
        """Return what of *config* is watched here; an integration is watched where its source is."""
        if self.count == 1:
            return config
        services = {name: service for name, service in config.services.items() if self.has(name)}
        integrations = tuple(edge for edge in config.integrations if self.has(edge.from_))
        return config.model_copy(update={"services": services, "integrations": integrations})
