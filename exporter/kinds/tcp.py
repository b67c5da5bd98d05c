"""``{tcp: HOST:PORT}``: open a TCP connection."""

from typing import ClassVar

from exporter.fields import Address, split_address
from exporter.kinds import ProbeBase, Tls


class TcpProbe(ProbeBase):
    """Open a TCP connection."""

    kind: ClassVar[str] = "tcp"
    tcp: Address
    tls: Tls | None = None

    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return split_address(self.tcp)
