"""The configuration of what is watched: strict models of ``soulfra.yml``.

The exporter reads its own sections and leaves the rest of the file to the remediator, whose
models extend ``WatchConfig``. ``exporter.loading`` reads files into them.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from exporter.document import Place
from exporter.fields import (
    Address,
    Duration,
    LabelName,
    LabelValue,
    Milliseconds,
    Name,
    ShardText,
    Strict,
    Url,
)
from exporter.gate import OPEN, Gate
from exporter.kinds import AnyProbe, ProbeBase
from exporter.kinds.process import ProcessProbe
from exporter.sources import AllowList, Source
from exporter.template import Target, fill, labels_in, templates


class Restart(Strict):
    """How a service is restarted."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]  # argv; no shell is involved
    cwd: str | None = None  # relative to the folder of the config file
    env: Mapping[str, str] = {}
    grace: Duration = 10.0  # from SIGTERM to SIGKILL
    log: str | None = None  # where its output goes; default: the data folder's logs/NAME.log


_MODE = re.compile(r"0?[0-7]{3}|[0-7]{4}")
_SET_USER_ID = 0o4000
_SET_GROUP_ID = 0o2000


class OwnPath(Strict):
    """A file, folder or lock that the remediator may mend, and how it must be; the rest is left alone."""

    path: str  # absolute, or relative to the folder of the config file
    kind: Literal["directory", "file", "lock"] = "directory"
    mode: str | None = None  # as "0750"
    owner: str | None = None  # a name or a number
    group: str | None = None
    create: bool = False  # make it where it is missing

    @field_validator("path")
    @classmethod
    def _path_is_plain(cls, path: str) -> str:
        plain = path.removeprefix("./")
        if not plain or os.path.normpath(plain) != plain or plain.startswith("..") or "\0" in plain:
            raise ValueError("must be a path without '.', '..' or a '/' at its end")
        if plain == "/":
            raise ValueError("must not be the root of everything")
        return plain

    @field_validator("mode", mode="before")
    @classmethod
    def _mode_is_text(cls, mode: object) -> object:
        # YAML reads a bare 0750 as the number 488, and 750 as 750: nobody can tell what was meant.
        if mode is None or (isinstance(mode, str) and _MODE.fullmatch(mode)):
            return mode
        raise ValueError('must be octal digits in quotes, for example "0750"')

    @field_validator("owner", "group", mode="before")
    @classmethod
    def _numbers_are_names(cls, name: object) -> object:
        return str(name) if isinstance(name, int) and not isinstance(name, bool) and name >= 0 else name

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        bits = int(self.mode or "0", 8)
        if bits & _SET_USER_ID or (self.kind == "file" and bits & _SET_GROUP_ID):
            raise ValueError("mode: must not let a file run as somebody else")
        if self.kind == "lock" and (self.mode or self.owner or self.group or self.create):
            raise ValueError("a lock is only removed; it has no mode, owner, group or create")
        return self


class Service(Strict):
    """One service to watch, and what the remediator may do to it."""

    host: str | None = None
    labels: Annotated[Mapping[LabelName, LabelValue], Field(max_length=16)] = {}  # of target_info and http_sd
    probes: tuple[AnyProbe, ...] = ()
    process: ProcessProbe | None = None
    restart: Restart | None = None
    depends_on: tuple[Name, ...] = ()
    timeout_threshold: Duration = 1.0  # an answer slower than this is too slow
    error_threshold: Annotated[int, Field(ge=0)] = 3  # errors per 5 minutes that raise error_rate; 0: never
    auto_restart: bool = True  # false: a restart asks a person first
    logs: tuple[str, ...] = ()  # files whose tails are evidence
    paths: tuple[OwnPath, ...] = ()  # what the remediator may mend of files
    hooks: Mapping[Name, Url] = {}  # addresses the service offers for repairs, for example reconnect_redis
    _gate: Gate = PrivateAttr(default=OPEN)

    @property
    def gate(self) -> Gate:
        """Where its probes may go: anywhere, unless others named its address."""
        return self._gate

    def named_by_others(self, gate: Gate) -> Self:
        """Let its probes go only where *gate* is open."""
        self._gate = gate
        return self

    def all_probes(self) -> tuple[tuple[str, ProbeBase], ...]:
        """Every probe of the service with its unique name, the process probe last."""
        named: list[tuple[str, ProbeBase]] = []
        probes: list[ProbeBase] = [*self.probes, *([self.process] if self.process else [])]
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
    probe: AnyProbe


class Heartbeat(Strict):
    """A job that must report: at least every period, at most grace late."""

    period: Duration
    grace: Duration = 60.0


class Blind(Strict):
    """When the prober itself is suspected: this share of at least so many targets fails at once."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5  # more than this share
    at_least: Annotated[int, Field(ge=2)] = 3  # targets failing


TOLD_EACH = 5
"""So many services with the same warning have a line each; more have one together."""

ALERTMANAGER_LISTEN = "127.0.0.1:9093"
"""Where Alertmanager is when nothing else is said; of the exporter and of the stack alike."""


def _read_module(value: object) -> object:
    from exporter.translation import read_module  # noqa: PLC0415 - costs memory; few use modules

    return read_module(value)


class Discovery(Source):
    """A source of targets; each becomes a service."""

    @field_validator("service")
    @classmethod
    def _makes_a_service(cls, service: Mapping[str, Any]) -> Mapping[str, Any]:
        """Try the template on a target, and pass over what depends on the target's own values."""
        labels = {name: "1" for _, text in templates(dict(service)) for name in labels_in(text)}
        values = fill(dict(service), Target("127.0.0.1:1", labels))
        values.pop("name", None)
        templated = {place for place, _ in templates(dict(service))}
        try:
            Service.model_validate(values)
        except ValidationError as error:
            if any(item["loc"] not in templated for item in error.errors()):
                raise
        return service


class ExporterSection(Strict):
    """How the exporter runs."""

    listen: Address = "127.0.0.1:9877"
    interval: Duration = 5.0
    interval_on_failure: Duration = 0.5
    timeout: Duration = 2.0
    confirm: Annotated[int, Field(ge=1, le=20)] = 2
    concurrency: Annotated[int, Field(ge=1)] = 1000
    resolver: Literal["dns", "system"] = "dns"  # who is asked for the addresses of names
    fast_path: bool = True
    refresh: Duration = 10.0  # how often a standing fast-path alert is sent again
    alertmanagers: tuple[Url, ...] = ()
    blind: Blind = Blind()
    web_config: str | None = None  # a web-config.yml as of Prometheus's exporters, relative to this file
    shard: ShardText = "0/1"  # watch this part of the services only
    allow_targets: AllowList = ()  # places that /probe may be sent to
    modules_file: str | None = None  # a blackbox.yml, relative to the folder of this file
    modules: Mapping[str, Annotated[Any, PlainValidator(_read_module)]] = {}  # as in a blackbox.yml


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

    # Deferred as in Strict.
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)

    exporter: ExporterSection = ExporterSection()
    services: Mapping[Name, Service] = {}
    integrations: tuple[Integration, ...] = ()
    heartbeats: Mapping[Name, Heartbeat] = {}
    discovery: tuple[Discovery, ...] = ()
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
        return mistakes + _cycles(needs) + _second_names(data.get("discovery"))

    def warnings(self) -> list[str]:
        """Say what is allowed but probably not meant."""
        places: list[tuple[str, str]] = []
        for name, service in self.services.items():
            if not service.all_probes():
                places.append((f"services.{name}", "has neither probes nor process, so nothing watches it"))
            limit = min((p.timeout or self.exporter.timeout for p in service.probes), default=None)
            if limit is not None and service.timeout_threshold >= limit:
                message = (
                    f"{service.timeout_threshold:g} s is never reached, "
                    f"because a probe gives up after {limit:g} s; raise the probe's timeout"
                )
                places.append((f"services.{name}.timeout_threshold", message))
            if service.host is not None:
                places.append(
                    (f"services.{name}.host", "is told in metrics only; no remediator goes by it yet")
                )
        found = folded(places)
        for name, module in self.exporter.modules.items():
            found += [f"exporter.modules.{name}: {warning}" for warning in module.warnings()]
            if module.prober == "http" and module.http.proxy_url and self.exporter.allow_targets:
                found.append(
                    f"exporter.modules.{name}: http.proxy_url: the proxy resolves names, so that an allowed"
                    " name opens whatever address it leads to there"
                )
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


def folded(places: Iterable[tuple[str, str]]) -> list[str]:
    """Write a line for each place and its message; of many with one message only the first, and how many."""
    by_message: dict[str, list[str]] = {}
    for place, message in places:
        by_message.setdefault(message, []).append(place)
    found = []
    for message, alike in by_message.items():
        told = alike if len(alike) <= TOLD_EACH else alike[:1]
        found += [f"{place}: {message}" for place in told]
        if len(alike) > len(told):
            found[-1] += f" (and {len(alike) - len(told):,} more services)"
    return found


def _second_names(sources: object) -> list[tuple[Place, str]]:
    names = [_mapping(source).get("name") for source in sources] if isinstance(sources, list) else []
    return [
        (("discovery", index, "name"), f"is the second source named {name!r}")
        for index, name in enumerate(names)
        if name is not None and name in names[:index]
    ]


def _cycles(needs: Mapping[str, list[str]]) -> list[tuple[Place, str]]:
    from graphlib import CycleError, TopologicalSorter  # noqa: PLC0415 - only needed while loading

    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return [(("services", circle[0], "depends_on"), f"goes in a circle: {' -> '.join(circle)}")]
    return []


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
