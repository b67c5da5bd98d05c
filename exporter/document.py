"""A YAML or JSON file as plain data, with the line on which each value stands.

Every complaint about a configuration names its place; this module knows the places.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing wrong in a configuration: where, and how to mend it."""

    file: str
    line: int | None
    place: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.place}: {self.message}" if self.place else f"{where}: {self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used; carries every mistake found, not the first alone."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The data of one file and the line of each of its values, by path."""

    file: str
    data: Any
    lines: Mapping[Place, int] = field(default_factory=dict)

    def mistake(self, path: Place, message: str) -> Mistake:
        """Blame the value at *path*, or its nearest ancestor that stands in the file."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return Mistake(file=self.file, line=self.lines.get(known), place=format_path(path), message=message)


def format_path(path: Place) -> str:
    """Write ``("services", "redis", "probes", 0)`` as ``services.redis.probes[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_document(file: Path) -> Document:
    """Read a YAML or JSON file (JSON is YAML). Raises ConfigError when it cannot be read or parsed."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([_mistake(file, None, f"cannot be read: {reason}")]) from error
    return parse_document(text, file)


def parse_document(text: str, file: Path) -> Document:
    """Parse YAML or JSON text that stands in *file*. Raises ConfigError with the line of the fault."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        lines: dict[Place, int] = {}
        mistakes: list[Mistake] = []
        if root is not None:
            _walk(root, (), lines, mistakes, file)
        if mistakes:
            raise ConfigError(mistakes)
        data = loader.construct_document(root) if root is not None else {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError([_mistake(file, line, error.problem or "is not valid YAML")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([_mistake(file, None, f"is not valid YAML: {error}")]) from error
    finally:
        loader.dispose()
    return Document(file=str(file), data=data, lines=lines)


def _walk(node: yaml.Node, path: Place, lines: dict[Place, int], mistakes: list[Mistake], file: Path) -> None:
    if path in lines:
        # PyYAML lets the last of two equal keys win; in an operator's config that hides a mistake.
        first = lines[path]
        line = node.start_mark.line + 1
        mistakes.append(
            Mistake(
                file=str(file),
                line=line,
                place=format_path(path),
                message=f"stands twice, first on line {first}",
            )
        )
        return
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _walk(value, (*path, str(key.value)), lines, mistakes, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, mistakes, file)


def _mistake(file: Path, line: int | None, message: str) -> Mistake:
    return Mistake(file=str(file), line=line, place="", message=message)
