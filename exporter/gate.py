"""Which addresses may be connected to.

Held against every address that a name resolves to and every place a redirect leads to, at the
moment of connecting, so that neither a redirect nor a name that changes its mind gets around it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


class ForbiddenAddressError(OSError):
    """The address is not among those that may be connected to."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The networks that are open; None means any."""

    networks: tuple[Network, ...] | None = None

    def check(self, host: str, address: str, port: int) -> None:
        """Raise ForbiddenAddressError unless *address*, to which *host* leads, is open."""
        if self.networks is None:
            return
        ip = ip_address(address.partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None)
        if not _contains(self.networks, mapped or ip):
            raise ForbiddenAddressError(f"{host}, port {port}, leads to an address that is not allowed")


def _contains(networks: Iterable[Network], ip: object) -> bool:
    return any(ip in network for network in networks)


OPEN = Gate()
"""Every address: for targets that the configuration names itself."""
