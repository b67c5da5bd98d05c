"""Reads targets that others name, and makes services of them. Pure; nothing here is trusted."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from zlib import crc32

import yaml

from exporter.config import Service
from exporter.document import LOADER, check_depth
from exporter.fields import NAME
from exporter.gate import Gate
from exporter.template import MissingLabelError, Target, fill, gets_holes, templates

TARGETS_LIMIT = 10_000  # of one source
SIZE_LIMIT = 10 * 2**20
YAML_LIMIT = 2 * 2**20  # slower to read by a power of ten
VALUES_LIMIT = 50 * TARGETS_LIMIT
"""Of a JSON text: nothing else runs while it is read, some 0.1 s for so many."""
_TEXT_LIMIT = 1000
_LABELS_LIMIT = 64
_NAME_LIMIT = 63


class Failure(StrEnum):
    """Why a source gave no list. Closed: it is a label of a metric."""

    READ = "read"  # a file cannot be read
    CONNECT = "connect"
    TIMEOUT = "timeout"
    STATUS = "status"
    CONTENT_TYPE = "content_type"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    FORMAT = "format"
    INTERNAL = "internal"


class Skip(StrEnum):
    """Why a target became no service. Closed: it is a label of a metric."""

    MALFORMED = "malformed"  # not as the format wants it
    LABEL = "label"  # the template asks for a label it does not have
    INVALID = "invalid"  # the filled-in service is not valid
    TAKEN = "taken"  # the configuration or an earlier target has the name


class SourceError(Exception):
    """A source gave no list; what it gave last stays."""

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(text)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a source named: targets, and how many entries were not targets at all."""

    targets: tuple[Target, ...] = ()
    malformed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The services that the targets of one source became."""

    services: Mapping[str, Service] = field(default_factory=dict)
    skipped: Counter[Skip] = field(default_factory=Counter)
    example: str = ""  # what is wrong with the first that was skipped
    known: Mapping[tuple[object, ...], tuple[str, Service]] = field(default_factory=dict)  # by target


NOTHING = Made()


def parse(text: bytes, *, is_json: bool) -> Found:
    """Read the content of a file or an answer. Raises SourceError when it is not a list of groups."""
    limit = SIZE_LIMIT if is_json else YAML_LIMIT
    if len(text) > limit:
        raise SourceError(Failure.TOO_LARGE, f"it has more than {limit // 2**20} MiB")
    try:
        data = _json(text) if is_json else _yaml(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise SourceError(Failure.FORMAT, f"it is not valid {'JSON' if is_json else 'YAML'}") from error
    if data is None and not is_json:
        data = []
    if not isinstance(data, list):
        raise SourceError(Failure.FORMAT, "it is not a list of groups with targets")
    return _found(data)


def _json(text: bytes) -> Any:
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > VALUES_LIMIT:
        raise SourceError(Failure.TOO_LARGE, f"it has more than {VALUES_LIMIT:,} values")
    return json.loads(text.decode(json.detect_encoding(text)))  # strictly: json itself mends bit by bit


def _yaml(text: bytes) -> Any:
    check_depth(text, aliases=False)
    return yaml.load(text, Loader=LOADER)  # noqa: S506 - it is a safe one


def _found(groups: list[Any]) -> Found:
    targets: list[Target] = []
    malformed = 0
    for target in _targets(groups):
        if target is None:
            malformed += 1
        else:
            targets.append(target)
        if len(targets) > TARGETS_LIMIT:
            raise SourceError(Failure.TOO_MANY, f"it names more than {TARGETS_LIMIT} targets")
    return Found(targets=tuple(targets), malformed=malformed)


def _targets(groups: list[Any]) -> Iterator[Target | None]:
    for group in groups:
        addresses = group.get("targets") if isinstance(group, dict) else None
        labels = _labels(group.get("labels")) if isinstance(group, dict) else None
        if not isinstance(addresses, list) or labels is None:
            yield None
            continue
        for address in addresses:
            yield Target(address, labels) if _is_text(address) and " " not in address else None


def _labels(value: object) -> dict[str, str] | None:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _LABELS_LIMIT:
        return None
    fine = all(isinstance(name, str) and (text == "" or _is_text(text)) for name, text in value.items())
    return value if fine else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _TEXT_LIMIT and value.isprintable()


def services_of(
    targets: Iterable[Target],
    template: Mapping[str, Any],
    taken: Iterable[str],
    before: Made = NOTHING,
    *,
    gate: Gate,
) -> Made:
    """Make a service of each target; what does not become a valid one is skipped and counted.

    Their probes go where *gate* is open. What was made *before*, with the same template and gate, is taken
    over: thousands of targets seldom all change.
    """
    services: dict[str, Service] = {}
    known: dict[tuple[object, ...], tuple[str, Service]] = {}
    skipped: Counter[Skip] = Counter()
    example = ""
    names = set(taken)
    for target in targets:
        try:
            made = before.known.get(target.identity) or _service_of(target, template, gate)
        except ValueError as error:
            skip = Skip.LABEL if isinstance(error, MissingLabelError) else Skip.INVALID
            text = str(error)
        else:
            name, service = known[target.identity] = made
            if name not in names:
                names.add(name)
                services[name] = service
                continue
            skip, text = Skip.TAKEN, f"there is a service {name} already"
        skipped[skip] += 1
        example = example or f"{target.address}: {' '.join(text.split())}"
    return Made(services=services, skipped=skipped, example=example, known=known)


def _service_of(target: Target, template: Mapping[str, Any], gate: Gate) -> tuple[str, Service]:
    values = fill({"name": "{{ address }}", **template}, target)
    name = name_of(values.pop("name"))
    steps = [probe for probe in template.get("probes", ()) if "steps" in probe]
    if any(gets_holes(text, target) for _, text in templates(steps)):
        raise ValueError("one of its values has {{ in it, which would be read as a captured value")
    if any(str(value).startswith("unix:") for probe in values.get("probes", ()) for value in probe.values()):
        raise ValueError("a place on this machine is not for others to choose")
    return name, Service.model_validate(values).named_by_others(gate)


def name_of(text: str) -> str:
    """Make a valid name of service out of *text*. Raises ValueError when nothing is left of it."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("_.-")
    if len(name) > _NAME_LIMIT:
        name = f"{name[: _NAME_LIMIT - 9]}-{crc32(text.encode()):08x}"
    if not NAME.match(name):
        raise ValueError(f"{text!r} makes no name")
    return name


def is_json_file(file: Path) -> bool:
    """Whether *file* is read as JSON."""
    return file.suffix == ".json"
