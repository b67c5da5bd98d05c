"""Turns a module of a ``blackbox.yml`` and a target into a probe of ours."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import PlainValidator, ValidationError

from exporter.fields import Strict
from exporter.kinds import ProbeBase, Tls, model_of
from exporter.kinds.http import HttpProbe
from exporter.modules import TLS_VERSIONS, Choice, HeaderMatch, HttpModule, Module, Records, TlsConfig
from exporter.wording import message_of

REDIRECTS = 10
BODY_LIMIT = 16 * 1024 * 1024
"""Bytes that are read where a module sets no limit."""

_ANY_STATUS = ("1xx", "2xx", "3xx", "4xx", "5xx")
_ANY_TARGET = "192.0.2.1:9"
"""Stands for the target while a module is checked; nothing is sent there."""


class TargetError(ValueError):
    """A target that no probe of this prober can be sent to."""


def read_module(value: object) -> Module:
    """Read one module. Raises ValueError when it has mistakes; what cannot be done is among its obstacles."""
    module = value if isinstance(value, Module) else Module.model_validate(value)
    if not module.obstacles():
        try:
            _TRANSLATE[module.prober](module, _ANY_TARGET)
        except ValidationError as error:
            module.cannot_because(_messages(error))
    return module


class ModulesFile(Strict):
    """A whole ``blackbox.yml``."""

    modules: Mapping[str, Annotated[Module, PlainValidator(read_module)]] = {}


def probe_of(module: Module, target: str, hostname: str = "") -> ProbeBase:
    """Return the probe that asks *target* as *module* says; *hostname* is what the peer is told it is called.

    Raises TargetError when the prober cannot be sent there.
    """
    try:
        return _TRANSLATE[module.prober](_named(module, hostname) if hostname else module, target)
    except ValidationError as error:
        raise TargetError(
            f"{target!r} cannot be a target of prober {module.prober}: {_messages(error)}"
        ) from error


def _messages(error: ValidationError) -> str:
    return "; ".join(message_of(item) for item in error.errors())


def _named(module: Module, hostname: str) -> Module:
    """Return *module* with the name that the peer is called by: its Host header, or its name in TLS."""
    if module.prober == "http":
        given = _host_header(module.http)
        if given is not None and given != hostname:
            raise TargetError(
                f"the module sets the header Host to {given!r} and the parameter hostname to {hostname!r}"
            )
        headers = {name: value for name, value in module.http.headers.items() if name.lower() != "host"}
        changed = module.http.model_copy(update={"headers": {**headers, "Host": hostname}})
        return module.model_copy(update={"http": changed})
    if module.prober == "tcp" and module.tcp.tls_config.server_name is None:
        config = module.tcp.tls_config.model_copy(update={"server_name": hostname})
        return module.model_copy(update={"tcp": module.tcp.model_copy(update={"tls_config": config})})
    return module


def _host_header(http: HttpModule) -> str | None:
    return next((value for name, value in http.headers.items() if name.lower() == "host"), None)


def _http(module: Module, target: str) -> ProbeBase:
    http = module.http
    url = target if target.startswith(("http://", "https://")) else f"http://{target}"
    tls = http.tls_config
    host = _host_header(http)
    if tls.server_name is None and host is not None:
        # What the peer is called counts for its certificate too.
        tls = tls.model_copy(update={"server_name": host.partition(":")[0]})
    probe = HttpProbe.model_validate(
        {
            "http": url,
            "method": http.method,
            "headers": http.headers,
            "body": http.body or None,
            "body_file": http.body_file or None,
            "redirects": REDIRECTS if http.follows else 0,
            **_credentials(http),
            "proxy": http.proxy_url or None,
            **_choice(http),
            "compression": http.compression if http.compression in ("gzip", "deflate") else None,
            "body_limit": http.body_size_limit or BODY_LIMIT,
            "expect": _expected(http),
            "tls": _tls(tls),
        }
    )
    return probe.counting_body()


def _credentials(http: HttpModule) -> dict[str, Any]:
    basic, shown = http.basic_auth, http.authorization
    if basic is not None:
        secret = {"password": basic.password or ""} if basic.password_file is None else {}
        return {"basic_auth": {"username": basic.username, "password_file": basic.password_file, **secret}}
    if shown is not None:
        return {
            "bearer": {"scheme": shown.type, "token": shown.credentials, "token_file": shown.credentials_file}
        }
    if http.bearer_token or http.bearer_token_file:
        return {"bearer": {"token": http.bearer_token or None, "token_file": http.bearer_token_file}}
    return {}


def _expected(http: HttpModule) -> dict[str, Any]:
    versions = [version for version in http.valid_http_versions if version in ("HTTP/1.0", "HTTP/1.1")]
    return {
        "status": _ANY_STATUS if http.accept_any_response else http.valid_status_codes or ("2xx",),
        "headers": _checks(http.fail_if_header_not_matches),
        "headers_not": _checks(http.fail_if_header_matches),
        "body": http.fail_if_body_not_matches_regexp,
        "body_not": http.fail_if_body_matches_regexp,
        "http_version": versions,
        "secure": True if http.fail_if_not_ssl else False if http.fail_if_ssl else None,
    }


def _checks(wanted: tuple[HeaderMatch, ...]) -> dict[str, list[dict[str, Any]]]:
    checks: dict[str, list[dict[str, Any]]] = {}
    for match in wanted:
        # There a header that is missing fails the probe in both directions, if nothing else is said.
        check = {"matches": match.regexp, "optional": match.allow_missing}
        checks.setdefault(match.header, []).append(check)
    return checks


def _tcp(module: Module, target: str) -> ProbeBase:
    tcp = module.tcp
    steps = [
        {"expect": step.expect, "send": step.send, "starttls": step.starttls}
        for step in tcp.query_response
        if step.expect is not None or step.send or step.starttls
    ]
    secured = tcp.tls or any(step["starttls"] for step in steps)
    given = {"tcp": target, "exchange": steps, "tls": _tls(tcp.tls_config) if secured else None}
    return model_of("tcp").model_validate({**given, **_choice(tcp)})


def _dns(module: Module, target: str) -> ProbeBase:
    dns = module.dns
    if dns is None:
        raise TypeError("a module of prober dns has the key dns")
    return model_of("dns").model_validate(
        {
            "dns": target,
            "query": dns.query_name,
            "type": dns.query_type,
            "class": dns.query_class,
            "protocol": "tls" if dns.dns_over_tls else dns.transport_protocol,
            "recursion": dns.recursion_desired,
            "expect": {
                "rcode": dns.valid_rcodes or ("NOERROR",),
                "answer": _records(dns.validate_answer_rrs),
                "authority": _records(dns.validate_authority_rrs),
                "additional": _records(dns.validate_additional_rrs),
            },
            "tls": _tls(dns.tls_config) if dns.dns_over_tls else None,
            **_choice(dns),
        }
    )


def _records(wanted: Records) -> dict[str, Any]:
    return {
        "none": wanted.fail_if_matches_regexp,
        # In spite of its name the second key fails there when not all match.
        "every": (*wanted.fail_if_not_matches_regexp, *wanted.fail_if_all_match_regexp),
        "any": wanted.fail_if_none_matches_regexp,
    }


def _grpc(module: Module, target: str) -> ProbeBase:
    grpc = module.grpc
    return model_of("grpc").model_validate(
        {
            "grpc": target,
            "service": grpc.service,
            "metadata": grpc.metadata,
            "tls": _tls(grpc.tls_config) if grpc.tls else None,
            **_choice(grpc),
        }
    )


def _choice(choice: Choice) -> dict[str, Any]:
    version: Literal[4, 6] = 4 if choice.preferred_ip_protocol == "ip4" else 6
    return {"ip_version": version, "ip_fallback": choice.ip_protocol_fallback}


def _tls(config: TlsConfig) -> Tls:
    return Tls.model_validate(
        {
            "verify": not config.insecure_skip_verify,
            "ca_file": config.ca_file or None,
            "server_name": config.server_name or None,
            "cert_file": config.cert_file or None,
            "key_file": config.key_file or None,
            "min_version": TLS_VERSIONS.get(config.min_version or ""),
            "max_version": TLS_VERSIONS.get(config.max_version or ""),
        }
    )


_TRANSLATE: dict[str, Callable[[Module, str], ProbeBase]] = {
    "http": _http,
    "tcp": _tcp,
    "dns": _dns,
    "grpc": _grpc,
}
"""Prober to the function that makes our probe of a module and a target; it raises ValidationError."""
