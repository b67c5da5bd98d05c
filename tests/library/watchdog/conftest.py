"""A reporter that keeps what it is told, and lets tests wait for it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest

from soulfra_monitor.events import Kind

TIMEOUT = 30.0


@dataclass(frozen=True)
class Note:
    kind: Kind
    message: str
    service: str | None
    stack: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)


class Kept:
    """Keeps notes."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.broken: list[tuple[str, BaseException]] = []
        self._arrived = threading.Condition()

    def raised(self, kind: Kind, error: BaseException, **_: Any) -> None:
        raise AssertionError(kind) from error

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
        stack = []
        while frame is not None:
            stack.append(frame.f_code.co_name)
            frame = frame.f_back
        with self._arrived:
            self.notes.append(Note(kind, message, service, stack, dict(facts or {}), dict(context or {})))
            self._arrived.notify_all()

    def broke(self, place: str, error: BaseException) -> None:
        self.broken.append((place, error))

    def of(self, kind: Kind) -> list[Note]:
        return [note for note in self.notes if note.kind is kind]

    def wait_for(self, kind: Kind) -> Note:
        """Return the first note of a kind, as soon as it is there."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.of(kind), TIMEOUT), self.notes
        return self.of(kind)[0]


@pytest.fixture
def kept() -> Iterator[Kept]:
    one = Kept()
    yield one
    assert one.broken == []
