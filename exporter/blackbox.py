"""The answer of ``/probe`` in the metric names of blackbox_exporter, for dashboards that know those."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from exporter.exposition import Family, Samples, label
from exporter.observation import HttpFacts, Observation, Outcome, Reason, TlsFacts
from exporter.probes.resolver import literal_version

_HTTP_PHASES = ("resolve", "connect", "tls", "processing", "transfer")
_BY_PATTERN = {"http": (Reason.HEADER, Reason.BODY), "tcp": (Reason.ANSWER,)}
_PHASES = {
    "dns": {"resolve": ("resolve",), "connect": ("connect", "tls"), "request": ("processing",)},
    "grpc": {"resolve": ("resolve",), "check": ("connect", "tls", "processing")},
}
"""What blackbox_exporter calls a part of the time, and which phases of ours that is."""
_KNOWN_THERE = ("dns_", "grpc_")  # readings that have the same names there but for the beginning
_NETWORKED = frozenset({"http", "tcp", "dns", "grpc"})
"""Kinds that blackbox_exporter has as well."""
_UNAVAILABLE, _DEADLINE = 14, 4  # codes of gRPC
_LATE = (Reason.TIMEOUT, Reason.CONNECT_TIMEOUT)
_SERVING_STATUSES = ("NOT_SERVING", "SERVICE_UNKNOWN", "SERVING", "UNKNOWN")
_FNV_OFFSET, _FNV_PRIME = 2166136261, 16777619


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One on-demand run of the probes of a target; a probe without an answer in time is missing."""

    observations: Mapping[str, Observation]
    missing: tuple[str, ...]
    seconds: float
    limit: float
    kinds: Mapping[str, str] = field(default_factory=dict)  # of the probes, by name

    @property
    def failures(self) -> Mapping[str, Reason]:
        """Why each failed probe failed."""
        seen = {name: seen.reason for name, seen in self.observations.items()}
        failed = {name: reason for name, reason in seen.items() if reason is not None}
        return failed | dict.fromkeys(self.missing, Reason.TIMEOUT)

    @property
    def success(self) -> bool:
        """Whether there was a look and none failed."""
        return bool(self.observations) and not self.failures

    def outcome(self, kind: str) -> Outcome | None:
        """Return the outcome of the first probe of *kind*."""
        found = (seen for name, seen in self.observations.items() if self.kinds.get(name) == kind)
        return next((seen.outcome for seen in found), None)


def blackbox_families(probed: Probed) -> Iterator[Family]:
    """All metrics of one ``/probe`` answer that have a value; nothing is left from the one before."""
    return (family for family in _families(probed) if family.samples)


def _families(probed: Probed) -> Iterator[Family]:
    outcomes = [seen.outcome for seen in probed.observations.values()]
    yield from _of_the_run(probed)
    yield from _of_the_way(outcomes, networked=bool({*probed.kinds.values()} & _NETWORKED))
    yield from _of_patterns(probed)
    http = probed.outcome("http")
    if http is not None:
        yield from _of_http(http)
    for kind in _PHASES:
        outcome = probed.outcome(kind)
        if outcome is not None:
            yield from _of_prober(kind, outcome)
    yield from _of_tls([outcome.tls for outcome in outcomes if outcome.tls is not None])
    yield from _of_readings(probed)


def _of_the_run(probed: Probed) -> Iterator[Family]:
    yield _one("probe_success", "Displays whether or not the probe was a success", int(probed.success))
    yield _one(
        "probe_duration_seconds", "Returns how long the probe took to complete in seconds", probed.seconds
    )
    yield _one("probe_timeout_seconds", "Returns the timeout of the probe in seconds", probed.limit)
    yield _gauge(
        "probe_failure_info",
        "Why probes of the target failed",
        [(label(probe=name, reason=reason), 1) for name, reason in probed.failures.items()],
    )


def _of_the_way(outcomes: Iterable[Outcome], *, networked: bool) -> Iterator[Family]:
    lookup = sum(outcome.phases.get("resolve", 0.0) for outcome in outcomes)
    yield _one(
        "probe_dns_lookup_time_seconds", "Returns the time taken for probe dns lookup in seconds", lookup
    )
    address = next((outcome.address for outcome in outcomes if outcome.address), "")
    ip = _ip_of(address) if address else None
    if ip is None and not networked:
        return
    version = ip.version if ip else 0
    yield _one("probe_ip_protocol", "Specifies whether probe ip protocol is IP4 or IP6", version)
    yield _one(
        "probe_ip_addr_hash",
        "Specifies the hash of IP address. It's useful to detect if the IP address changes.",
        _hash(ip) if ip else 0,
    )


def _of_patterns(probed: Probed) -> Iterator[Family]:
    by_pattern = [
        probed.failures.get(name) in _BY_PATTERN[kind]
        for name, kind in probed.kinds.items()
        if kind in _BY_PATTERN
    ]
    if by_pattern:
        yield _one(
            "probe_failed_due_to_regex", "Indicates if probe failed due to regex", int(any(by_pattern))
        )


def _of_http(outcome: Outcome) -> Iterator[Family]:
    facts = outcome.http or HttpFacts(status=0, version="0", content_length=0)
    uncompressed = facts.body_bytes if facts.unpacked_bytes is None else facts.unpacked_bytes
    length = -1 if facts.content_length is None else facts.content_length
    yield _one("probe_http_status_code", "Response HTTP status code", facts.status)
    yield _one(
        "probe_http_version", "Returns the version of HTTP of the probe response", _version(facts.version)
    )
    yield _one("probe_http_ssl", "Indicates if SSL was used for the final redirect", int(facts.secure))
    yield _one("probe_http_redirects", "The number of redirects", facts.redirects_met)
    yield _one("probe_http_content_length", "Length of http content response", length)
    yield _one("probe_http_uncompressed_body_length", "Length of uncompressed response body", uncompressed)
    if facts.last_modified is not None:
        yield _one(
            "probe_http_last_modified_timestamp_seconds",
            "Returns the Last-Modified HTTP response header in unixtime",
            facts.last_modified,
        )
    yield _gauge(
        "probe_http_duration_seconds",
        "Duration of http request by phase, summed over all redirects",
        [(label(phase=phase), outcome.phases.get(phase, 0.0)) for phase in _HTTP_PHASES],
    )


def _of_prober(kind: str, outcome: Outcome) -> Iterator[Family]:
    phases = [
        (label(phase=phase), sum(outcome.phases.get(part, 0.0) for part in parts))
        for phase, parts in _PHASES[kind].items()
    ]
    yield _gauge(f"probe_{kind}_duration_seconds", f"Duration of {kind} request by phase", phases)
    if kind == "dns":
        yield _one(
            "probe_dns_query_succeeded",
            "Displays whether or not the query was executed successfully",
            int(bool(outcome.readings)),
        )
    else:
        yield _one("probe_grpc_ssl", "Indicates if SSL was used for the connection", int(bool(outcome.tls)))
    yield from _unanswered(kind, outcome)


def _unanswered(kind: str, outcome: Outcome) -> Iterator[Family]:
    """Tell what blackbox_exporter tells where no answer came, or none with a serving status."""
    measured = {reading.measure.name for reading in outcome.readings}
    if kind == "dns" and not measured:
        for section in ("answer", "authority", "additional"):
            text = f"Records in the {section} section of the last answer."
            yield _one(f"probe_dns_{section}_rrs", text, 0)
    if kind == "grpc" and not measured:
        late, unresolved = outcome.reason in _LATE, outcome.reason is Reason.DNS
        code = 0 if unresolved else _DEADLINE if late else _UNAVAILABLE
        yield _one("probe_grpc_status_code", "Status code of the last call.", code)
    if kind == "grpc" and "grpc_healthcheck_response" not in measured:
        unsaid: Samples = [(label(serving_status=status), 0) for status in _SERVING_STATUSES]
        text = "Whether the last answer was this serving status."
        yield _gauge("probe_grpc_healthcheck_response", text, unsaid)


def _of_tls(shown: list[TlsFacts]) -> Iterator[Family]:
    if not shown:
        return
    yield _one(
        "probe_ssl_earliest_cert_expiry",
        "Returns earliest SSL cert expiry in unixtime",
        min(tls.not_after for tls in shown),
    )
    chains = [tls.chain_not_after for tls in shown if tls.chain_not_after is not None]
    if chains:
        yield _one(
            "probe_ssl_last_chain_expiry_timestamp_seconds",
            "Returns last SSL chain expiry in timestamp seconds",
            min(chains),
        )
    last = shown[-1]
    yield _info(
        "probe_ssl_last_chain_info",
        "Contains SSL leaf certificate information",
        fingerprint_sha256=last.fingerprint,
    )
    yield _info(
        "probe_tls_version_info", "Returns the TLS version used", version=last.version.replace("TLSv", "TLS ")
    )
    yield _info(
        "probe_tls_cipher_info", "Returns the TLS cipher negotiated during handshake", cipher=last.cipher
    )


def _of_readings(probed: Probed) -> Iterator[Family]:
    """Tell what a kind measures beyond the above, where blackbox_exporter has no name under one of ours."""
    families: dict[str, tuple[str, list[tuple[str, float]]]] = {}
    for name, seen in probed.observations.items():
        for reading in seen.outcome.readings:
            measure = reading.measure
            labels = dict(zip(measure.labels, reading.labels, strict=True))
            theirs = measure.name.startswith(_KNOWN_THERE)
            own = {} if theirs else {"probe": name}
            sample = (label(**own, **labels), reading.value)
            metric = f"probe_{measure.name}" if theirs else f"soulfra_{measure.name}"
            families.setdefault(metric, (measure.help, []))[1].append(sample)
    for name, (text, samples) in families.items():
        yield _gauge(name, text, samples)


def _one(name: str, help_text: str, value: float) -> Family:
    return _gauge(name, help_text, [("", value)])


def _info(name: str, help_text: str, **labels: str) -> Family:
    return _gauge(name, help_text, [(label(**labels), 1)] if all(labels.values()) else [])


def _gauge(name: str, help_text: str, samples: Samples) -> Family:
    return Family(name=name, kind="gauge", help=help_text, samples=samples)


def _version(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _ip_of(address: str) -> IPv4Address | IPv6Address | None:
    """Return the address that packets go to: one of IPv4 inside one of IPv6 counts; None for no address."""
    if literal_version(address) is None:
        return None
    ip = ip_address(address.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def _hash(ip: IPv4Address | IPv6Address) -> int:
    """Return FNV-1a over the bytes of an address, as blackbox_exporter does."""
    value = _FNV_OFFSET
    for byte in ip.packed:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value
