"""A YAML or JSON file as plain data, with the line on which each value stands.

Every complaint about a configuration names its place; this module knows the places.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

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


SIZE_LIMIT = 8 * 2**20
DEPTH_LIMIT = 50  # levels inside each other
VALUES_LIMIT = 1_000_000  # with every alias written out

# The one in C is ten times as fast, and the watch goes on while a configuration is read.
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_document(file: Path) -> Document:
    """Read a YAML or JSON file (JSON is YAML). Raises ConfigError when it cannot be read or parsed."""
    try:
        with file.open("rb") as opened:
            content = opened.read(SIZE_LIMIT + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([_mistake(file, None, f"cannot be read: {reason}")]) from error
    if len(content) > SIZE_LIMIT:
        raise ConfigError([_mistake(file, None, f"has more than {SIZE_LIMIT // 2**20} MiB")])
    return parse_document(text, file)


def parse_document(text: str, file: Path) -> Document:
    """Parse YAML or JSON text that stands in *file*. Raises ConfigError with the line of the fault."""
    try:
        check_depth(text)
        root = yaml.compose(text, Loader=LOADER)
        if root is None:
            return Document(file=str(file), data={})
        _count(root, {}, file)
        lines: dict[Place, int] = {}
        mistakes: list[Mistake] = []
        _walk(root, (), lines, mistakes, file)
        if mistakes:
            raise ConfigError(mistakes)
        data = _constructed(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise ConfigError([_mistake(file, line, error.problem or "is not valid YAML")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([_mistake(file, None, f"is not valid YAML: {_one_line(error)}")]) from error
    except ValueError as error:  # what looks like a date or a number and is none
        raise ConfigError([_mistake(file, None, f"is not valid YAML: {_one_line(error)}")]) from error
    return Document(file=str(file), data=data, lines=lines)


def check_depth(text: str | bytes, *, aliases: bool = True) -> None:
    """Raise YAMLError when *text* is nested so deeply that reading it would end the process.

    Also, if told so, when there are *aliases*: a few bytes of them can be billions of values.
    """
    depth = 0
    for event in _events(text):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent) and not aliases:
            raise yaml.MarkedYAMLError(
                problem="has an alias", problem_mark=cast("yaml.Mark", event.start_mark)
            )
        if depth > DEPTH_LIMIT:
            raise _too_deep(cast("yaml.Mark", event.start_mark))


def _events(text: str | bytes) -> Iterator[yaml.Event]:
    """Read the events of *text*; newer versions of libyaml have a limit too, and reach it looking ahead."""
    try:
        yield from yaml.parse(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        if "maximum nesting depth" not in (error.problem or ""):
            raise
        raise _too_deep(error.problem_mark) from error


def _too_deep(mark: yaml.Mark | None) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=f"is nested more than {DEPTH_LIMIT} levels deep", problem_mark=mark)


def _count(node: yaml.Node, known: dict[int, int | None], file: Path) -> int:
    """Return how many values *node* has with every alias written out. Raises ConfigError.

    Some lines of aliases of aliases are billions of values, and an alias inside itself never ends.
    """
    line = node.start_mark.line + 1
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise ConfigError([_mistake(file, line, "contains itself through an alias")])
        return count
    known[id(node)] = None
    total = 1 + sum(_count(child, known, file) for child in _children(node))
    if total > VALUES_LIMIT:
        raise ConfigError([_mistake(file, line, f"has more than {VALUES_LIMIT} values through its aliases")])
    known[id(node)] = total
    return total


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _constructed(root: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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
