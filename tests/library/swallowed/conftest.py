"""Programs with handlers, imported under the hook, and a reporter that keeps what it is told."""

import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import dedent
from types import FrameType, ModuleType
from typing import Any

import pytest

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Undo, swallowed, swallowed_ast, swallowed_monitoring


class Kept:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.facts: list[dict[str, Any]] = []
        self.handlers: list[str] = []
        self.broken: list[tuple[str, BaseException]] = []

    def raised(
        self,
        kind: Kind,
        error: BaseException,
        *,
        service: str | None = None,
        message: str | None = None,
        handled: bool = True,
        facts: Any = None,
        context: Any = None,
    ) -> None:
        assert kind is Kind.SWALLOWED
        assert handled
        self.errors.append(error)
        self.facts.append(dict(facts or {}))
        self.handlers.append(Path(context["handler"]).name)

    def noted(
        self,
        kind: Kind,
        message: str,
        *,
        service: str | None = None,
        frame: FrameType | None = None,
        facts: Any = None,
        context: Any = None,
    ) -> None:
        raise AssertionError(message)

    def broke(self, place: str, error: BaseException) -> None:
        self.broken.append((place, error))

    @property
    def types(self) -> list[str]:
        return [type(error).__name__ for error in self.errors]


def by_ast(kept: Kept) -> Undo:
    return swallowed_ast.install(swallowed.teller(kept), kept.broke)


def by_monitoring(kept: Kept) -> Undo:
    undo = swallowed_monitoring.install(swallowed.teller(kept), kept.broke)
    assert undo is not None
    return undo


MEANS: dict[str, Callable[[Kept], Undo]] = {"ast": by_ast}
if sys.version_info >= (3, 12):
    MEANS["monitoring"] = by_monitoring


@pytest.fixture
def kept() -> Iterator[Kept]:
    reporter = Kept()
    yield reporter
    assert reporter.broken == []


@pytest.fixture(params=MEANS)
def means(request: pytest.FixtureRequest, kept: Kept) -> Iterator[str]:
    """Have each means of this Python watch in turn."""
    undo = MEANS[request.param](kept)
    yield request.param
    undo()


Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Import a text as a module of the program."""

    def load(text: str, name: str = "program") -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(dedent(text))
        spec = spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
