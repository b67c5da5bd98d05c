"""Programs with handlers, imported under the hook, and a reporter that keeps what it is told."""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from soulfra_monitor.events import Kind
from soulfra_monitor.hooks import Undo, swallowed, swallowed_ast, swallowed_monitoring
from tests.library.recorder import Recorder, Told


class Kept(Recorder):
    """Keeps what was swallowed."""

    def keep(self, told: Told) -> None:
        assert told.kind is Kind.SWALLOWED, told
        assert told.handled
        super().keep(told)

    @property
    def errors(self) -> list[BaseException]:
        return [one.error for one in self.told if one.error is not None]

    @property
    def facts(self) -> list[Mapping[str, Any]]:
        return [one.facts for one in self.told]

    @property
    def handlers(self) -> list[str]:
        return [Path(one.context["handler"]).name for one in self.told]

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
