"""The kinds of probes as the configuration writes them: ``{http: ..., timeout: 2s}``.

The key that names the kind chooses the model. Models are imported when a configuration uses them:
every one costs memory, in the remediator too.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, PlainValidator, model_validator

from exporter.fields import Duration, Name, Strict

KINDS: dict[str, str] = {
    "http": "exporter.kinds.http:HttpProbe",
    "steps": "exporter.kinds.steps:StepsProbe",
    "tcp": "exporter.kinds.tcp:TcpProbe",
    "redis": "exporter.kinds.redis:RedisProbe",
    "queue": "exporter.kinds.queue:QueueProbe",
    "container": "exporter.kinds.container:ContainerProbe",
    "file": "exporter.kinds.file:FileProbe",
    "filesystem": "exporter.kinds.filesystem:FilesystemProbe",
    "command": "exporter.kinds.command:CommandProbe",
    "unix": "exporter.kinds.unix:UnixProbe",
    "dns": "exporter.kinds.dns:DnsProbe",
    "grpc": "exporter.kinds.grpc:GrpcProbe",
    "postgres": "exporter.kinds.postgres:PostgresProbe",
    "mysql": "exporter.kinds.mysql:MysqlProbe",
}
"""Kind to the model of its configuration; ``exporter.probes.PROBES`` has the functions."""

PLUGINS = "soulfra_monitor.probes"
"""Entry-point group of third-party kinds; each names a module with ``Config``, a ProbeBase, and ``probe``."""


class ProbeBase(Strict):
    """What every probe has; a value left out comes from the exporter's section."""

    kind: ClassVar[str]

    name: Name | None = None
    interval: Duration | None = None
    interval_on_failure: Duration | None = None
    timeout: Duration | None = None
    confirm: Annotated[int, Field(ge=1, le=20)] | None = None

    def address(self) -> tuple[str, int] | None:
        """Return host and port it connects to, when it is one place."""
        return None


class IpChoice(Strict):
    """Which addresses of a name are taken."""

    ip_version: Literal[4, 6] | None = None
    ip_fallback: bool = True  # the other version, if a name has no address of this one

    @model_validator(mode="after")
    def _fallback_has_a_version(self) -> Self:
        if "ip_fallback" in self.model_fields_set and self.ip_version is None:
            raise ValueError("ip_fallback needs ip_version: the version that is preferred")
        return self


_LOWEST_TLS = "1.2"  # where the configuration names none
KEY_ALONE = "key_file needs cert_file, the certificate that goes with it"


class Tls(Strict):
    """How a TLS peer is checked, and what we show it."""

    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    min_version: Literal["1.0", "1.1", "1.2", "1.3"] | None = None
    max_version: Literal["1.0", "1.1", "1.2", "1.3"] | None = None

    @model_validator(mode="after")
    def _leads_to_a_handshake(self) -> Self:
        check_handshake(self.min_version, self.max_version)
        if self.key_file is not None and self.cert_file is None:
            raise ValueError(KEY_ALONE)
        return self


def check_handshake(lowest: str | None, highest: str | None) -> None:
    """Raise ValueError when no version of TLS, such as 1.2, is between *lowest* and *highest*."""
    if highest is not None and highest < (lowest or _LOWEST_TLS):
        raise ValueError(
            f"max_version {highest} is below min_version, which is {lowest or _LOWEST_TLS}"
            f"{'' if lowest else ' where none is given'}: no handshake could succeed"
        )


def read_probe(value: object) -> ProbeBase:
    """Read a probe with the model of its kind. Raises ValueError, with the places inside if it can."""
    if isinstance(value, ProbeBase):
        return value
    given = [key for key in value if key in KINDS] if isinstance(value, dict) else []
    if isinstance(value, dict) and not given:
        given = [key for key in value if isinstance(key, str) and _entry_point(key) is not None]
    if len(given) != 1:
        many = f", not {' and '.join(given)} together" if given else ""
        raise ValueError(f"a probe needs one of the keys {_names()}{many}")
    return model_of(given[0]).model_validate(value)


def model_of(kind: str) -> type[ProbeBase]:
    """Import and return the model of *kind*."""
    if kind in KINDS:
        module, _, name = KINDS[kind].partition(":")
        model: type[ProbeBase] = getattr(import_module(module), name)
        return model
    plugin = plugin_of(kind)
    if plugin is None:
        raise KeyError(kind)
    config: type[ProbeBase] = plugin.Config
    return config


@cache
def plugin_of(kind: str) -> ModuleType | None:
    """Import and return the plugin module of *kind*; None when there is none. Broken: ValueError."""
    point = _entry_point(kind)
    if point is None:
        return None
    try:
        plugin = point.load()
    except Exception as error:
        # The edge to somebody else's code: it is told as a mistake, whatever goes wrong in it.
        fault = f"{type(error).__name__}: {error}"
        raise ValueError(f"the plugin {point.value} cannot be loaded: {fault}") from error
    config = getattr(plugin, "Config", None)
    if not (isinstance(config, type) and issubclass(config, ProbeBase) and kind in config.model_fields):
        raise ValueError(f"the plugin {point.value} has no Config, a ProbeBase with the field {kind}")
    if getattr(config, "kind", None) != kind or not callable(getattr(plugin, "probe", None)):
        raise ValueError(f"the plugin {point.value} needs Config.kind {kind!r} and a function probe")
    return cast("ModuleType", plugin)


def _entry_point(kind: str) -> Any:
    from importlib.metadata import entry_points  # noqa: PLC0415 - only for a key that nobody else knows

    return next(iter(entry_points(group=PLUGINS, name=kind)), None)


def _names() -> str:
    *first, last = KINDS
    return f"{', '.join(first)} or {last}"


AnyProbe = Annotated[ProbeBase, PlainValidator(read_probe)]
