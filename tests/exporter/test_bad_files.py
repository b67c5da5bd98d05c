"""Every rule of the configuration has a file in bad/ that breaks it and says what has to be found."""

import ast
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest

from exporter import document
from exporter.config import WatchConfig
from exporter.document import ConfigError, Mistake, parse_document, read_document
from exporter.loading import load_config
from exporter.webconfig import load_web_config

ROOT = Path(__file__).parents[2]

BAD = Path(__file__).parent / "bad"
FILES = [*sorted(BAD.glob("*.yml")), *sorted(BAD.glob("web-config/*.yml"))]
WANTED = re.compile(r"^# (\d+|-): (.*?): (.+)$")


def wanted_of(file: Path) -> list[tuple[str, str, str]]:
    lines = file.read_text(errors="replace").splitlines()
    found = [WANTED.match(line) for line in takewhile(lambda line: line.startswith("# "), lines)]
    return [(match[1], match[2], match[3]) for match in found if match]


def is_as_wanted(mistake: Mistake, wanted: tuple[str, str, str]) -> bool:
    line, place, message = wanted
    begins = message.removesuffix("...") if message.endswith("...") else None
    said = mistake.message.startswith(begins) if begins is not None else mistake.message == message
    return (str(mistake.line or "-"), mistake.place) == (line, place) and said


@cache
def mistakes_in(file: Path) -> list[Mistake]:
    try:
        load_web_config(file) if file.parent.name == "web-config" else load_config(file, WatchConfig, {})
    except ConfigError as error:
        return error.mistakes
    return []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_that_breaks_a_rule_is_refused_with_line_place_and_mend(file: Path) -> None:
    wanted = wanted_of(file)
    assert wanted, "the file does not say in its first lines what has to be found"
    began = time.monotonic()

    found = mistakes_in(file)

    assert len(found) == len(wanted), found
    assert all(is_as_wanted(*pair) for pair in zip(found, wanted, strict=True)), found
    assert all(mistake.file == str(file) for mistake in found)
    assert time.monotonic() - began < 5


RULED = (
    *("exporter.config", "exporter.fields", "exporter.gate", "exporter.modules", "exporter.sources"),
    *("exporter.webconfig", "exporter.kinds"),
    *sorted(f"exporter.kinds.{file.stem}" for file in (ROOT / "exporter/kinds").glob("[a-z]*.py")),
)
"""Modules with rules of the configuration."""

ELSEWHERE = {
    "must be a whole number of milliseconds": "of the environment: test_config",
    "grpcio is not installed": "needs a library to be away: test_config_net",
    " is not installed; pip install": "needs a library to be away: test_config_net",
    "the plugin ": "needs a plugin: test_plugins",
    "query: must have at most 100000": "would be a file of 100 kB: made below",
}
"""Rules that no file of its own can break, and where they are tried."""

LIMITS = {
    "ge": "must be at least {:.15g}",
    "gt": "must be more than {:.15g}",
    "le": "must be at most {:.15g}",
    "max_length": "must have at most {} (characters|entry|entries)",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a file has to be told: a pattern of the message, and the key it stands at if that is known."""

    module: str
    message: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message

    def is_told_by(self, mistake: Mistake) -> bool:
        key = re.sub(r"\[\d+\]$", "", mistake.place).rpartition(".")[2]
        return (not self.key or self.key == key) and bool(
            re.fullmatch(self.message, mistake.message, re.DOTALL)
        )


def pattern_of(node: ast.expr, module: ModuleType) -> str:
    """Return what a message must look like that is made in this way; anything where a value stands."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(pattern_of(part, module) for part in parts)
        case ast.Name(id=name) if isinstance(getattr(module, name, None), str):
            return re.escape(str(getattr(module, name)))
        case ast.FormattedValue(value=ast.Name() as name):
            return pattern_of(name, module)
        case _:
            return ".*"


def raised_in(module: ModuleType, tree: ast.Module) -> Iterator[Rule]:
    """Find every message of a ValueError."""
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id="ValueError"), args=[message])):
                yield Rule(module.__name__, pattern_of(message, module))


def limits_in(module: ModuleType, tree: ast.Module) -> Iterator[Rule]:
    """Find every bound and every choice of a field, with the key that the field has in a file."""
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                key = alias_of(value) or name
            case ast.Assign(targets=[ast.Name()], value=annotation):
                key = ""
            case _:
                continue
        for part in ast.walk(annotation):
            match part:
                case ast.Call(func=ast.Name(id="Field"), keywords=words):
                    for word in words:
                        yield from (Rule(module.__name__, text, key) for text in bounds_of(word, module))
                case ast.Subscript(
                    value=ast.Name(id="Literal"), slice=ast.Tuple(elts=[ast.Constant(value=one), *_])
                ):
                    yield Rule(module.__name__, f"must be {re.escape(repr(one))}(, | or ).*", key)


def bounds_of(word: ast.keyword, module: ModuleType) -> Iterator[str]:
    limit = eval(ast.unparse(word.value), vars(module)) if word.arg in {*LIMITS, "min_length"} else None
    if word.arg == "min_length":
        yield "must not be empty"
    elif word.arg in LIMITS:
        yield LIMITS[word.arg].format(limit)


def alias_of(value: ast.expr | None) -> str | None:
    match value:
        case ast.Call(func=ast.Name(id="Field"), keywords=words):
            return next(
                (
                    str(word.value.value)
                    for word in words
                    if word.arg == "alias" and isinstance(word.value, ast.Constant)
                ),
                None,
            )
        case _:
            return None


def rules() -> list[Rule]:
    found: list[Rule] = []
    for name in RULED:
        module = import_module(name)
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        found += [*raised_in(module, tree), *limits_in(module, tree)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("rule", rules(), ids=str)
def test_each_rule_is_broken_by_a_file(rule: Rule) -> None:
    if any(part in str(rule).replace("\\", "") for part in ELSEWHERE):
        return
    told = [mistake for file in FILES for mistake in mistakes_in(file) if rule.is_told_by(mistake)]

    assert told, f"no file in bad/ is told: {rule}"


def test_no_message_is_in_words_of_python() -> None:
    words = re.compile(
        r"\b(Input|String|Tuple|Dictionary|List|Value error|NoneType|constrained|int|str|dict)\b"
    )
    told = [mistake for file in FILES for mistake in mistakes_in(file)]

    assert [str(mistake) for mistake in told if words.search(mistake.message)] == []
    assert [
        str(mistake) for mistake in told if "[key]" in mistake.place or "constrained" in mistake.place
    ] == []


def test_a_query_of_a_book_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    probe = f"{{postgres: 'postgresql://me@db.example/shop', query: '{'x' * 100_001}'}}"
    file.write_text(f"services:\n  x:\n    probes: [{probe}]\n")

    assert [mistake.message for mistake in mistakes_in(file)] == ["must have at most 100000 characters"]


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_bytes(b"#" * (document.SIZE_LIMIT + 1))

    with pytest.raises(ConfigError, match="has more than 8 MiB"):
        read_document(file)


@pytest.mark.parametrize("text", ["[" * 1_000_000, "- " * 100_000, "{a: " * 100_000, "? " * 100_000])
def test_no_nesting_ends_the_process(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested more than 50 levels deep"):
        parse_document(text, tmp_path / "soulfra.yml")


def test_aliases_and_merge_keys_that_are_meant_still_work(tmp_path: Path) -> None:
    text = "base: &base {host: a, depends_on: []}\nservices:\n  x: {<<: *base, host: b}\n  y: *base\n"

    data = parse_document(text, tmp_path / "soulfra.yml").data

    assert data["services"] == {"x": {"host": "b", "depends_on": []}, "y": {"host": "a", "depends_on": []}}


def test_five_thousand_services_are_read_in_a_moment(tmp_path: Path) -> None:
    service = "{probes: [{tcp: '127.0.0.1:1', timeout: 2s}], depends_on: []}"
    text = "services:\n" + "".join(f"  agent-{number}: {service}\n" for number in range(5000))

    began = time.process_time()
    found = parse_document(text, tmp_path / "soulfra.yml")

    assert time.process_time() - began < 4
    assert found.lines["services", "agent-4999", "probes", 0, "tcp"] == 5001
