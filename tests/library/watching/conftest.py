"""What the tests of watching share: a reporter that remembers, and plain objects beside watched ones."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import pytest

from soulfra_monitor import cells
from soulfra_monitor.events import Calls, Kind
from soulfra_monitor.watching import DEFAULTS, Options, watch

T = TypeVar("T")
Prepare = Callable[[Any], Any]


@dataclass
class Told:
    """A reporter that keeps what it is told."""

    errors: list[tuple[Kind, BaseException]] = field(default_factory=list)
    notes: list[tuple[Kind, str]] = field(default_factory=list)
    facts: list[Mapping[str, Any]] = field(default_factory=list)
    broken: list[tuple[str, BaseException]] = field(default_factory=list)

    def raised(
        self,
        kind: Kind,
        error: BaseException,
        *,
        service: str | None = None,
        message: str | None = None,
        handled: bool = True,
        facts: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        assert not handled
        assert service == "svc"
        self.errors.append((kind, error))
        self.facts.append(facts or {})

    def noted(
        self,
        kind: Kind,
        message: str,
        *,
        service: str | None = None,
        frame: FrameType | None = None,
        facts: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        assert service == "svc"
        self.notes.append((kind, message))
        self.facts.append(facts or {})

    def broke(self, place: str, error: BaseException) -> None:
        self.broken.append((place, error))


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
