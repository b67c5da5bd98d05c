"""Where services are found besides the configuration: Prometheus's file_sd and http_sd."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from exporter.fields import Duration, Name, Strict, Url
from exporter.gate import ANYWHERE_ELSE, Gate, gate_of, readable_entry
from exporter.kinds import Tls
from exporter.template import templates, unknown_in

NETWORK_KINDS = ("http", "steps", "tcp", "dns", "redis", "grpc", "postgres", "mysql", "queue")
"""Kinds whose strings another system may fill: they only talk; the others look at this machine."""
_SERVICE_KEYS = ("name", "probes", "labels", "host", "timeout_threshold", "error_threshold")
_OURS = ("_file", "socket")
_ENDINGS = (".json", ".yml", ".yaml")


def _pattern(value: str) -> str:
    folder, _, last = value.rpartition("/")
    if "*" in folder or not last.endswith(_ENDINGS):
        raise ValueError("must end with .json, .yml or .yaml and may have * in its last part only")
    return value


def _refresh(value: float) -> float:
    if value < 1:
        raise ValueError("must be at least 1s")
    return value


AllowList = tuple[Annotated[str, AfterValidator(readable_entry)], ...]
"""Places that may be asked, as ``exporter.gate`` reads them."""


class BasicAuth(Strict):
    """A user whose password is in a file."""

    username: str
    password_file: str


class FileSd(Strict):
    """Files as for Prometheus's ``file_sd_configs``."""

    files: Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], Field(min_length=1)]


class HttpSd(Strict):
    """An address as for Prometheus's ``http_sd_configs``."""

    url: Url
    timeout: Duration = 10.0
    basic_auth: BasicAuth | None = None
    bearer_token_file: str | None = None
    tls: Tls = Tls()

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.basic_auth is not None and self.bearer_token_file is not None:
            raise ValueError("give basic_auth or bearer_token_file, not both")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("write name and password as basic_auth, not into the url")
        return self


class Source(Strict):
    """One source of targets, and the service that each of them becomes."""

    name: Name | None = None
    file_sd: FileSd | None = None
    http_sd: HttpSd | None = None
    refresh: Annotated[Duration, AfterValidator(_refresh)] = 30.0
    service: Mapping[str, Any]  # of the model Service, with templates
    allow_targets: AllowList = ANYWHERE_ELSE  # what is named by others does not choose this machine

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.file_sd is None) == (self.http_sd is None):
            raise ValueError("a source needs one of the keys file_sd or http_sd")
        return self

    @property
    def where(self) -> FileSd | HttpSd:
        """The place that is asked for targets."""
        where = self.file_sd or self.http_sd
        if where is None:
            raise RuntimeError("a source without a place got through its validation")
        return where

    def gate(self, name: str) -> Gate:
        """Return the gate that its services are asked through; *name* is that of the source."""
        return gate_of(self.allow_targets, f"allow_targets of discovery {name}")

    @field_validator("service")
    @classmethod
    def _harmless(cls, service: Mapping[str, Any]) -> Mapping[str, Any]:
        for key in service:
            if key not in _SERVICE_KEYS:
                raise ValueError(
                    f"{key} cannot be given for services that are found; known are {', '.join(_SERVICE_KEYS)}"
                )
        for index in range(len(_listed(service.get("probes")))):
            if "address" in (_captured_at(service, ("probes", index)) or ()):
                raise ValueError("address is the target's here; capture it under another name")
        for place, text in templates(dict(service)):
            captured = _captured_at(service, place)
            if unknown_in(text, captured or ()):
                known = "{{ address }} and {{ labels.NAME }}"
                if captured is not None:
                    known = "{{ address }}, {{ labels.NAME }} and what the steps capture"
                raise ValueError(f"{text!r}: known are {known}")
            if place[0] == "probes":
                _check_probe_template(service, place)
        return service


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _captured_at(service: Mapping[str, Any], place: tuple[str | int, ...]) -> set[str] | None:
    """Return the names that the steps of the probe at *place* capture; None for what is no such probe."""
    probes, index = _listed(service.get("probes")), place[1] if len(place) > 1 else None
    if place[0] != "probes" or not isinstance(index, int) or index >= len(probes):
        return None
    probe = probes[index]
    if not isinstance(probe, dict) or "steps" not in probe:
        return None
    captures = [step.get("capture") for step in _listed(probe["steps"]) if isinstance(step, dict)]
    return {str(name) for capture in captures if isinstance(capture, dict) for name in capture}


def _check_probe_template(service: Mapping[str, Any], place: tuple[str | int, ...]) -> None:
    """Refuse a template where its value could choose a file or a command of this machine."""
    probes = service.get("probes")
    index = place[1] if len(place) > 1 else None
    if not (isinstance(probes, list | tuple) and isinstance(index, int)):
        raise ValueError("probes is a list, and templates stand in its strings")  # noqa: TRY004 - a mistake in a file
    probe = probes[index]
    if not isinstance(probe, dict) or not any(kind in probe for kind in NETWORK_KINDS):
        raise ValueError(f"templates are for probes of the kinds {', '.join(NETWORK_KINDS)} only")
    named = [part for part in place[2:] if isinstance(part, str)]
    if any(part.endswith(_OURS) for part in named):
        raise ValueError(f"{'.'.join(named)} names something of this machine; no template may choose it")
