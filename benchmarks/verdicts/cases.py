"""The table: what a server does, how it is asked, and what blackbox_exporter makes of it.

Modules and targets are templates: ``{web}`` is the port of the server of that name, ``{ca}`` a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.verdicts.servers import PASSWORD, TOKEN, USER

NEEDED, UNWANTED = "fail_if_body_not_matches_regexp", "fail_if_body_matches_regexp"
SAID = {"method": "POST", "body": "ping"}
Keys = Mapping[str, Any]
EXPIRY, CHAIN = "probe_ssl_earliest_cert_expiry", "probe_ssl_last_chain_expiry_timestamp_seconds"
_TOLD = "ours tells the expiry of a certificate also when the handshake or the request fails"
SEEN = {EXPIRY: _TOLD}
SEEN_WHOLE = {EXPIRY: _TOLD, CHAIN: _TOLD}
NO_CHAIN = {CHAIN: "ours has no value where no chain was verified; there it is the year 1"}
UNREAD = {
    "probe_http_uncompressed_body_length": (
        "ours does not begin to read a body that is too long by its header"
    )
}
HUNG_UP = {"probe_failed_due_to_regex": "ours says reset where a peer hangs up, and not regex"}
COUNTED = {"probe_http_redirects": "ours counts no redirect to where nobody answers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row."""

    name: str
    server: str  # what it does, for people
    module: Keys
    target: str
    success: bool  # what blackbox_exporter says
    ours: bool | None = None  # what we say where that is deliberately different
    why: str = ""  # the reason of the difference
    regex: bool = False  # whether it failed by a regular expression
    since: tuple[int, int] = (0, 23)  # the first version of blackbox_exporter that takes the module
    hostname: str = ""
    different: Mapping[str, str] = field(
        default_factory=dict
    )  # series with another value, each with the reason
    chance: frozenset[str] = frozenset()  # series whose value the clock decides


def http(name: str, server: str, path: str, success: bool, keys: Keys | None = None, **more: Any) -> Case:
    """Ask a path of the plain server, or a whole address."""
    target = path if "://" in path or not path.startswith("/") else f"http://127.0.0.1:{{web}}{path}"
    timeout = more.pop("timeout", "2s")
    module = {"prober": "http", "timeout": timeout, "http": {"preferred_ip_protocol": "ip4", **(keys or {})}}
    return Case(name=name, server=server, module=module, target=target, success=success, **more)


def https(name: str, server: str, port: str, success: bool, keys: Keys | None = None, **more: Any) -> Case:
    """Ask a TLS server; its certificate is from our authority if nothing else is said."""
    tls = {"ca_file": "{ca}", **(keys or {}).get("tls_config", {})}
    path = more.pop("path", "/ok")
    host = more.pop("host", "127.0.0.1")
    all_keys = {**(keys or {}), "tls_config": tls}
    return http(name, server, f"https://{host}:{{{port}}}{path}", success, all_keys, **more)


def tcp(name: str, server: str, port: str, success: bool, keys: Keys | None = None, **more: Any) -> Case:
    """Talk to a port."""
    timeout = more.pop("timeout", "2s")
    host = more.pop("host", "127.0.0.1")
    module = {"prober": "tcp", "timeout": timeout, "tcp": {"preferred_ip_protocol": "ip4", **(keys or {})}}
    target = f"{host}:{{{port}}}"
    return Case(name=name, server=server, module=module, target=target, success=success, **more)


def dns(name: str, server: str, success: bool, keys: Keys, **more: Any) -> Case:
    """Ask the name server."""
    asked = {"preferred_ip_protocol": "ip4", **keys}
    module = {"prober": "dns", "timeout": "2s", "dns": asked}
    target = more.pop("target", "127.0.0.1:{dns}")
    return Case(name=name, server=server, module=module, target=target, success=success, **more)


def grpc(name: str, server: str, success: bool, keys: Keys, **more: Any) -> Case:
    """Ask for the health of a gRPC service."""
    module = {"prober": "grpc", "timeout": "2s", "grpc": {"preferred_ip_protocol": "ip4", **keys}}
    target = f"127.0.0.1:{{{more.pop('port', 'grpc')}}}"
    return Case(name=name, server=server, module=module, target=target, success=success, **more)


_STATUS = (
    http("status 200", "200", "/ok", True),
    http("status 201", "201", "/status/201", True),
    http("status 204", "204 without a body", "/204", True),
    http("status 299", "299", "/status/299", True),
    http("status 304", "304 without a body", "/304", False),
    http("status 404", "404", "/status/404", False),
    http("status 500", "500", "/status/500", False),
    http("status 503", "503", "/status/503", False),
    http("status wanted 503", "503", "/status/503", True, {"valid_status_codes": [503]}),
    http("status in a list", "404", "/status/404", True, {"valid_status_codes": [200, 404]}),
    http("status not in a list", "200", "/ok", False, {"valid_status_codes": [201, 404]}),
    http("no scheme in the target", "200", "127.0.0.1:{web}/ok", True),
    http("early hints before the answer", "103, then 200", "/hints", True),
    http("continue before the answer", "100, then 200", "/continue", True),
    http("version HTTP/1.0", "answers by HTTP/1.0", "/http10", True),
    http("version wanted", "200 by 1.1", "/ok", True, {"valid_http_versions": ["HTTP/1.1", "HTTP/2.0"]}),
    http("version not wanted", "HTTP/1.0", "/http10", False, {"valid_http_versions": ["HTTP/1.1"]}),
    http("slow but in time", "answers after 0.3 s", "/slowly", True),
    http("IPv6 literal", "200", "http://[::1]:{web6}/ok", True),
    http("a name", "200", "http://localhost:{web}/ok", True),
    http("name of one family", "listens on ::1", "http://localhost:{web6}/ok", False),
    http(
        "no fallback to the other family", "listens on 127.0.0.1", "http://127.0.0.1:{web}/ok", False,
        {"preferred_ip_protocol": "ip6", "ip_protocol_fallback": False},
    ),
    http("name of this machine, by the default", "listens on both", "http://localhost:{web}/ok", True,
         {"preferred_ip_protocol": "ip6"}),
    http("404 with a page", "404, 1234 bytes", "/page-404", False),
    http("404 with a packed page", "404, gzip of 100000 bytes", "/gzip-404", False, {"compression": "gzip"}),
    http("a query and a fragment in the target", "200", "/ok#part", True),
    http("user and password in the target", "wants them", "http://{user}@127.0.0.1:{web}/basic", True),
    http("IPv4 inside IPv6", "200", "http://[::ffff:127.0.0.1]:{web}/ok", True),
    http("unknown name", "no such name", "http://nobody.invalid/", False),
)  # fmt: skip

_REDIRECTS = (
    http("redirect 301", "301, then 200", "/redirect/301/ok", True),
    http("redirect 302", "302, then 200", "/redirect/302/ok", True),
    http("redirect 303", "303, then 200", "/redirect/303/ok", True),
    http("redirect 307", "307, then 200", "/redirect/307/ok", True),
    http("redirect 308", "308, then 200", "/redirect/308/ok", True),
    http("redirect 300", "300 with a Location", "/redirect/300/ok", False),
    http("redirect relative", "Location: ok", "/relative", True),
    http("redirect to an error", "302, then 500", "/redirect/302/status/500", False),
    http("redirect loop", "to itself for ever", "/loop", False),
    http("ten redirects", "ten, then 200", "/steps/10", True),
    http("eleven redirects", "eleven, then 200", "/steps/11", False),
    http("redirect without a place", "302, no Location", "/no-location", False),
    http("redirect to nonsense", "Location: http://[::1/", "/bad-location", False),
    http("redirect to another scheme", "Location: ftp://", "/ftp", False, different=COUNTED),
    http("redirect to nobody", "to a name that is not there", "/to-nobody", False, different=COUNTED),
    http("redirect to another port", "to another server", "/to/web2/ok", True),
    http(
        "redirect from plain to TLS", "to https", "/to/tls/ok", True, {"tls_config": {"ca_file": "{ca}"}}
    ),
    https("redirect from TLS to plain", "to http", "tls", True, path="/to/web/ok"),
    http("redirect to TLS nobody trusts", "to https", "/to/tls_self/ok", False,
         different={**COUNTED, **SEEN}),
    http("redirect not followed", "302", "/redirect/302/ok", False, {"follow_redirects": False}),
    http("redirect not followed, once said so", "302", "/redirect/302/ok", False,
         {"no_follow_redirects": True}),
    http(
        "redirect wanted", "301", "/redirect/301/ok", True,
        {"follow_redirects": False, "valid_status_codes": [301]},
    ),
    http("POST becomes GET", "303 to a GET", "/redirect/303/only-get", True, SAID),
    http(
        "POST becomes GET by 302", "302 to a GET", "/redirect/302/only-get", True,
        SAID,
    ),
    http(
        "POST stays POST", "307 to a POST", "/redirect/307/only-post", True, SAID
    ),
    http("redirect with a cookie", "sets a cookie and wants it back", "/with-cookie", True),
    http(
        "secrets stay at home", "to another server that refuses secrets", "/to/web2/no-secret", False,
        {"basic_auth": {"username": USER, "password": PASSWORD}}, ours=True,
        why="ours sends credentials to the target only, not to where it redirects",
    ),
)  # fmt: skip

_TLS = (
    https("TLS valid", "a certificate of our authority", "tls", True),
    https("TLS valid for a name", "the same by name", "tls", True, host="localhost"),
    http("TLS of an unknown authority", "not of ours", "https://127.0.0.1:{tls}/ok", False, different=SEEN),
    https("TLS expired", "ended yesterday", "tls_expired", False, different=SEEN),
    https("TLS self-signed", "signed by itself", "tls_self", False, different=SEEN),
    https("TLS of another host", "for other.example", "tls_other", False, different=SEEN),
    https(
        "TLS with the name to expect", "for other.example", "tls_other", True,
        {"tls_config": {"server_name": "other.example"}},
    ),
    https(
        "TLS with the name in the header Host", "for other.example", "tls_other", True,
        {"headers": {"Host": "other.example"}},
    ),
    https("TLS with the name in hostname", "for other.example", "tls_other", True, hostname="other.example"),
    https(
        "TLS expired but not looked at", "ended yesterday", "tls_expired", True,
        {"tls_config": {"insecure_skip_verify": True}}, different=NO_CHAIN,
    ),
    https(
        "TLS self-signed but not looked at", "signed by itself", "tls_self", True,
        {"tls_config": {"insecure_skip_verify": True}}, different=NO_CHAIN,
    ),
    https("TLS must not be", "TLS", "tls", False, {"fail_if_ssl": True}),
    https("TLS must be and is", "TLS", "tls", True, {"fail_if_not_ssl": True}),
    http("TLS must be and is not", "plain", "/ok", False, {"fail_if_not_ssl": True}),
    http("TLS must not be and is not", "plain", "/ok", True, {"fail_if_ssl": True}),
    https(
        "TLS too old", "1.2 at most", "tls_old", False, {"tls_config": {"min_version": "TLS13"}}
    ),
    https("TLS old enough", "1.2 at most", "tls_old", True, {"tls_config": {"min_version": "TLS12"}}),
    https(
        "TLS of one version only", "up to 1.3", "tls", True, {"tls_config": {"max_version": "TLS12"}},
        since=(0, 24),
    ),
    https("TLS client certificate missing", "wants one", "tls_client", False, different=SEEN_WHOLE),
    https(
        "TLS client certificate shown", "wants one", "tls_client", True,
        {"tls_config": {"cert_file": "{client_cert}", "key_file": "{client_key}"}},
    ),
    http("TLS spoken to a plain server", "plain", "https://127.0.0.1:{web}/ok", False),
    http("plain spoken to a TLS server", "TLS", "http://127.0.0.1:{tls}/ok", False),
)  # fmt: skip

_ENDINGS = (
    http("nobody listens", "refuses", "http://127.0.0.1:{closed}/", False),
    http("never accepts", "its queue is full", "http://127.0.0.1:{full}/", False, timeout="500ms"),
    http("silent", "says nothing", "/silent", False, timeout="500ms"),
    http("half a head", "stops in the head", "/half-head", False, timeout="500ms"),
    http(
        "half a body", "stops in the body", "/half-body", False, timeout="500ms"
    ),
    http("drips", "a byte at a time", "/drip", False, timeout="700ms",
         chance=frozenset({"probe_http_uncompressed_body_length"})),
    http("reset on accept", "resets at once", "http://127.0.0.1:{reset}/", False),
    http("reset after the question", "resets", "/reset", False),
    http("reset in the head", "resets", "/reset-head", False),
    http("reset in the body", "resets", "/reset-body", False),
    http("closes without a word", "closes", "/empty", False),
    http("closes at once", "closes", "http://127.0.0.1:{hang_up}/", False),
    http("speaks another protocol", "SMTP", "/garbage", False),
    http("TLS handshake never ends", "says nothing", "https://127.0.0.1:{mute}/", False, timeout="500ms"),
)  # fmt: skip

_LENGTHS = (
    http("ends with the connection", "no length", "/close", True),
    http("chunked", "in two parts", "/chunked", True),
    http("chunked but cut", "ends in a part", "/chunked-cut", False),
    http("chunked but wrong", "no number", "/chunked-wrong", False),
    http("shorter than promised", "Content-Length: 100, 7 bytes", "/short", False),
    http("longer than promised", "Content-Length: 4, 18 bytes", "/long", True),
    http("two lengths", "two Content-Length", "/two-lengths", False),
    http("length is no number", "Content-Length: many", "/bad-length", False),
    http("no reason phrase", "HTTP/1.1 200", "/no-reason", True),
    http("endless head", "18 MB of headers", "/bomb", False),
    http("body under the limit", "5 bytes", "/ok", True, {"body_size_limit": "1KB"}),
    http("body over the limit", "300 KB", "/large", False, {"body_size_limit": "100KB"},
         different=UNREAD),
    http("large body", "300 KB", "/large", True),
)  # fmt: skip

_BODIES = (
    http("body matches", "fine", "/ok", True, {NEEDED: ["^fi+ne"]}),
    http("body does not match", "fine", "/ok", False, {NEEDED: ["bad"]}, regex=True),
    http("body must not match and does not", "fine", "/ok", True, {UNWANTED: ["bad"]}),
    http("body must not match and does", "fine", "/ok", False, {UNWANTED: ["f.ne"]}, regex=True),
    http(
        "one of two patterns is missing", "fine", "/ok", False,
        {NEEDED: ["fine", "bad"]}, regex=True,
    ),
    http(
        "body matches without regard to case", "fine", "/ok", True,
        {NEEDED: ["(?i)FINE"]},
    ),
    http("end of a large body", "300 KB", "/large", True, {NEEDED: ["the end$"]}),
    http(
        "nested quantifiers", "300 KB of x", "/large", True, {UNWANTED: ["(x+x+)+y"]}
    ),
    http(
        "wrong status comes first", "500", "/status/500", False, {NEEDED: ["bad"]}
    ),
    http("body in JSON", "{status: healthy}", "/json", True, {NEEDED: ['"healthy"']}),
    http(
        "header matches", "X-State: green", "/headers", True,
        {"fail_if_header_not_matches": [{"header": "X-State", "regexp": "^green$"}]},
    ),
    http(
        "header does not match", "X-State: green", "/headers", False,
        {"fail_if_header_not_matches": [{"header": "X-State", "regexp": "red"}]}, regex=True,
    ),
    http(
        "header must not match and does", "X-State: green", "/headers", False,
        {"fail_if_header_matches": [{"header": "x-state", "regexp": "green"}]}, regex=True,
    ),
    http(
        "header is missing", "no X-Other", "/headers", False,
        {"fail_if_header_not_matches": [{"header": "X-Other", "regexp": "."}]}, regex=True,
    ),
    http(
        "header may be missing", "no X-Other", "/headers", True,
        {"fail_if_header_not_matches": [{"header": "X-Other", "regexp": ".", "allow_missing": True}]},
    ),
    http(
        "unwanted header is missing", "no X-Other", "/headers", False,
        {"fail_if_header_matches": [{"header": "X-Other", "regexp": "."}]}, regex=True,
    ),
    http(
        "unwanted header may be missing", "no X-Other", "/headers", True,
        {"fail_if_header_matches": [{"header": "X-Other", "regexp": ".", "allow_missing": True}]},
    ),
    http(
        "one of two headers matches", "X-Many: one, two", "/headers", True,
        {"fail_if_header_not_matches": [{"header": "X-Many", "regexp": "two"}]},
    ),
    http(
        "one of two headers is unwanted", "X-Many: one, two", "/headers", False,
        {"fail_if_header_matches": [{"header": "X-Many", "regexp": "two"}]}, regex=True,
    ),
    http(
        "packed body unpacked", "gzip", "/gzip", True,
        {"compression": "gzip", NEEDED: ["packed and fine"]},
    ),
    http("large packed body", "gzip of 100000 bytes", "/gzip-large", True, {"compression": "gzip"}),
    http("packed body not asked for", "gzip of 100000 bytes", "/gzip-large", True),
    http("packed body that is not", "says gzip", "/gzip-wrong", False, {"compression": "gzip"}),
    http(
        "deflated body", "deflate", "/deflate", True,
        {"compression": "deflate", NEEDED: ["packed and fine"]},
    ),
)  # fmt: skip

_REQUESTS = (
    http("method GET", "wants GET", "/only-get", True),
    http("method HEAD", "wants HEAD", "/only-head", True, {"method": "HEAD"}),
    http("method POST", "wants POST and ping", "/only-post", True, SAID),
    http("method PUT", "wants PUT", "/only-put", True, {"method": "PUT"}),
    http("method DELETE", "wants DELETE", "/only-delete", True, {"method": "DELETE"}),
    http("method not allowed", "wants POST", "/only-post", False),
    http("basic auth", "wants it", "/basic", True, {"basic_auth": {"username": USER, "password": PASSWORD}}),
    http("basic auth wrong", "wants it", "/basic", False,
         {"basic_auth": {"username": USER, "password": "x"}}),
    http("basic auth missing", "wants it", "/basic", False),
    http(
        "basic auth from a file", "wants it", "/basic", True,
        {"basic_auth": {"username": USER, "password_file": "{password_file}"}},
    ),
    http("bearer token", "wants it", "/bearer", True, {"bearer_token": TOKEN}),
    http("bearer token from a file", "wants it", "/bearer", True, {"bearer_token_file": "{token_file}"}),
    http(
        "authorization of another type", "wants Key", "/scheme", True,
        {"authorization": {"type": "Key", "credentials": TOKEN}},
    ),
    http("header sent", "wants X-Key", "/x-key", True, {"headers": {"X-Key": TOKEN}}),
    http("Host sent", "wants shop.example", "/host", True, {"headers": {"Host": "shop.example"}}),
    http("hostname parameter", "wants shop.example", "/host", True, hostname="shop.example"),
    http("body from a file", "wants POST and ping", "/only-post", True,
         {"method": "POST", "body_file": "{body_file}"}, since=(0, 24)),
    http("proxy", "a proxy before it", "/ok", True, {"proxy_url": "http://127.0.0.1:{proxy}"}),
    https("proxy and TLS", "a tunnel", "tls", True, {"proxy_url": "http://127.0.0.1:{proxy}"}),
    http("proxy is not there", "refuses", "/ok", False, {"proxy_url": "http://127.0.0.1:{closed}"}),
)  # fmt: skip

_TCP = (
    tcp("tcp open", "accepts", "chat", True),
    tcp("tcp refused", "refuses", "closed", False),
    tcp("tcp never accepts", "its queue is full", "full", False, timeout="500ms"),
    tcp("tcp name", "accepts", "chat", True, host="localhost"),
    tcp("tcp unknown name", "no such name", "chat", False, host="nobody.invalid"),
    tcp("tcp reset on accept", "resets", "reset", True),
    tcp("tcp expected", "SSH-2.0", "banner", True, {"query_response": [{"expect": "^SSH-2.0-"}]}),
    tcp("tcp sent and expected", "echoes", "chat", True, {"query_response": [
        {"expect": "^220 "}, {"send": "EHLO probe\r"}, {"expect": "^250 STARTTLS"}, {"send": "QUIT\r"},
        {"expect": "^221"},
    ]}),
    tcp("tcp with what was caught", "echoes", "chat", True, {"query_response": [
        {"expect": "^220 (\\S+) ", "send": "NICK ${{1}}"}, {"expect": "^PING mail.example"},
    ]}),
    tcp("tcp not expected", "closes after a line", "banner", False,
        {"query_response": [{"expect": "^FTP"}]}, timeout="500ms"),
    tcp("tcp closes unexpectedly", "closes", "hang_up", False, {"query_response": [{"expect": "^220"}]},
        regex=True, different=HUNG_UP),
    tcp("tcp says nothing", "silent", "mute", False,
        {"query_response": [{"expect": "^220"}]}, timeout="500ms"),
    tcp("tcp line without an end", "10 MB without a line break", "endless", False,
        {"query_response": [{"expect": "^220"}]}, timeout="1s"),
    tcp("tcp STARTTLS", "upgrades", "starttls", True, {
        "tls_config": {"ca_file": "{ca}"},
        "query_response": [
            {"expect": "^220"}, {"send": "EHLO probe\r"}, {"expect": "^250-STARTTLS"}, {"send": "STARTTLS\r"},
            {"expect": "^220"}, {"starttls": True}, {"send": "EHLO probe\r"}, {"expect": "^250 welcome"},
        ],
    }),
    tcp("tcp STARTTLS of nobody we know", "upgrades", "starttls", False, {"query_response": [
        {"expect": "^220"}, {"send": "EHLO probe\r"}, {"expect": "^250-STARTTLS"}, {"send": "STARTTLS\r"},
        {"expect": "^220"}, {"starttls": True},
    ]}, different=SEEN),
    tcp("tcp over TLS", "greets over TLS", "tls_chat", True,
        {"tls": True, "tls_config": {"ca_file": "{ca}"}, "query_response": [{"expect": "^220"}]}),
    tcp("tcp over TLS of nobody we know", "TLS", "tls_chat", False, {"tls": True}, different=SEEN),
    tcp("tcp over TLS that expired", "ended yesterday", "tls_expired", False,
        {"tls": True, "tls_config": {"ca_file": "{ca}"}}, different=SEEN),
    tcp("tcp over TLS not looked at", "ended yesterday", "tls_expired", True,
        {"tls": True, "tls_config": {"insecure_skip_verify": True}}, different=NO_CHAIN),
    tcp("tcp over TLS to a plain port", "plain", "chat", False,
        {"tls": True, "tls_config": {"insecure_skip_verify": True}}),
)  # fmt: skip

_A = {"query_name": "shop.test.", "query_type": "A"}

_DNS = (
    dns("dns answers", "has the name", True, _A),
    dns("dns by tcp", "has the name", True, {**_A, "transport_protocol": "tcp"}),
    dns("dns IPv6 address", "has it", True, {"query_name": "shop.test.", "query_type": "AAAA"}),
    dns("dns text", "has it", True, {"query_name": "shop.test.", "query_type": "TXT"}),
    dns("dns name is not there", "NXDOMAIN", False, {"query_name": "nobody.test.", "query_type": "A"}),
    dns("dns name wanted not to be there", "NXDOMAIN", True,
        {"query_name": "nobody.test.", "query_type": "A", "valid_rcodes": ["NXDOMAIN"]}),
    dns("dns refuses", "REFUSED", False, {"query_name": "example.org.", "query_type": "A"}),
    dns("dns address as expected", "192.0.2.7", True,
        {**_A, "validate_answer_rrs": {"fail_if_not_matches_regexp": ["\tA\t192.0.2.7$"]}}),
    dns("dns address not expected", "192.0.2.7", False,
        {**_A, "validate_answer_rrs": {"fail_if_not_matches_regexp": ["192.0.2.8"]}}),
    dns("dns address unwanted", "192.0.2.7", False,
        {**_A, "validate_answer_rrs": {"fail_if_matches_regexp": ["192.0.2.7"]}}),
    # In spite of its name this key fails when not all match.
    dns("dns all addresses match", "192.0.2.7", True,
        {**_A, "validate_answer_rrs": {"fail_if_all_match_regexp": ["192.0.2.7"]}}),
    dns("dns not all addresses match", "192.0.2.7", False,
        {**_A, "validate_answer_rrs": {"fail_if_all_match_regexp": ["192.0.2.8"]}}),
    dns("dns all of no records match", "no authority", True,
        {**_A, "validate_authority_rrs": {"fail_if_all_match_regexp": ["x"]}}, ours=False,
        why="ours lets no pattern match where there is no record"),
    dns("dns none of the addresses", "192.0.2.7", False,
        {**_A, "validate_answer_rrs": {"fail_if_none_matches_regexp": ["192.0.2.8"]}}),
    dns("dns one of the addresses", "192.0.2.7", True,
        {**_A, "validate_answer_rrs": {"fail_if_none_matches_regexp": ["192.0.2.7"]}}),
    dns("dns nobody there", "refuses", False, _A, target="127.0.0.1:{closed}"),
)  # fmt: skip

_GRPC = (
    grpc("grpc healthy", "SERVING", True, {}),
    grpc("grpc service healthy", "SERVING", True, {"service": "shop"}),
    grpc("grpc service not healthy", "NOT_SERVING", False, {"service": "till"}),
    grpc("grpc service unknown", "NOT_FOUND", False, {"service": "nobody"}),
    grpc("grpc nobody there", "refuses", False, {}, port="closed"),
    grpc("grpc spoken to another server", "speaks HTTP/1.1", False, {}, port="web"),
)

CASES: tuple[Case, ...] = (
    *_STATUS, *_REDIRECTS, *_TLS, *_ENDINGS, *_LENGTHS, *_BODIES, *_REQUESTS, *_TCP, *_DNS, *_GRPC
)  # fmt: skip
