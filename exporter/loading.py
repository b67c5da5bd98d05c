"""Reads a configuration file into the models: environment over YAML over the errorMonitoring JSON."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from exporter.config import EnvironmentKey, JsonMonitoring, JsonService, WatchConfig
from exporter.document import ConfigError, Document, Mistake, Place, read_document
from exporter.wording import message_of

Config = TypeVar("Config", bound=WatchConfig)


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
    data, wrong = _with_modules_file(data, file.parent)
    mistakes += wrong
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


def _with_modules_file(data: dict[Any, Any], folder: Path) -> tuple[dict[Any, Any], list[Mistake]]:
    """Put the modules of the file that exporter.modules_file names beside those in place."""
    section = _mapping(data.get("exporter"))
    name, inline = section.get("modules_file"), section.get("modules", {})
    if not isinstance(name, str) or not isinstance(inline, dict):
        return data, []
    from exporter.translation import ModulesFile  # noqa: PLC0415 - costs memory; few use modules

    try:
        document = read_document(folder / name)
    except ConfigError as error:
        return data, error.mistakes
    try:
        modules = ModulesFile.model_validate(document.data).modules
    except ValidationError as error:
        return data, mistakes_of(error, document)
    twice = [
        document.mistake(("modules", module), "stands in exporter.modules too")
        for module in modules
        if module in inline
    ]
    merged = {**section, "modules": {**modules, **inline}}
    return {**data, "exporter": merged}, twice


def mistakes_of(error: ValidationError, document: Document) -> list[Mistake]:
    """Turn what pydantic found into mistakes with their lines."""
    items = error.errors()
    places = [_place_of(item["loc"]) for item in items]
    return [
        document.mistake(place, message_of(item))
        for place, item in zip(places, items, strict=True)
        # An empty list whose members were wrong is told by its members.
        if item["type"] != "too_short" or not any(_is_below(other, place) for other in places)
    ]


def _is_below(place: Place, ancestor: Place) -> bool:
    return len(place) > len(ancestor) and place[: len(ancestor)] == ancestor


def _place_of(location: tuple[str | int, ...]) -> Place:
    location = tuple(part for part in location if part != "[key]")  # the key is the last part already
    # pydantic puts the chosen member of a union into the location; it stands nowhere in the file.
    return (*location[:2], *location[3:]) if _is_playbook(location) else location


def _is_playbook(location: tuple[str | int, ...]) -> bool:
    section, tag = location[:1], location[2:3]
    return section == ("playbooks",) and tag in {("file",), ("inline",)}


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}
