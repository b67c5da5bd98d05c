"""Names to addresses."""

import asyncio
import socket
from ipaddress import ip_address
from typing import Literal

IpVersion = Literal[4, 6]
_FAMILIES = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


class Resolver:
    """Resolves names."""

    async def addresses(self, host: str, version: IpVersion | None = None) -> tuple[str, ...]:
        """Return the addresses of *host*, best first, of one IP version if told so.

        A literal address is returned as it is. Raises socket.gaierror when there is none.
        """
        literal = literal_version(host)
        if literal is not None:
            if version not in (None, literal):
                raise socket.gaierror(socket.EAI_NONAME, f"is not an IPv{version} address")
            return (host,)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, None, family=_FAMILIES[version], type=socket.SOCK_STREAM)
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def close(self) -> None:
        """Let go of what resolving needs."""


def literal_version(host: str) -> IpVersion | None:
    """Return the IP version of a literal address; None for a name."""
    if ":" not in host and not host[-1:].isdigit():
        return None
    try:
        return ip_address(host.partition("%")[0]).version
    except ValueError:
        return None
