"""Modules of a blackbox.yml: what is taken as it stands, and a mistake for each thing that is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds.dns import DnsProbe
from exporter.kinds.grpc import GrpcProbe
from exporter.kinds.http import HttpProbe
from exporter.kinds.tcp import TcpProbe
from exporter.loading import load_config
from exporter.translation import ModulesFile, TargetError, probe_of, read_module

Load = Callable[..., WatchConfig]
TOKEN = "token-" + "abc-1"
NO_HANDSHAKE = "no handshake could succeed"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(modules: str, config: str = "exporter: {modules_file: blackbox.yml}") -> WatchConfig:
        (tmp_path / "blackbox.yml").write_text(modules)
        (tmp_path / "soulfra.yml").write_text(config)
        return load_config(tmp_path / "soulfra.yml", WatchConfig, {})

    return read


def mistakes(load: Load, modules: str, config: str = "exporter: {modules_file: blackbox.yml}") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(modules, config)
    return [f"{Path(m.file).name}:{m.line}: {m.place}: {m.message}" for m in caught.value.mistakes]


def one(prober: str, keys: str = "") -> str:
    return f"modules:\n  m:\n    prober: {prober}\n" + (f"    {prober}: {{{keys}}}\n" if keys else "")


CEL = (
    "CEL is not supported; write the check as expect.json of a probe under services, "
    "or as a regular expression"
)


@pytest.mark.parametrize(
    ("modules", "mistake"),
    [
        ("modules: []", "blackbox.yml:1: modules: must be a mapping, as in KEY: VALUE"),
        ("module: {}", "blackbox.yml:1: module: unknown key"),
        ("modules: {m: {}}", "blackbox.yml:1: modules.m.prober: is missing"),
        (
            one("smtp"),
            (
                "blackbox.yml:3: modules.m.prober: "
                "must be 'http', 'tcp', 'dns', 'grpc', 'icmp', 'unix' or 'websocket'"
            ),
        ),
        (
            "modules: {m: {prober: http, timeout: 5}}",
            (
                "blackbox.yml:1: modules.m.timeout: "
                "a duration is written with its unit, for example 500ms, 5s or 1m30s"
            ),
        ),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_a_mistake(load: Load, modules: str, mistake: str) -> None:
    assert mistakes(load, modules) == [mistake]


@pytest.mark.parametrize(
    ("prober", "keys", "mistake"),
    [
        ("http", "valid_status: [200]", ".http.valid_status: unknown key"),
        ("http", "body: a, body_file: b", ".http: write body or body_file, not both"),
        (
            "http",
            "bearer_token: a, basic_auth: {username: b}",
            ".http: write one of basic_auth and bearer_token, not both",
        ),
        (
            "http",
            "fail_if_body_matches_regexp: ['(']",
            (".http.fail_if_body_matches_regexp[0]: '(' is not a regular expression of RE2: missing ): ("),
        ),
        (
            "http",
            "fail_if_header_matches: [{header: A}]",
            ".http.fail_if_header_matches[0].regexp: is missing",
        ),
        ("http", "preferred_ip_protocol: ip5", ".http.preferred_ip_protocol: must be 'ip4' or 'ip6'"),
        (
            "http",
            "body_size_limit: big",
            ".http.body_size_limit: 'big' is not a size; write for example 512KB or 10MB",
        ),
        (
            "http",
            "authorization: {type: Basic, credentials: a}",
            ".http.authorization: type Basic is written as basic_auth",
        ),
        (
            "http",
            "authorization: {type: Key}",
            ".http.authorization: write either credentials or credentials_file",
        ),
        (
            "http",
            "basic_auth: {username: a, password: b, password_file: c}",
            ".http.basic_auth: write password or password_file, not both",
        ),
        (
            "http",
            "tls_config: {min_version: TLS13, max_version: TLS10}",
            f".http.tls_config: max_version 1.0 is below min_version, which is 1.3: {NO_HANDSHAKE}",
        ),
        (
            "tcp",
            "tls_config: {key_file: a.key}",
            ".tcp.tls_config: key_file needs cert_file, the certificate that goes with it",
        ),
        (
            "http",
            "tls_config: {min_version: SSL30}",
            ".http.tls_config.min_version: must be 'TLS10', 'TLS11', 'TLS12' or 'TLS13'",
        ),
        ("dns", "", ": dns.query_name is missing"),
    ],
)
def test_what_blackbox_exporter_refuses_is_a_mistake_here_too(
    load: Load, prober: str, keys: str, mistake: str
) -> None:
    line = 4 if mistake.startswith(f".{prober}") else 3

    assert mistakes(load, one(prober, keys)) == [f"blackbox.yml:{line}: modules.m{mistake}"]


@pytest.mark.parametrize(
    ("prober", "keys", "obstacle"),
    [
        (
            "http",
            "fail_if_body_json_matches_cel: 'body.x'",
            f"http.fail_if_body_json_matches_cel: {CEL} in fail_if_body_matches_regexp",
        ),
        (
            "http",
            "fail_if_body_json_not_matches_cel: 'body.x'",
            f"http.fail_if_body_json_not_matches_cel: {CEL} in fail_if_body_not_matches_regexp",
        ),
        (
            "http",
            "oauth2: {client_id: a}",
            (
                "http.oauth2: is not supported; let a job write the token into a file for "
                "authorization.credentials_file"
            ),
        ),
        ("http", "http_headers: {A: {values: [b]}}", "http.http_headers: is not supported; write headers"),
        ("http", "enable_http3: true", "http.enable_http3: HTTP/3 is not supported; leave it out"),
        (
            "http",
            "proxy_from_environment: true",
            "http.proxy_from_environment: is not supported; write proxy_url",
        ),
        (
            "http",
            "no_proxy: a.example",
            "http.no_proxy: is not supported; write a second module without proxy_url",
        ),
        (
            "http",
            "proxy_connect_header: {A: [b]}",
            ("http.proxy_connect_header: is not supported; write the user and the password into proxy_url"),
        ),
        (
            "http",
            "compression: br",
            "http.compression: br is not supported; write gzip or deflate, or leave it out",
        ),
        (
            "http",
            "valid_http_versions: [HTTP/2.0]",
            ("http.valid_http_versions: only HTTP/1.0 and HTTP/1.1 are spoken here; name one of them too"),
        ),
        (
            "http",
            "fail_if_ssl: true, fail_if_not_ssl: true",
            "http.fail_if_ssl: fails always together with fail_if_not_ssl; leave one of them out",
        ),
        (
            "http",
            "basic_auth: {username_file: a}",
            "http.basic_auth.username_file: is not supported; write username",
        ),
        (
            "http",
            "tls_config: {ca: PEM}",
            "http.tls_config.ca: is not supported; put it into a file and write ca_file",
        ),
        (
            "http",
            "proxy_url: 'https://proxy.example:3128'",
            (
                "http: must be http://HOST:PORT: a proxy is spoken to without TLS, what goes "
                "through may use it"
            ),
        ),
        (
            "http",
            "method: BREW",
            "http: must be 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE' or 'OPTIONS'",
        ),
        (
            "tcp",
            "source_ip_address: 10.0.0.1",
            ("tcp.source_ip_address: is not supported: the route to the target decides; leave it out"),
        ),
        (
            "tcp",
            "query_response: [{expect: a, labels: [{name: b, value: c}]}]",
            "tcp.query_response[0].labels: probe_expect_info is not supported; leave labels out",
        ),
        (
            "tcp",
            "query_response: [{expect_bytes: a}]",
            "tcp.query_response[0].expect_bytes: is not supported; write expect",
        ),
        (
            "tcp",
            "tls: true, query_response: [{starttls: true}]",
            "tcp.tls: a connection begins TLS once; write tls or a step with starttls, not both",
        ),
        (
            "dns",
            "query_name: a.example, source_ip_address: 10.0.0.1",
            ("dns.source_ip_address: is not supported: the route to the target decides; leave it out"),
        ),
        (
            "dns",
            "query_name: a.example, dns_over_tls: true",
            "dns.dns_over_tls: needs transport_protocol: tcp",
        ),
        (
            "dns",
            "query_name: 'a b'",
            "dns: must be a name of DNS, for example www.example.org; write others as xn--...",
        ),
        ("icmp", "", "icmp needs privileges that the exporter does not take; probe a TCP port (prober: tcp)"),
        ("unix", "", "prober unix is not supported; write the socket as a probe under services"),
        ("websocket", "", "prober websocket is not supported; probe its port by tcp or its page by http"),
        (
            "http",
            "fail_if_body_not_matches_regexp: [a], method: HEAD",
            "http: an answer to HEAD has no body to expect something of; use GET",
        ),
        (
            "tcp",
            "query_response: [{send: !!binary AAE=}]",
            (
                "tcp.query_response[0].send: bytes are not supported; write text, or probe a "
                "database as a service"
            ),
        ),
        (
            "tcp",
            "tls_config: {cert: PEM}",
            "tcp.tls_config.cert: is not supported; put it into a file and write cert_file",
        ),
    ],
)
def test_what_cannot_be_done_here_is_a_warning_with_its_mend(
    load: Load, prober: str, keys: str, obstacle: str
) -> None:
    """The rest of the file is taken: nearly every blackbox.yml has a module icmp."""
    config = load(one(prober, keys) + "  other: {prober: http}\n")

    assert config.exporter.modules["m"].obstacles() == obstacle.split("; " + prober + ".")
    assert f"exporter.modules.m: cannot be used: {obstacle}" in config.warnings()
    assert config.exporter.modules["other"].obstacles() == []


def test_all_mistakes_of_both_files_are_told_at_once(load: Load) -> None:
    found = mistakes(
        load,
        "modules:\n  a: {prober: smtp}\n  b: {prober: http, http: {x: 1}}\n",
        "exporter:\n  modules_file: blackbox.yml\n  interval: 5\n",
    )

    assert [line.split(": ")[:2] for line in found] == [
        ["blackbox.yml:2", "modules.a.prober"],
        ["soulfra.yml:3", "exporter.interval"],
        ["blackbox.yml:3", "modules.b.http.x"],
    ]


def test_a_modules_file_that_is_not_there_is_a_mistake(load: Load) -> None:
    assert mistakes(load, "", "exporter: {modules_file: nothing.yml}") == [
        "nothing.yml:None: : cannot be read: No such file or directory"
    ]


def test_a_module_in_both_places_is_a_mistake(load: Load) -> None:
    config = "exporter: {modules_file: blackbox.yml, modules: {m: {prober: tcp}}}"

    assert mistakes(load, one("http"), config) == [
        "blackbox.yml:3: modules.m: stands in exporter.modules too"
    ]


def test_modules_in_place_stand_beside_those_of_the_file(load: Load) -> None:
    config = load(one("http"), "exporter: {modules_file: blackbox.yml, modules: {n: {prober: tcp}}}")

    assert {name: module.prober for name, module in config.exporter.modules.items()} == {
        "m": "http",
        "n": "tcp",
    }


def test_a_mistake_of_a_module_in_place_names_its_line(load: Load) -> None:
    config = "exporter:\n  modules:\n    m:\n      prober: tcp\n      tcp: {tsl: true}\n"

    assert mistakes(load, "", config) == ["soulfra.yml:5: exporter.modules.m.tcp.tsl: unknown key"]


def test_an_entry_of_the_allow_list_that_cannot_be_read_is_a_mistake(load: Load) -> None:
    [mistake] = mistakes(load, "", "exporter: {allow_targets: [10.0.0.0/8, 1.2.3]}")

    assert mistake.startswith("soulfra.yml:1: exporter.allow_targets[1]: '1.2.3' cannot be allowed; write")


def test_what_changes_no_verdict_is_a_warning(load: Load) -> None:
    config = load(
        """
modules:
  m:
    prober: http
    http: {follow_redirects: true, no_follow_redirects: true, enable_http2: true,
           valid_http_versions: [HTTP/1.1, HTTP/2.0], body_size_limit: 0}
    tcp: {tls: true}
"""
    )

    assert config.warnings() == [
        "exporter.modules.m: tcp is not used by prober http",
        "exporter.modules.m: http.follow_redirects: no_follow_redirects beats it",
        "exporter.modules.m: http.enable_http2: requests are made by HTTP/1.1",
        (
            "exporter.modules.m: http.valid_http_versions: requests are made by HTTP/1.1, "
            "so that other versions never come"
        ),
        "exporter.modules.m: http.body_size_limit: 0 means the limit of the exporter here, not no limit",
    ]


def test_a_proxy_beside_allowed_targets_is_a_warning(load: Load) -> None:
    module = "modules: {m: {prober: http, http: {proxy_url: 'http://127.0.0.1:3128'}}}"
    config = "exporter: {modules_file: blackbox.yml, allow_targets: ['*']}"

    assert load(module).warnings() == []
    [warning] = load(module, config).warnings()
    assert warning.startswith("exporter.modules.m: http.proxy_url: the proxy resolves names")


def probe(target: str, hostname: str = "", **module: Any) -> Any:
    return probe_of(read_module(module), target, hostname)


def test_a_bare_http_module_asks_as_blackbox_exporter_does() -> None:
    made = probe("shop.example:8080/health", prober="http")

    assert isinstance(made, HttpProbe)
    assert made.http == "http://shop.example:8080/health"
    assert (made.method, made.redirects, made.ip_version, made.ip_fallback) == ("GET", 10, 6, True)
    assert made.expect.status == ("2xx",)
    assert made.tls.verify


def test_every_key_of_http_arrives() -> None:
    made = probe(
        "https://shop.example/",
        prober="http",
        http={
            "valid_status_codes": [200, 404],
            "method": "POST",
            "body": "ping",
            "headers": {"X-A": "b"},
            "follow_redirects": False,
            "fail_if_not_ssl": True,
            "fail_if_body_matches_regexp": ["bad"],
            "fail_if_body_not_matches_regexp": ["good"],
            "fail_if_header_matches": [{"header": "X-B", "regexp": "b", "allow_missing": True}],
            "fail_if_header_not_matches": [{"header": "X-C", "regexp": "c"}],
            "body_size_limit": "10KB",
            "compression": "gzip",
            "authorization": {"type": "Key", "credentials": TOKEN},
            "proxy_url": "http://proxy.example:3128",
            "preferred_ip_protocol": "ip4",
            "ip_protocol_fallback": False,
            "tls_config": {"insecure_skip_verify": True, "server_name": "x.example", "min_version": "TLS13"},
        },
    )

    assert made.expect.status == (200, 404)
    assert (made.method, made.body, dict(made.headers), made.redirects) == ("POST", "ping", {"X-A": "b"}, 0)
    assert (made.expect.body, made.expect.body_not, made.expect.secure) == (("good",), ("bad",), True)
    assert made.expect.headers["X-C"][0].optional is False
    assert made.expect.headers_not["X-B"][0].optional is True
    assert (made.body_limit, made.compression, made.ip_version, made.ip_fallback) == (10240, "gzip", 4, False)
    assert (made.bearer.scheme, made.bearer.token.get_secret_value()) == ("Key", TOKEN)
    assert made.proxy == "http://proxy.example:3128"
    assert (made.tls.verify, made.tls.server_name, made.tls.min_version) == (False, "x.example", "1.3")


def test_the_name_in_the_host_header_is_the_one_that_the_certificate_must_have() -> None:
    assert probe(
        "https://10.0.0.1/", prober="http", http={"headers": {"host": "x.example:8443"}}
    ).tls.server_name == ("x.example")
    assert probe("https://10.0.0.1/", "y.example", prober="http").tls.server_name == "y.example"
    assert probe("10.0.0.1:443", "y.example", prober="tcp", tcp={"tls": True}).tls.server_name == "y.example"


def test_two_names_for_a_peer_are_refused() -> None:
    with pytest.raises(TargetError, match=r"Host to 'a\.example' and the parameter hostname to 'b\.example'"):
        probe("https://10.0.0.1/", "b.example", prober="http", http={"headers": {"Host": "a.example"}})


def test_tcp_dns_and_grpc_arrive() -> None:
    steps = [{"expect": "^220"}, {"send": ""}, {"starttls": True}]
    tcp = probe("[::1]:25", prober="tcp", tcp={"query_response": steps})
    dns = probe("192.0.2.53", prober="dns", dns={"query_name": "a.example", "query_type": "MX"})
    over_tls = {"query_name": "a.example", "dns_over_tls": True, "transport_protocol": "tcp"}
    grpc = probe("a.example:443", prober="grpc", grpc={"service": "shop", "tls": True})

    assert isinstance(tcp, TcpProbe)
    assert [(step.expect, step.starttls) for step in tcp.exchange] == [("^220", False), (None, True)]
    assert tcp.tls is not None
    assert isinstance(dns, DnsProbe)
    assert (dns.address(), dns.query, dns.type) == (("192.0.2.53", 53), "a.example", "MX")
    assert probe("192.0.2.53", prober="dns", dns=over_tls).address() == ("192.0.2.53", 853)
    assert isinstance(grpc, GrpcProbe)
    assert (grpc.service, grpc.tls is not None) == ("shop", True)


@pytest.mark.parametrize(
    ("prober", "target"),
    [("http", "http://"), ("http", "http://a b/"), ("tcp", "no-port"), ("tcp", "a:99999"), ("grpc", "x")],
)
def test_a_target_that_is_none_is_told_apart_from_a_module_that_is_wrong(prober: str, target: str) -> None:
    with pytest.raises(TargetError, match="cannot be a target of prober"):
        probe(target, prober=prober)


def test_secrets_of_modules_stay_out_of_their_text() -> None:
    secret = "pass" + "word-1"
    http = {"basic_auth": {"username": "ann", "password": secret}}
    tokens = {"bearer_token": TOKEN}

    assert secret not in repr(read_module({"prober": "http", "http": http}))
    assert TOKEN not in repr(read_module({"prober": "http", "http": tokens}))
    assert secret not in repr(probe("a.example", prober="http", http=http))


def test_the_file_that_blackbox_exporter_comes_with_is_taken(binary: Callable[[str], str]) -> None:
    binary("prometheus-blackbox-exporter")
    shipped = Path("/etc/prometheus/blackbox.yml")
    if not shipped.exists():
        pytest.skip("blackbox_exporter was installed without its configuration")
    modules = ModulesFile.model_validate(yaml.safe_load(shipped.read_text())).modules

    usable = {name for name, module in modules.items() if not module.obstacles()}
    assert {"http_2xx", "http_post_2xx", "tcp_connect", "ssh_banner", "irc_banner", "pop3s_banner"} <= usable
    assert "icmp" not in usable


@given(
    st.sampled_from(["http", "tcp", "dns", "grpc"]),
    st.text(max_size=60) | st.from_regex(r"(https?://)?[\[\]a-z0-9.:@%/?#-]{1,40}", fullmatch=True),
)
@example("http", "http://[::1")
@example("http", "http://[fe80::1%25eth0]/")
@example("http", "http://xn--/")
@example("http", "http://a:99999/")
@example("http", "http://\u2100.example/")
@example("dns", "[::1]:53")
@example("tcp", "[::1%lo]:1")
def test_any_target_is_a_probe_or_told_why_not(prober: str, target: str) -> None:
    keys: dict[str, Any] = {"dns": {"query_name": "shop.example"}} if prober == "dns" else {}
    try:
        made = probe(target, prober=prober, **keys)
    except TargetError:
        return
    host, port = made.address()
    assert host
    assert 0 < port < 65536
