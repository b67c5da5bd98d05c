"""``{dns: SERVER, query: NAME}``: ask a name server and check its answer."""

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporter.fields import Strict, as_list, check_address, split_address
from exporter.kinds import IpChoice, ProbeBase, Tls
from exporter.kinds.patterns import Re2

RecordType = Literal[
    "A", "AAAA", "ANY", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV",
    "SSHFP", "SVCB", "TLSA", "TXT",
]  # fmt: skip
Rcode = Literal[
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE",
]  # fmt: skip
_HOST = re.compile(r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?$")
_NAME = re.compile(r"^(?:\.|(?:[A-Za-z0-9_*/-]{1,63}\.)*[A-Za-z0-9_*/-]{1,63}\.?)$")
_NAME_LIMIT = 254


def _server(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        if ":" in value:
            return check_address(value)
        if not _HOST.match(value):
            raise ValueError(
                "must be a server, for example 192.0.2.53, ::1 or ns1.example.org:5353"
            ) from None
    return value


def _query(value: str) -> str:
    if not _NAME.match(value) or len(value) > _NAME_LIMIT:
        raise ValueError("must be a name of DNS, for example www.example.org; write others as xn--...")
    return value


def _records(value: object) -> object:
    return {"contains": as_list(value)} if isinstance(value, str | list | tuple) else value


Patterns = Annotated[tuple[Re2, ...], BeforeValidator(as_list)]


class Records(Strict):
    """What a section of an answer must hold.

    A record is held against the patterns as ``NAME<tab>TTL<tab>CLASS<tab>TYPE<tab>DATA``, names with
    their last dot.
    """

    contains: Patterns = ()  # each is found in a record
    any: Patterns = ()  # one of them is found in a record
    every: Patterns = ()  # each is found in every record, and there is one
    none: Patterns = ()  # none is found in a record
    not_every: Patterns = ()  # there is a record in which one of them is not found, or no record
    at_least: Annotated[int, Field(ge=0)] = 0  # records


Section = Annotated[Records, BeforeValidator(_records)]


class DnsExpect(Strict):
    """What an answer must be to count as healthy."""

    rcode: Annotated[tuple[Rcode, ...], BeforeValidator(as_list), Field(min_length=1)] = ("NOERROR",)
    answer: Section = Records()
    authority: Section = Records()
    additional: Section = Records()


class DnsProbe(IpChoice, ProbeBase):
    """Ask a name server one question, once, and check the answer."""

    kind: ClassVar[str] = "dns"
    dns: Annotated[str, AfterValidator(_server)]
    query: Annotated[str, AfterValidator(_query)]
    type: RecordType = "A"
    class_: Literal["IN", "CH", "HS", "ANY"] = Field(default="IN", alias="class")
    protocol: Literal["udp", "tcp", "tls"] = "udp"
    recursion: bool = True
    expect: DnsExpect = DnsExpect()
    tls: Tls | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.tls is not None and self.protocol != "tls":
            raise ValueError("tls needs protocol: tls")
        return self

    def address(self) -> tuple[str, int]:
        """Return host and port of the server."""
        if ":" in self.dns and not _is_ipv6(self.dns):
            return split_address(self.dns)
        return self.dns, 853 if self.protocol == "tls" else 53

    def question(self) -> str:
        """Return the name that is asked for; an address stands for its name under in-addr or ip6.arpa."""
        if self.type != "PTR":
            return self.query
        try:
            return ip_address(self.query).reverse_pointer
        except ValueError:
            return self.query


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
