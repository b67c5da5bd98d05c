"""What the tests of watching share: a reporter that remembers, and plain objects beside watched ones."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from soulfra_monitor import cells
from soulfra_monitor.events import Calls, Kind
from soulfra_monitor.watching import DEFAULTS, Options, watch
from tests.library.recorder import Recorder
from tests.library.recorder import Told as Noted

T = TypeVar("T")
Prepare = Callable[[Any], Any]


class Told(Recorder):
    """Keeps what it is told of a service ``svc``, whose errors nobody has handled."""

    def keep(self, told: Noted) -> None:
        assert told.service == "svc"
        assert told.error is None or not told.handled
        super().keep(told)

    @property
    def errors(self) -> list[tuple[Kind, BaseException]]:
        return [(one.kind, one.error) for one in self.told if one.error is not None]

    @property
    def notes(self) -> list[tuple[Kind, str]]:
        return [(one.kind, one.message) for one in self.told if one.error is None]

    @property
    def facts(self) -> list[Mapping[str, Any]]:
        return [one.facts for one in self.told]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(autouse=True)
def _counts_of_others() -> Iterator[None]:
    cells.drain()
    yield
    cells.drain()


@pytest.fixture
def see(told: Told) -> Callable[..., Any]:
    """Watch an object as ``svc``."""

    def watched(obj: T, options: Options = DEFAULTS) -> T:
        return watch(obj, "svc", told, options)

    return watched


@pytest.fixture
def counted() -> Callable[[], dict[str, Calls]]:
    """Return what was counted since the last time, by method."""
    return lambda: {calls.method: calls for calls in cells.drain()}


@pytest.fixture(params=["plain", "watched", "watched with every option"])
def prepare(request: pytest.FixtureRequest, told: Told) -> Prepare:
    """Return the object as it is, or watched: the test asserts the same of both."""
    every = Options(private=True, slow=60.0, timeout=60.0, failed=lambda _: False)
    options = {"watched": DEFAULTS, "watched with every option": every}.get(request.param)
    return (lambda obj: obj) if options is None else (lambda obj: watch(obj, "svc", told, options))
