"""The configuration of what is watched: strict models of ``soulfra.yml`` and its loader.

The exporter reads its own sections and leaves the rest of the file to the remediator, whose
models extend ``WatchConfig``.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from exporter.document import ConfigError, Document, Mistake, Place, read_document
from soulfra_monitor.durations import parse_duration


def _read_duration(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration is written with its unit, for example 500ms, 5s or 1m30s")


def _read_milliseconds(value: object) -> object:
    return value / 1000 if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be greater than 0")
    return value


_ADDRESS = re.compile(r"^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})$")
_URL = re.compile(r"^https?://[^\s/?#\\\x00-\x1f\x7f]+(?:[/?#]|$)", re.IGNORECASE)
_REDIS_URL = re.compile(r"^(rediss?|unix)://\S+$")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")


def check_address(value: str) -> str:
    """Return *value* when it is HOST:PORT. Raises ValueError otherwise."""
    found = _ADDRESS.match(value)
    if not found or not 0 < int(found[1]) <= 65535:  # noqa: PLR2004 - the largest TCP port
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:9877")
    return value


def is_loopback(host: str) -> bool:
    """Whether *host* is a name or an address of this machine that no other machine can have."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(value: str) -> str:
    if not _URL.match(value) or not _has_host_and_port(value):
        raise ValueError("must be an http:// or https:// address with a host and, if any, a port up to 65535")
    return value


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if ":" not in host:  # a name must survive the way to DNS and back; empty and long labels do not
            host = host.encode("idna").decode("idna")
        return bool(host) and parts.port != 0
    except ValueError:
        return False


def _header(value: str) -> str:
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError("a header must not contain control characters")
    return value


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


def _redis_url(value: str) -> str:
    if not _REDIS_URL.match(value):
        raise ValueError("must be a redis://, rediss:// or unix:// address")
    return value


def _name(value: str) -> str:
    if not NAME.match(value):
        raise ValueError(
            "a name has letters, digits, '_', '.' or '-', starts with a letter or digit, 63 at most"
        )
    return value


Duration = Annotated[float, BeforeValidator(_read_duration), AfterValidator(_positive)]
"""Seconds, written in the file as ``5s``."""
Milliseconds = Annotated[float, BeforeValidator(_read_milliseconds), AfterValidator(_positive)]
"""Seconds, written in the file as a number of milliseconds."""
Address = Annotated[str, AfterValidator(check_address)]
Url = Annotated[str, AfterValidator(_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
Name = Annotated[str, AfterValidator(_name)]
Scalar = str | int | float | bool | None


class Strict(BaseModel):
    """Base of all models: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class HttpExpect(Strict):
    """What an HTTP answer must be to count as healthy."""

    status: Annotated[tuple[int, ...], BeforeValidator(_as_list), Field(min_length=1)] = (200,)
    headers: Mapping[str, str] = {}  # header -> regular expression found in its value
    body: str | None = None  # regular expression found in the body
    json_: Mapping[str, Scalar] = Field(default={}, alias="json")  # dotted path -> exact value

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        for pattern in (*self.headers.values(), *([self.body] if self.body else [])):
            _check_pattern(pattern)
        return self


class Tls(Strict):
    """How a TLS peer is checked."""

    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None


class ProbeBase(Strict):
    """What every probe has; a value left out comes from the exporter's section."""

    name: Name | None = None
    interval: Duration | None = None
    interval_on_failure: Duration | None = None
    timeout: Duration | None = None
    confirm: Annotated[int, Field(ge=1, le=20)] | None = None


class HttpProbe(ProbeBase):
    """Ask an HTTP address and check status, headers, body and JSON values."""

    kind: Literal["http"] = "http"
    http: Url
    method: Literal["GET", "HEAD", "POST", "PUT", "OPTIONS"] = "GET"
    headers: Mapping[Annotated[str, AfterValidator(_header)], Annotated[str, AfterValidator(_header)]] = {}
    body: str | None = None
    expect: HttpExpect = HttpExpect()
    tls: Tls = Tls()


class TcpProbe(ProbeBase):
    """Open a TCP connection."""

    kind: Literal["tcp"] = "tcp"
    tcp: Address
    tls: Tls | None = None


class RedisProbe(ProbeBase):
    """Send PING to a Redis server and check its role."""

    kind: Literal["redis"] = "redis"
    redis: RedisUrl
    role: Literal["master", "replica"] | None = None


class ProcessProbe(ProbeBase):
    """Watch the process of a service: found by listening port, pid file or command line."""

    kind: Literal["process"] = "process"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    pid_file: str | None = None
    match: Pattern | None = None  # regular expression found in the joined command line

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> Self:
        given = [key for key in ("port", "pid_file", "match") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("say in exactly one way how to find the process: port, pid_file or match")
        return self


def _kind_of(value: object) -> str | None:
    if isinstance(value, ProbeBase):
        return str(getattr(value, "kind", ""))
    if isinstance(value, dict):
        return next((kind for kind in ("http", "tcp", "redis") if kind in value), None)
    return None


NetworkProbe = Annotated[
    Annotated[HttpProbe, Tag("http")] | Annotated[TcpProbe, Tag("tcp")] | Annotated[RedisProbe, Tag("redis")],
    Discriminator(
        _kind_of,
        custom_error_type="probe_kind",
        custom_error_message="a probe needs one of the keys http, tcp or redis",
    ),
]
Probe = HttpProbe | TcpProbe | RedisProbe | ProcessProbe


class Restart(Strict):
    """How a service is restarted."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]  # argv; no shell is involved
    cwd: str | None = None  # relative to the folder of the config file
    env: Mapping[str, str] = {}
    grace: Duration = 10.0  # from SIGTERM to SIGKILL
    log: str | None = None  # where its output goes; default: the data folder's logs/NAME.log


class Service(Strict):
    """One service to watch, and what the remediator may do to it."""

    host: str | None = None
    probes: tuple[NetworkProbe, ...] = ()
    process: ProcessProbe | None = None
    restart: Restart | None = None
    depends_on: tuple[Name, ...] = ()
    timeout_threshold: Duration = 1.0  # an answer slower than this is too slow
    error_threshold: Annotated[int, Field(ge=0)] = 3  # errors per 5 minutes that raise error_rate; 0: never
    auto_restart: bool = True  # false: a restart asks a person first
    logs: tuple[str, ...] = ()  # files whose tails are evidence
    hooks: Mapping[Name, Url] = {}  # addresses the service offers for repairs, for example reconnect_redis

    def all_probes(self) -> tuple[tuple[str, Probe], ...]:
        """Every probe of the service with its unique name, the process probe last."""
        named: list[tuple[str, Probe]] = []
        probes: list[Probe] = [*self.probes, *([self.process] if self.process else [])]
        for probe in probes:
            taken = {name for name, _ in named}
            name, number = probe.name or probe.kind, 2
            while name in taken:
                name, number = f"{probe.name or probe.kind}-{number}", number + 1
            named.append((name, probe))
        return tuple(named)


class Integration(Strict):
    """A path between two services, checked from outside."""

    from_: Name = Field(alias="from")
    to: Name
    probe: NetworkProbe


class Heartbeat(Strict):
    """A job that must report: at least every period, at most grace late."""

    period: Duration
    grace: Duration = 60.0


class Blind(Strict):
    """When the prober itself is suspected: this share of at least so many targets fails at once."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5  # more than this share
    at_least: Annotated[int, Field(ge=2)] = 3  # targets failing


ALERTMANAGER_LISTEN = "127.0.0.1:9093"
"""Where Alertmanager is when nothing else is said; of the exporter and of the stack alike."""


class ExporterSection(Strict):
    """How the exporter runs."""

    listen: Address = "127.0.0.1:9877"
    interval: Duration = 5.0
    interval_on_failure: Duration = 0.5
    timeout: Duration = 2.0
    confirm: Annotated[int, Field(ge=1, le=20)] = 2
    concurrency: Annotated[int, Field(ge=1)] = 200
    fast_path: bool = True
    refresh: Duration = 10.0  # how often a standing fast-path alert is sent again
    alertmanagers: tuple[Url, ...] = ()
    blind: Blind = Blind()


class JsonService(Strict):
    """A service as the JSON of errorMonitoring describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    health_check_path: str | None = Field(default=None, alias="healthCheckPath")
    timeout_threshold: Milliseconds | None = Field(default=None, alias="timeoutThreshold")
    error_threshold: Annotated[int, Field(ge=0)] | None = Field(default=None, alias="errorThreshold")
    auto_restart: bool | None = Field(default=None, alias="autoRestart")


class JsonRecovery(Strict):
    """The recovery part of the JSON of errorMonitoring."""

    strategies: tuple[Literal["restart", "reconnect", "retry"], ...] = ("restart", "reconnect", "retry")
    max_attempts: Annotated[int, Field(ge=1)] | None = Field(default=None, alias="maxAttempts")
    backoff_multiplier: Annotated[float, Field(ge=1)] | None = Field(default=None, alias="backoffMultiplier")


class JsonMonitoring(Strict):
    """The JSON configuration of services, accepted as it stands."""

    services: Mapping[Name, JsonService] = {}
    recovery: JsonRecovery = JsonRecovery()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentKey:
    """Where the value of an environment variable goes, and how its text is read (or ValueError)."""

    place: tuple[str, ...]
    read: Callable[[str], object]


def _duration_of_ms(text: str) -> str:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("must be a whole number of milliseconds greater than 0")
    return f"{text}ms"


class WatchConfig(BaseModel):
    """What is watched and how. Sections of other parts are left alone here."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    exporter: ExporterSection = ExporterSection()
    services: Mapping[Name, Service] = {}
    integrations: tuple[Integration, ...] = ()
    heartbeats: Mapping[Name, Heartbeat] = {}
    error_monitoring: JsonMonitoring | None = Field(default=None, alias="errorMonitoring")
    # The remediator's own models replace these four; to the exporter they are somebody else's.
    remediator: Any = None
    prometheus: Any = None
    alertmanager: Any = None
    demo: Any = None
    playbooks: Any = None

    @classmethod
    def environment(cls) -> dict[str, EnvironmentKey]:
        """Name the environment variables this model reads, and where their values go."""
        return {"HEALTH_CHECK_INTERVAL": EnvironmentKey(place=("exporter", "interval"), read=_duration_of_ms)}

    @classmethod
    def cross_mistakes(cls, data: Mapping[str, Any]) -> list[tuple[Place, str]]:
        """Mistakes that only show when sections are held against each other.

        Looks at the raw data and passes over whatever has the wrong shape, so that these are
        found in the same go as all others.
        """
        services = _mapping(data.get("services"))
        needs = {str(name): _texts(_mapping(service).get("depends_on")) for name, service in services.items()}
        mistakes: list[tuple[Place, str]] = [
            (("services", name, "depends_on", index), f"there is no service {needed!r}")
            for name, needed_ones in needs.items()
            for index, needed in enumerate(needed_ones)
            if needed not in services
        ]
        edges = data.get("integrations")
        paths: set[tuple[str, str]] = set()
        for index, edge in enumerate(edges if isinstance(edges, list) else []):
            source, destination = (str(_mapping(edge).get(key)) for key in ("from", "to"))
            if (source, destination) in paths:
                second = f"is the second check of the path from {source!r} to {destination!r}"
                mistakes.append((("integrations", index), second))
            paths.add((source, destination))
            for key in ("from", "to"):
                end = _mapping(edge).get(key)
                if isinstance(end, str) and end not in services:
                    mistakes.append((("integrations", index, key), f"there is no service {end!r}"))
        return mistakes + _cycles(needs)

    def warnings(self) -> list[str]:
        """Say what is allowed but probably not meant."""
        found = []
        for name, service in self.services.items():
            if not service.all_probes():
                found.append(f"services.{name}: has neither probes nor process, so nothing watches it")
            limit = min((p.timeout or self.exporter.timeout for p in service.probes), default=None)
            if limit is not None and service.timeout_threshold >= limit:
                found.append(
                    f"services.{name}.timeout_threshold: {service.timeout_threshold:g} s is never reached, "
                    f"because a probe gives up after {limit:g} s; raise the probe's timeout"
                )
            if service.host is not None:
                found.append(f"services.{name}.host: is told in metrics only; no remediator goes by it yet")
        found += [f"heartbeats.{name}: is not watched yet" for name in self.heartbeats]
        return found + self._unused_json()

    def _unused_json(self) -> list[str]:
        if self.error_monitoring is None:
            return []
        found = [
            f"errorMonitoring.services.{name}.healthCheckPath: has no address to go with; "
            f"write services.{name}.probes with the whole one"
            for name, service in self.error_monitoring.services.items()
            if service.health_check_path is not None and not self.services[name].probes
        ]
        if "strategies" in self.error_monitoring.recovery.model_fields_set:
            found.append("errorMonitoring.recovery.strategies: is not used; playbooks say what is done")
        return found


Config = TypeVar("Config", bound=WatchConfig)


def _cycles(needs: Mapping[str, list[str]]) -> list[tuple[Place, str]]:
    from graphlib import CycleError, TopologicalSorter  # noqa: PLC0415 - only needed while loading

    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return [(("services", circle[0], "depends_on"), f"goes in a circle: {' -> '.join(circle)}")]
    return []


def load_config(file: Path, model: type[Config], environment: Mapping[str, str] | None = None) -> Config:
    """Read *file* into *model*; the environment beats YAML, YAML beats the errorMonitoring JSON.

    Raises ConfigError with every mistake at once, each with its file, line and place.
    """
    document = read_document(file)
    data = document.data
    if not isinstance(data, dict):
        raise ConfigError([document.mistake((), "must be a mapping with keys such as services")])
    variables = os.environ if environment is None else environment
    data, mistakes = _apply_environment(_merge_json(data), variables, model.environment())
    config: Config | None = None
    try:
        config = model.model_validate(data)
    except ValidationError as error:
        mistakes += mistakes_of(error, document)
    mistakes += [document.mistake(place, message) for place, message in model.cross_mistakes(data)]
    if mistakes or config is None:
        raise ConfigError(sorted(mistakes, key=lambda mistake: (mistake.line or 0, mistake.place)))
    return config


def _merge_json(data: dict[Any, Any]) -> dict[Any, Any]:
    """Put the services of errorMonitoring under those of the YAML; a key that is in the YAML stays."""
    try:
        monitoring = JsonMonitoring.model_validate(data.get("errorMonitoring", {}))
    except ValidationError:
        return data  # the whole model is validated next and names the mistakes
    services = {**_mapping(data.get("services"))} if isinstance(data.get("services", {}), dict) else None
    if services is None or not monitoring.services:
        return data
    for name, service in monitoring.services.items():
        given = services.get(name) or {}
        services[name] = {**_yaml_of(service), **given} if isinstance(given, dict) else given
    return {**data, "services": services}


def _yaml_of(service: JsonService) -> dict[str, object]:
    values: dict[str, object] = {
        "timeout_threshold": service.timeout_threshold and f"{service.timeout_threshold * 1000:.0f}ms",
        "error_threshold": service.error_threshold,
        "auto_restart": service.auto_restart,
    }
    return {key: value for key, value in values.items() if value is not None}


def _apply_environment(
    data: dict[Any, Any], variables: Mapping[str, str], keys: Mapping[str, EnvironmentKey]
) -> tuple[dict[Any, Any], list[Mistake]]:
    mistakes = []
    for variable, key in keys.items():
        text = variables.get(variable, "")
        if not text:
            continue
        try:
            data = _with_value(data, key.place, key.read(text))
        except ValueError as error:
            mistakes.append(Mistake(file="environment", line=None, place=variable, message=str(error)))
    return data, mistakes


def _with_value(data: dict[Any, Any], place: tuple[str, ...], value: object) -> dict[Any, Any]:
    head, *rest = place
    if not rest:
        return {**data, head: value}
    inner = data.get(head) or {}
    # A section of the wrong shape is left for the model to complain about.
    return {**data, head: _with_value(inner, tuple(rest), value)} if isinstance(inner, dict) else data


def mistakes_of(error: ValidationError, document: Document) -> list[Mistake]:
    """Turn what pydantic found into mistakes with their lines."""
    items = error.errors()
    places = [_place_of(item["loc"]) for item in items]
    return [
        document.mistake(place, _message_of(item))
        for place, item in zip(places, items, strict=True)
        # An empty list whose members were wrong is told by its members.
        if item["type"] != "too_short" or not any(_is_below(other, place) for other in places)
    ]


def _is_below(place: Place, ancestor: Place) -> bool:
    return len(place) > len(ancestor) and place[: len(ancestor)] == ancestor


def _place_of(location: tuple[str | int, ...]) -> Place:
    # pydantic puts the chosen member of a union into the location; it stands nowhere in the file.
    return tuple(
        part
        for index, part in enumerate(location)
        if not (index and isinstance(location[index - 1], int) and part in _UNION_TAGS)
    )


_UNION_TAGS = {"http", "tcp", "redis", "file", "inline"}


def _message_of(item: Mapping[str, Any]) -> str:
    match item["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "is missing"
        case "value_error":
            return str(item["ctx"]["error"])
        case _:
            return str(item["msg"])


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
