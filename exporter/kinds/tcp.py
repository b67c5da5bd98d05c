"""``{tcp: HOST:PORT}``: open a TCP connection, and talk if told what."""

from typing import ClassVar

from pydantic import field_validator

from exporter.fields import Address, split_address
from exporter.kinds import IpChoice, ProbeBase, Tls
from exporter.kinds.exchange import Steps, check_one_start


class TcpProbe(IpChoice, ProbeBase):
    """Open a TCP connection, by TLS with ``tls``; then go through the steps of ``exchange``.

    With a step ``starttls`` the connection begins without TLS, and ``tls`` says how TLS is checked then.
    """

    kind: ClassVar[str] = "tcp"
    tcp: Address
    exchange: Steps = ()
    tls: Tls | None = None

    _one_start = field_validator("exchange")(check_one_start)

    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return split_address(self.tcp)
