"""The configuration of tcp, unix, dns, grpc, postgres and mysql: every rule with a probe that breaks it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds import IpChoice, grpc, model_of, read_probe, sql
from exporter.kinds.dns import DnsProbe
from exporter.kinds.steps import StepsProbe
from exporter.loading import load_config

PROBE = "services.a.probes[0]"
Mistakes = Callable[[str], list[str]]


@pytest.fixture
def mistakes(tmp_path: Path) -> Mistakes:
    """Return the mistakes of a configuration with one probe as ``PLACE: MESSAGE``."""

    def read(probe: str) -> list[str]:
        file = tmp_path / "soulfra.yml"
        file.write_text(f"services: {{a: {{probes: [{probe}]}}}}")
        with pytest.raises(ConfigError) as caught:
            load_config(file, WatchConfig, {})
        return [f"{found.place}: {found.message}" for found in caught.value.mistakes]

    return read


STEP = "a step needs expect, send or starttls"
SERVER = "must be a server, for example 192.0.2.53, ::1 or ns1.example.org:5353"
LOOKAHEAD = "'(?=x)' is not a regular expression of RE2: invalid perl operator: (?="
NAME = "must be a name of DNS, for example www.example.org; write others as xn--..."
FALLBACK = "ip_fallback needs ip_version: the version that is preferred"
METADATA = (
    "a key of metadata has lower-case letters, digits, '_', '.' and '-', and is not grpc-... or ...-bin"
)
SQL_URL = "must be an address such as postgresql://user@db.example.org/name, without options after it"
ONCE = "give the password once: in the address, as password or as password_file"


@pytest.mark.parametrize(
    ("probe", "mistake"),
    [
        ("{tcp: 'a:1', exchange: [{}]}", f"{PROBE}.exchange[0]: {STEP}"),
        ("{tcp: 'a:1', exchange: [{expct: x}]}", f"{PROBE}.exchange[0].expct: unknown key"),
        (
            "{tcp: 'a:1', exchange: [{expect: '(?=x)'}]}",
            f"{PROBE}.exchange[0].expect: {LOOKAHEAD}",
        ),
        (
            "{tcp: 'a:1', exchange: [{starttls: true}, {starttls: true}]}",
            f"{PROBE}.exchange: starttls can stand in one step only: a connection begins TLS once",
        ),
        ("{tcp: 'a:1', ip_fallback: true}", f"{PROBE}: {FALLBACK}"),
        (
            "{tcp: 'a:1', tls: {min_version: '1.3', max_version: '1.2'}}",
            f"{PROBE}.tls: max_version 1.2 is below min_version, which is 1.3: no handshake could succeed",
        ),
        (
            "{http: 'https://a', tls: {max_version: '1.1'}}",
            (
                f"{PROBE}.tls: max_version 1.1 is below min_version, which is 1.2 where none is given:"
                " no handshake could succeed"
            ),
        ),
        (
            "{redis: 'rediss://a', tls: {key_file: a.key}}",
            f"{PROBE}.tls: key_file needs cert_file, the certificate that goes with it",
        ),
        ("{tcp: 'a:1', ip_version: 5}", f"{PROBE}.ip_version: must be 4 or 6"),
        (
            "{unix: app.sock}",
            f"{PROBE}.unix: must be the absolute path of a socket file, for example /run/app.sock",
        ),
        (
            "{unix: /" + "x" * 107 + "}",
            f"{PROBE}.unix: a path of a socket has 107 bytes at most; move the socket or link to it",
        ),
        (
            "{unix: /a.sock, tls: {}}",
            f"{PROBE}: tls needs a step with starttls: a socket file is not spoken to by TLS at once",
        ),
        (
            "{unix: /a.sock, tls: {}, exchange: [{starttls: true}]}",
            f"{PROBE}: starttls needs tls: {{server_name: NAME}}, the name in the certificate",
        ),
        (
            "{unix: /a.sock, exchange: [{starttls: true}, {starttls: true}], tls: {verify: false}}",
            f"{PROBE}.exchange: starttls can stand in one step only: a connection begins TLS once",
        ),
        ("{dns: 'a b', query: x}", f"{PROBE}.dns: {SERVER}"),
        ("{dns: 'a:0', query: x}", f"{PROBE}.dns: must be HOST:PORT, for example 127.0.0.1:9877"),
        ("{dns: a}", f"{PROBE}.query: is missing"),
        ("{dns: a, query: 'ä.example'}", f"{PROBE}.query: {NAME}"),
        ("{dns: a, query: 'a..b'}", f"{PROBE}.query: {NAME}"),
        ("{dns: a, query: x, tls: {}}", f"{PROBE}: tls needs protocol: tls"),
        ("{dns: a, query: x, ip_fallback: true}", f"{PROBE}: {FALLBACK}"),
        (
            "{dns: a, query: x, expect: {answer: '['}}",
            f"{PROBE}.expect.answer.contains[0]: '[' is not a regular expression of RE2: missing ]: [",
        ),
        (
            "{dns: a, query: x, expect: {answer: {at_least: -1}}}",
            f"{PROBE}.expect.answer.at_least: must be at least 0",
        ),
        ("{grpc: a}", f"{PROBE}.grpc: must be HOST:PORT, for example 127.0.0.1:9877"),
        ("{grpc: 'a:1', metadata: {X-Tenant: a}}", f"{PROBE}.metadata.X-Tenant: {METADATA}"),
        ("{grpc: 'a:1', metadata: {a-bin: a}}", f"{PROBE}.metadata.a-bin: {METADATA}"),
        ("{grpc: 'a:1', metadata: {a: ä}}", f"{PROBE}.metadata.a[0]: a value of metadata is ASCII"),
        (
            "{grpc: 'a:1', tls: {verify: false}}",
            f"{PROBE}: grpc always verifies TLS; write tls: {{ca_file: FILE, server_name: NAME}}",
        ),
        (
            "{grpc: 'a:1', tls: {min_version: '1.3'}}",
            f"{PROBE}: grpc speaks TLS 1.2 and later; leave min_version and max_version out",
        ),
        ("{grpc: 'a:1', ip_fallback: true}", f"{PROBE}: {FALLBACK}"),
        ("{postgres: 'mysql://a@b/c'}", f"{PROBE}.postgres: {SQL_URL}"),
        ("{postgres: 'postgresql://a@b/c?sslmode=require'}", f"{PROBE}.postgres: {SQL_URL}"),
        (
            "{mysql: 'mysql://a@b:0/c'}",
            f"{PROBE}.mysql: the port of the address must be 1 to 65535",
        ),
        ("{postgres: 'postgresql://a:b@c/d', password: e}", f"{PROBE}: {ONCE}"),
        ("{mysql: 'mysql://a@c/d', password: e, password_file: f}", f"{PROBE}: {ONCE}"),
        (
            "{postgres: 'postgresql://a@b/c', username: d}",
            f"{PROBE}: give the user once: in the address or as username",
        ),
        (
            "{postgres: 'postgresql://b/c'}",
            f"{PROBE}: a user is missing: write it into the address, user@HOST, or as username",
        ),
        (
            "{postgres: 'postgresql://a@/c'}",
            f"{PROBE}: write the host in the address, or leave it out and write socket: PATH",
        ),
        (
            "{mysql: 'mysql://a@b/c', socket: /my.sock}",
            f"{PROBE}: write the host in the address, or leave it out and write socket: PATH",
        ),
        (
            "{mysql: 'mysql://a@/c', socket: /my.sock, tls: {}}",
            f"{PROBE}: tls is for hosts; a socket file is not spoken to by TLS",
        ),
        ("{mysql: 'mysql://a@b/c', role: primary}", f"{PROBE}.role: unknown key"),
        (
            "{mysql: 'mysql://a@b/c', expect: {rows: {}}}",
            f"{PROBE}.expect.rows: write at_least, at_most or both",
        ),
        (
            "{mysql: 'mysql://a@b/c', expect: {rows: {at_least: 2, at_most: 1}}}",
            f"{PROBE}.expect.rows: at_least is more than at_most, so that nothing fits",
        ),
    ],
)
def test_a_rule_that_is_broken_is_told_with_its_place_and_mend(
    mistakes: Mistakes, probe: str, mistake: str
) -> None:
    assert mistakes(probe) == [mistake]


@pytest.mark.parametrize(
    ("probe", "mistake"),
    [
        (
            "{postgres: 'postgresql://a@b/c'}",
            "asyncpg is not installed; pip install 'soulfra-monitor[postgres]'",
        ),
        ("{mysql: 'mysql://a@b/c'}", "aiomysql is not installed; pip install 'soulfra-monitor[mysql]'"),
        ("{grpc: 'a:1'}", "grpcio is not installed; pip install 'soulfra-monitor[grpc]'"),
    ],
)
def test_a_library_that_is_missing_is_told_with_its_mend(
    mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch, probe: str, mistake: str
) -> None:
    monkeypatch.setattr(sql, "find_spec", lambda _name: None)
    monkeypatch.setattr(grpc, "find_spec", lambda _name: None)

    assert mistakes(probe) == [f"{PROBE}: {mistake}"]


@pytest.mark.parametrize(
    ("server", "protocol", "address"),
    [
        ("192.0.2.53", "udp", ("192.0.2.53", 53)),
        ("192.0.2.53", "tls", ("192.0.2.53", 853)),
        ("ns1.example.org:5353", "tcp", ("ns1.example.org", 5353)),
        ("2001:db8::53", "udp", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", "udp", ("2001:db8::53", 5353)),
    ],
)
def test_a_name_server_has_the_port_of_its_protocol(
    server: str, protocol: str, address: tuple[str, int]
) -> None:
    config = DnsProbe.model_validate({"dns": server, "query": "example.org", "protocol": protocol})

    assert config.address() == address


@pytest.mark.parametrize(
    ("query", "kind", "asked"),
    [
        ("192.0.2.1", "PTR", "1.2.0.192.in-addr.arpa"),
        ("1.2.0.192.in-addr.arpa.", "PTR", "1.2.0.192.in-addr.arpa."),
        ("192.0.2.1", "A", "192.0.2.1"),
        (".", "NS", "."),
    ],
)
def test_an_address_is_asked_for_by_its_reverse_name(query: str, kind: str, asked: str) -> None:
    assert DnsProbe.model_validate({"dns": "a", "query": query, "type": kind}).question() == asked


def test_a_password_does_not_show_in_a_configuration() -> None:
    secret = "open" + "sesame"
    shown = [
        repr(model_of("postgres").model_validate({"postgres": f"postgresql://a:{secret}@b/c"})),
        repr(model_of("mysql").model_validate({"mysql": "mysql://a@b/c", "password": secret})),
        repr(model_of("grpc").model_validate({"grpc": "a:1", "metadata": {"authorization": secret}})),
    ]

    assert secret not in repr(shown)


@pytest.mark.parametrize(
    "probe",
    [
        {"http": "http://a"},
        {"steps": [{"http": "http://a"}]},
        {"tcp": "a:1"},
        {"dns": "a", "query": "b"},
        {"grpc": "a:1"},
    ],
)
def test_a_preferred_ip_version_falls_back_in_every_kind_unless_told_not_to(probe: dict[str, Any]) -> None:
    given = read_probe(probe)
    [choice] = given.steps if isinstance(given, StepsProbe) else [given]

    assert isinstance(choice, IpChoice)
    assert choice.ip_fallback


@pytest.mark.parametrize("kind", ["postgres", "mysql", "redis"])
def test_who_logs_in_has_the_same_key_in_every_kind(kind: str) -> None:
    address = {"postgres": "postgresql://a/b", "mysql": "mysql://a/b", "redis": "redis://a"}[kind]

    read_probe({kind: address, "username": "watcher", "password": "pass" + "-word-1"})
    with pytest.raises(ValueError, match="user"):
        read_probe({kind: address, "user": "watcher", "password": "pass" + "-word-1"})
