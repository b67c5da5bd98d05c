"""Which places may be connected to.

Held against every address that a name resolves to and every place a redirect leads to, at the
moment of connecting, so that neither a redirect nor a name that changes its mind gets around it.
docs/blackbox.md has the rule in the words of those who write the allow-list.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

Ip = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LAST_PORT = 65535


class Zone(StrEnum):
    """What an address is that nobody should reach unless it is meant, in the words of a detail."""

    THIS_MACHINE = "of this machine"
    LINK_LOCAL = "link-local, or a cloud's for its metadata"
    MANY = "for multicast, or reserved"
    TRANSLATED = "an IPv4 address that only a local translator knows"


_ZONES: Mapping[Network, Zone] = {
    ip_network(text): zone
    for text, zone in (
        ("0.0.0.0/8", Zone.THIS_MACHINE),  # by another name
        ("127.0.0.0/8", Zone.THIS_MACHINE),
        ("169.254.0.0/16", Zone.LINK_LOCAL),  # and with it the metadata of most clouds
        ("100.100.100.200/32", Zone.LINK_LOCAL),  # metadata of Alibaba Cloud
        ("168.63.129.16/32", Zone.LINK_LOCAL),  # Azure's host, at a public address
        ("192.0.0.192/32", Zone.LINK_LOCAL),  # metadata of Oracle Cloud Classic
        ("224.0.0.0/3", Zone.MANY),  # multicast, reserved, broadcast
        ("::/127", Zone.THIS_MACHINE),  # unspecified and loopback
        ("fe80::/10", Zone.LINK_LOCAL),
        ("fd00:ec2::/32", Zone.LINK_LOCAL),  # metadata of AWS, and its name and time servers
        ("fd20:ce::/32", Zone.LINK_LOCAL),  # metadata of Google Cloud
        ("ff00::/8", Zone.MANY),
        ("64:ff9b:1::/48", Zone.TRANSLATED),  # where the IPv4 address stands in it is the translator's choice
    )
}
GUARDED: tuple[Network, ...] = tuple(_ZONES)
"""Opened only by an entry that lies within one of these: 0.0.0.0/0 opens none of them."""

ANYWHERE_ELSE = ("*", "0.0.0.0/0", "::/0")
"""The allow-list that opens everything but what is guarded."""

_COMPATIBLE = IPv6Network("::/96")
_EMBEDDING = (
    IPv6Network("64:ff9b::/96"),  # NAT64
    IPv6Network("64:ff9b:1::/96"),  # NAT64 of one's own, where it is written in the usual way
    IPv6Network("::ffff:0:0:0/96"),  # SIIT
)
"""Networks whose last 32 bits are an IPv4 address that the packets reach."""
_PUBLIC = IPv6Network("2000::/3")
_ENTRY = re.compile(
    r"(?a)^(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?)?$"
)
_PATTERN = re.compile(r"^[a-z0-9_*](?:[a-z0-9_*.-]*[a-z0-9_*])?$")
_NUMBER = re.compile(r"^(?:0[xX][0-9A-Fa-f]*|\d+)$")

LIST = "exporter.allow_targets"
HOW = (
    "write an address (10.1.2.3), a network (10.0.0.0/8 or [2001:db8::/32]) or a name (*.example.org),"
    " with :PORT or :FROM-TO behind it if only some ports are meant"
)


class ForbiddenAddressError(OSError):
    """The address is not among those that may be connected to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of an allow-list: a network, or a pattern of names, and ports."""

    network: Network | None = None
    names: str = ""
    first_port: int = 1
    last_port: int = LAST_PORT

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one line. Raises ValueError that says how to write it."""
        place, first, last = _split(text)
        try:
            network = ip_network(place, strict=False)
        except ValueError:
            names = place.lower().rstrip(".")
            if not _PATTERN.match(names) or _ends_in_number(names) or "/" in place:
                raise ValueError(f"{text!r} cannot be allowed; {HOW}") from None
            return cls(names=names, first_port=first, last_port=last)
        return cls(network=network, first_port=first, last_port=last)

    def opens_address(self, ip: Ip, port: int) -> bool:
        """Whether it is an entry for addresses that opens this one."""
        if self.network is None or not self._has(port) or ip not in self.network:
            return False
        guards = [guard for guard in GUARDED if ip in guard]
        return not guards or any(_within(self.network, guard) for guard in guards)

    def opens_name(self, host: str, port: int) -> bool:
        """Whether it is an entry for names that allows this one; its address is another question."""
        return bool(self.names) and self._has(port) and fnmatchcase(host, self.names)

    def _has(self, port: int) -> bool:
        return self.first_port <= port <= self.last_port


@dataclass(frozen=True, slots=True)
class Gate:
    """The entries that open places; None means any place that the configuration names itself.

    Where a peer redirects to is not such a place: without entries it may be anywhere but in a guarded
    zone, unless the peer is in that zone too.
    """

    entries: tuple[Entry, ...] | None = None
    where: str = LIST  # the key of the list, for people
    redirected: bool = False
    zone: Zone | None = None  # of the peer that redirects

    def after_redirect(self, address: str) -> "Gate":
        """Return the gate for where a peer at *address* leads to; empty: it is not known."""
        return replace(self, redirected=True, zone=zone_of(judged(address)) if address else None)

    def check(self, host: str, address: str, port: int) -> None:
        """Raise ForbiddenAddressError unless *address*, to which *host* leads, is open.

        An entry for addresses opens them whatever the name; one for names opens public addresses only.
        """
        if self.entries is None:
            self._check_redirect(host, address, port)
            return
        ip = judged(address)
        if any(entry.opens_address(ip, port) for entry in self.entries):
            return
        if not self.knows_name(host, port):
            raise ForbiddenAddressError(f"{host}, port {port}, is not in {self.where}")
        if not is_public(ip):
            inside = "an address that is neither public nor"
            raise ForbiddenAddressError(f"{host}, port {port}, leads to {inside} in {self.where}")

    def _check_redirect(self, host: str, address: str, port: int) -> None:
        zone = zone_of(judged(address)) if self.redirected else None
        if zone is not None and zone is not self.zone:
            raise ForbiddenAddressError(
                f"a redirect leads to {host}, port {port}, an address that is {zone}: only the configuration"
                " may name it"
            )

    def admit(self, host: str, port: int) -> None:
        """Raise ForbiddenAddressError when no entry could open *host*, wherever its name leads."""
        if self.entries is None:
            return
        name = host.strip("[]")
        if _is_literal(name):
            self.check(name, name, port)
        elif not self.knows_name(host, port) and all(entry.network is None for entry in self.entries):
            raise ForbiddenAddressError(f"{host}, port {port}, is not in {self.where}")

    def knows_name(self, host: str, port: int) -> bool:
        """Whether an entry for names allows *host*. Addresses, however they are written, are no names."""
        name = host.lower().rstrip(".")
        if self.entries is None:
            return True
        if _ends_in_number(name) or ":" in name:
            return False
        return any(entry.opens_name(name, port) for entry in self.entries)


def judged(address: str) -> Ip:
    """Return the address that packets to *address* reach: an IPv4 address inside an IPv6 one counts."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return ip
    inner = ip.ipv4_mapped or ip.sixtofour
    if inner is None and (any(ip in net for net in _EMBEDDING) or (ip in _COMPATIBLE and int(ip) > 1)):
        inner = IPv4Address(int(ip) & 0xFFFFFFFF)
    return inner or ip


def is_public(ip: Ip) -> bool:
    """Whether *ip* is an ordinary address of the internet."""
    usual = isinstance(ip, IPv4Address) or ip in _PUBLIC  # Python takes what nobody has assigned for global
    return usual and ip.is_global and zone_of(ip) is None


def zone_of(ip: Ip) -> Zone | None:
    """Return the guarded zone that *ip* is in, or None."""
    return next((zone for network, zone in _ZONES.items() if ip in network), None)


def _split(text: str) -> tuple[str, int, int]:
    """Take the ports off an entry; IPv6 with ports stands in brackets. Raises ValueError."""
    if text.count(":") > 1 and not text.startswith("["):
        return text, 1, LAST_PORT
    found = _ENTRY.match(text)
    if found is None:
        raise ValueError(f"{text!r} cannot be allowed; {HOW}")
    first = int(found["first"] or 1)
    last = int(found["last"] or found["first"] or LAST_PORT)
    if not 0 < first <= last <= LAST_PORT:
        raise ValueError(f"{text!r}: ports are 1 to {LAST_PORT}, the smaller one first")
    return found["bracketed"] or found["plain"], first, last


def _within(network: Network, guard: Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(guard, IPv4Network):
        return network.subnet_of(guard)
    if isinstance(network, IPv6Network) and isinstance(guard, IPv6Network):
        return network.subnet_of(guard)
    return False


def _ends_in_number(host: str) -> bool:
    # 2130706433, 0x7f.1 and 127.1 are addresses to the operating system.
    return bool(_NUMBER.match(host.rpartition(".")[2]))


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def gate_of(entries: Iterable[str], where: str = LIST) -> Gate:
    """Return the gate of an allow-list, the key *where*. Raises ValueError for a line that cannot be read."""
    return Gate(tuple(Entry.parse(entry) for entry in entries), where)


def readable_entry(text: str) -> str:
    """Return *text* when it is a line of an allow-list. Raises ValueError that says how to write it."""
    Entry.parse(text)
    return text


OPEN = Gate()
"""Every address: for targets that the configuration names itself."""
