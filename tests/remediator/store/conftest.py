"""The stores that the contract is tried on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from remediator.store import Store, open_store


@pytest.fixture(params=["sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store of each kind may be opened; empty, and gone after the test."""
    return {"sqlite": f"sqlite:{tmp_path / 'store.db'}"}[request.param]


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    opened = open_store(address)
    yield opened
    opened.close()
