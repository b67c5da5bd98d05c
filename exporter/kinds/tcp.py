"""``{tcp: HOST:PORT}``: open a TCP connection, and talk if told what."""

from typing import ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from exporter.fields import Address, split_address
from exporter.kinds import ProbeBase, Tls
from exporter.kinds.exchange import Steps, check_one_start


class TcpProbe(ProbeBase):
    """Open a TCP connection, by TLS with ``tls``; then go through the steps of ``exchange``.

    With a step ``starttls`` the connection begins without TLS, and ``tls`` says how TLS is checked then.
    """

    kind: ClassVar[str] = "tcp"
    tcp: Address
    exchange: Steps = ()
    tls: Tls | None = None
    ip_version: Literal[4, 6] | None = None
    ip_fallback: bool = False  # take an address of the other version when there is none of ip_version

    _one_start = field_validator("exchange")(check_one_start)

    @model_validator(mode="after")
    def _fallback_has_a_version(self) -> Self:
        if self.ip_fallback and self.ip_version is None:
            raise ValueError("ip_fallback needs ip_version: the version that is preferred")
        return self

    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return split_address(self.tcp)
