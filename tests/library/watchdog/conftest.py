"""A reporter that keeps what it is told, and lets tests wait for it."""

import threading
from collections.abc import Iterator

import pytest

from soulfra_monitor.events import Kind
from tests.library.recorder import Recorder, Told

TIMEOUT = 30.0


class Kept(Recorder):
    """Keeps notes, and lets tests wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = threading.Condition()

    def keep(self, told: Told) -> None:
        assert told.error is None, told
        with self._arrived:
            super().keep(told)
            self._arrived.notify_all()

    def wait_for(self, kind: Kind) -> Told:
        """Return the first note of a kind, as soon as it is there."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.of(kind), TIMEOUT), self.told
        return self.of(kind)[0]


@pytest.fixture
def kept() -> Iterator[Kept]:
    one = Kept()
    yield one
    assert one.broken == []
