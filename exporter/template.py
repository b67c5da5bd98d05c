"""``{{ address }}`` and ``{{ labels.NAME }}`` in the service that a discovered target becomes.

Values come from another system. They are put into strings and nowhere else, once, and are never
read as templates themselves.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.document import Place

_HOLE = re.compile(r"\{\{\s*(address|labels\.([A-Za-z_][A-Za-z0-9_]*))\s*\}\}")


@dataclass(frozen=True, slots=True)
class Target:
    """One target as Prometheus's file_sd and http_sd name it."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from other targets, to look it up by."""
        return (self.address, *self.labels.items())


class MissingLabelError(ValueError):
    """The template asks for a label that the target does not have."""


def fill(value: Any, target: Target) -> Any:
    """Return *value* with every template in its strings filled in. Raises MissingLabelError."""
    match value:
        case str():
            return _HOLE.sub(lambda hole: _value_of(hole, target), value)
        case dict():
            return {key: fill(inner, target) for key, inner in value.items()}
        case list() | tuple():
            return [fill(inner, target) for inner in value]
        case _:
            return value


def _value_of(hole: "re.Match[str]", target: Target) -> str:
    name = hole[2]
    if name is None:
        return target.address
    if name not in target.labels:
        raise MissingLabelError(f"the target has no label {name}")
    return target.labels[name]


def templates(value: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Find every string in *value* that has a template, or what looks like one, with its place."""
    match value:
        case str() if "{{" in value:
            yield place, value
        case dict():
            for key, inner in value.items():
                yield from templates(inner, (*place, str(key)))
        case list() | tuple():
            for index, inner in enumerate(value):
                yield from templates(inner, (*place, index))


def labels_in(text: str) -> list[str]:
    """Return the names of the labels that *text* asks for."""
    return [hole[2] for hole in _HOLE.finditer(text) if hole[2] is not None]


def unknown_in(text: str, known: Iterable[str] = ()) -> bool:
    """Whether *text* has a template that means nothing here; *known* are names that steps capture."""
    rest = _HOLE.sub("", text)
    for name in known:
        rest = re.sub(rf"\{{\{{\s*{re.escape(name)}\s*\}}\}}", "", rest)
    return "{{" in rest


def gets_holes(text: str, target: Target) -> bool:
    """Whether a value of *target* would itself be read as a template, by the steps that *text* is for."""
    filled: str = fill(text, target)
    return filled.count("{{") > _HOLE.sub("\0", text).count("{{")
