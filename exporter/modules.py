"""The modules of a ``blackbox.yml``, as blackbox_exporter reads them.

A file that works there is taken as it stands: what is wrong there is a mistake here too. A module that wants
what cannot be done here is told by a warning with the mend, and whoever asks for it is refused; nothing
is passed over in silence. ``exporter.translation`` turns a module and a target into a probe.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from exporter.fields import Duration, Strict, header_text
from exporter.kinds import KEY_ALONE, check_handshake
from exporter.kinds.patterns import Re2

_UNITS = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?$")
_HTTP_1 = frozenset({"HTTP/1.0", "HTTP/1.1"})


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = _SIZE.match(value)
    if found is None:
        raise ValueError(f"{value!r} is not a size; write for example 512KB or 10MB")
    return int(float(found[1]) * _UNITS[found[2]])


Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
"""Bytes, in powers of 1024 as blackbox_exporter counts them."""
TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
Texts = tuple[str, ...]
Patterns = tuple[Re2, ...]


_UNSUPPORTED = {
    "fail_if_body_json_matches_cel": (
        "CEL is not supported; write the check as expect.json of a probe under services, or as a regular"
        " expression in fail_if_body_matches_regexp"
    ),
    "fail_if_body_json_not_matches_cel": (
        "CEL is not supported; write the check as expect.json of a probe under services, or as a regular"
        " expression in fail_if_body_not_matches_regexp"
    ),
    "oauth2": "is not supported; let a job write the token into a file for authorization.credentials_file",
    "http_headers": "is not supported; write headers",
    "enable_http3": "HTTP/3 is not supported; leave it out",
    "proxy_from_environment": "is not supported; write proxy_url",
    "no_proxy": "is not supported; write a second module without proxy_url",
    "proxy_connect_header": "is not supported; write the user and the password into proxy_url",
    "source_ip_address": "is not supported: the route to the target decides; leave it out",
    "ca": "is not supported; put it into a file and write ca_file",
    "cert": "is not supported; put it into a file and write cert_file",
    "key": "is not supported; put it into a file and write key_file",
    "username_file": "is not supported; write username",
    "labels": "probe_expect_info is not supported; leave labels out",
    "expect_bytes": "is not supported; write expect",
}


class Part(Strict):
    """A part of a module; some of its keys may ask for what cannot be done here."""

    def obstacles(self) -> Iterator[str]:
        """Say what cannot be done, each with its key and its mend."""
        for key in self.model_fields_set & _UNSUPPORTED.keys():
            if getattr(self, key) not in (None, False, "", {}):
                yield f"{key}: {_UNSUPPORTED[key]}"


TLS_VERSIONS = {"TLS10": "1.0", "TLS11": "1.1", "TLS12": "1.2", "TLS13": "1.3"}


class TlsConfig(Part):
    """How a TLS peer is checked, and what it is shown."""

    insecure_skip_verify: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    min_version: TlsVersion | None = None
    max_version: TlsVersion | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _leads_to_a_handshake(self) -> Self:
        check_handshake(TLS_VERSIONS.get(self.min_version or ""), TLS_VERSIONS.get(self.max_version or ""))
        if self.key_file and not self.cert_file and not self.cert:
            raise ValueError(KEY_ALONE)
        return self


class BasicAuth(Part):
    """A user and a password."""

    username: str = ""
    username_file: str | None = None
    password: str | None = Field(default=None, repr=False)
    password_file: str | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("write password or password_file, not both")
        return self


class Authorization(Strict):
    """The header of that name."""

    type: str = "Bearer"
    credentials: str | None = Field(default=None, repr=False)
    credentials_file: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.credentials is None) == (self.credentials_file is None):
            raise ValueError("write either credentials or credentials_file")
        if self.type.lower() == "basic":
            raise ValueError("type Basic is written as basic_auth")
        return self


class HeaderMatch(Strict):
    """What a header of the answer must, or must not, look like."""

    header: Annotated[str, Field(min_length=1)]
    regexp: Re2
    allow_missing: bool = False


class Choice(Part):
    """Which of a name's addresses is taken."""

    preferred_ip_protocol: Literal["ip4", "ip6"] = "ip6"
    ip_protocol_fallback: bool = True

    @field_validator("preferred_ip_protocol", mode="before")
    @classmethod
    def _default(cls, value: object) -> object:
        return value or "ip6"


class HttpModule(Choice):
    """The key ``http`` of a module."""

    valid_status_codes: tuple[int, ...] = ()  # none: 2xx
    accept_any_response: bool = False
    valid_http_versions: Texts = ()
    follow_redirects: bool = True
    no_follow_redirects: bool | None = None
    fail_if_ssl: bool = False
    fail_if_not_ssl: bool = False
    method: str = "GET"
    headers: Mapping[str, Annotated[str, AfterValidator(header_text)]] = {}
    body: str | None = None
    body_file: str | None = None
    fail_if_body_matches_regexp: Patterns = ()
    fail_if_body_not_matches_regexp: Patterns = ()
    fail_if_header_matches: tuple[HeaderMatch, ...] = ()
    fail_if_header_not_matches: tuple[HeaderMatch, ...] = ()
    fail_if_body_json_matches_cel: Any = None
    fail_if_body_json_not_matches_cel: Any = None
    body_size_limit: Size = 0
    compression: str = ""
    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    bearer_token: str | None = Field(default=None, repr=False)
    bearer_token_file: str | None = None
    oauth2: Any = None
    http_headers: Any = None
    tls_config: TlsConfig = TlsConfig()
    proxy_url: str | None = None
    proxy_from_environment: bool = False
    no_proxy: str | None = None
    proxy_connect_header: Any = None
    skip_resolve_phase_with_proxy: bool = False  # always so here: a proxy resolves names
    enable_http2: bool | None = None
    enable_http3: bool = False

    @model_validator(mode="after")
    def _one_way_each(self) -> Self:
        if self.body and self.body_file:
            raise ValueError("write body or body_file, not both")
        ways = ("basic_auth", "authorization", "bearer_token", "bearer_token_file")
        given = [way for way in ways if getattr(self, way)]
        if len(given) > 1:
            raise ValueError(f"write one of {' and '.join(given)}, not both")
        return self

    @property
    def follows(self) -> bool:
        """Whether redirects are followed."""
        return self.follow_redirects and not self.no_follow_redirects

    def obstacles(self) -> Iterator[str]:
        """Say what cannot be done, each with its key and its mend."""
        yield from super().obstacles()
        yield from (f"tls_config.{told}" for told in self.tls_config.obstacles())
        if self.basic_auth is not None:
            yield from (f"basic_auth.{told}" for told in self.basic_auth.obstacles())
        if self.compression not in ("", "gzip", "deflate", "identity"):
            yield f"compression: {self.compression} is not supported; write gzip or deflate, or leave it out"
        if self.valid_http_versions and _HTTP_1.isdisjoint(self.valid_http_versions):
            yield "valid_http_versions: only HTTP/1.0 and HTTP/1.1 are spoken here; name one of them too"
        if self.fail_if_ssl and self.fail_if_not_ssl:
            yield "fail_if_ssl: fails always together with fail_if_not_ssl; leave one of them out"

    def warnings(self) -> Iterator[str]:
        """Say what is done in another way than there."""
        if self.no_follow_redirects and "follow_redirects" in self.model_fields_set and self.follow_redirects:
            yield "follow_redirects: no_follow_redirects beats it"
        if self.enable_http2:
            yield "enable_http2: requests are made by HTTP/1.1"
        if set(self.valid_http_versions) - _HTTP_1:
            yield "valid_http_versions: requests are made by HTTP/1.1, so that other versions never come"
        if self.body_size_limit == 0 and "body_size_limit" in self.model_fields_set:
            yield "body_size_limit: 0 means the limit of the exporter here, not no limit"


class Exchange(Part):
    """One line of a talk over TCP."""

    expect: Re2 | None = None
    send: str | bytes | None = None
    starttls: bool = False
    labels: Any = None
    expect_bytes: Any = None

    def obstacles(self) -> Iterator[str]:
        """Say what cannot be done, each with its key and its mend."""
        yield from super().obstacles()
        if isinstance(self.send, bytes):
            yield "send: bytes are not supported; write text, or probe a database as a service"


class TcpModule(Choice):
    """The key ``tcp`` of a module."""

    source_ip_address: str | None = None
    query_response: tuple[Exchange, ...] = ()
    tls: bool = False
    tls_config: TlsConfig = TlsConfig()

    def obstacles(self) -> Iterator[str]:
        """Say what cannot be done, each with its key and its mend."""
        yield from super().obstacles()
        yield from (f"tls_config.{told}" for told in self.tls_config.obstacles())
        for index, step in enumerate(self.query_response):
            yield from (f"query_response[{index}].{told}" for told in step.obstacles())
        if self.tls and any(step.starttls for step in self.query_response):
            yield "tls: a connection begins TLS once; write tls or a step with starttls, not both"


class Records(Strict):
    """What one section of a DNS answer must, or must not, hold."""

    fail_if_matches_regexp: Patterns = ()
    fail_if_all_match_regexp: Patterns = ()
    fail_if_not_matches_regexp: Patterns = ()
    fail_if_none_matches_regexp: Patterns = ()


class DnsModule(Choice):
    """The key ``dns`` of a module."""

    query_name: Annotated[str, Field(min_length=1)]
    query_type: str = "ANY"
    query_class: str = "IN"
    recursion_desired: bool = True
    transport_protocol: Literal["udp", "tcp"] = "udp"
    dns_over_tls: bool = False
    tls_config: TlsConfig = TlsConfig()
    source_ip_address: str | None = None
    valid_rcodes: Texts = ()
    validate_answer_rrs: Records = Records()
    validate_authority_rrs: Records = Records()
    validate_additional_rrs: Records = Records()

    def obstacles(self) -> Iterator[str]:
        """Say what cannot be done, each with its key and its mend."""
        yield from super().obstacles()
        yield from (f"tls_config.{told}" for told in self.tls_config.obstacles())
        if self.dns_over_tls and self.transport_protocol != "tcp":
            yield "dns_over_tls: needs transport_protocol: tcp"


class GrpcModule(Choice):
    """The key ``grpc`` of a module."""

    service: str = ""
    tls: bool = False
    tls_config: TlsConfig = TlsConfig()
    metadata: Mapping[str, Texts] = {}


_ELSEWHERE = {
    "icmp": "icmp needs privileges that the exporter does not take; probe a TCP port (prober: tcp)",
    "unix": "prober unix is not supported; write the socket as a probe under services",
    "websocket": "prober websocket is not supported; probe its port by tcp or its page by http",
}


class Module(Strict):
    """How targets are asked."""

    prober: Literal["http", "tcp", "dns", "grpc", "icmp", "unix", "websocket"]
    timeout: Duration | None = None
    http: HttpModule = HttpModule()
    tcp: TcpModule = TcpModule()
    dns: DnsModule | None = None
    grpc: GrpcModule = GrpcModule()
    icmp: Any = None
    unix: Any = None
    websocket: Any = None
    _untranslatable: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        if self.prober == "dns" and self.dns is None:
            raise ValueError("dns.query_name is missing")
        return self

    @property
    def part(self) -> Choice | None:
        """The section of its prober, if that is one of ours."""
        parts = {"http": self.http, "tcp": self.tcp, "dns": self.dns, "grpc": self.grpc}
        return parts.get(self.prober)

    def cannot_because(self, told: str) -> None:
        """Note why no probe of ours can do what the module wants."""
        self._untranslatable = told

    def obstacles(self) -> list[str]:
        """Say why the module cannot be used, each with its key and its mend; nothing when it can."""
        if self.prober in _ELSEWHERE:
            return [_ELSEWHERE[self.prober]]
        found = [f"{self.prober}.{told}" for told in self.part.obstacles()] if self.part else []
        return sorted(found) or ([f"{self.prober}: {self._untranslatable}"] if self._untranslatable else [])

    def warnings(self) -> Iterator[str]:
        """Say what cannot be used, is not used, or is done in another way."""
        yield from (f"cannot be used: {told}" for told in self.obstacles())
        unused = self.model_fields_set - {"prober", "timeout", self.prober}
        yield from (f"{key} is not used by prober {self.prober}" for key in sorted(unused))
        if self.prober == "http":
            yield from (f"http.{warning}" for warning in self.http.warnings())
