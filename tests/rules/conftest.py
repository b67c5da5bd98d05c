"""Which real tools the tests of rules and routes run on."""

import os
import shutil

import pytest


def _tool(*names: str) -> str:
    """Return the path of the first of *names* that is installed; skip without one, but fail in CI."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        message = f"{names[0]} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    return _tool("promtool")


@pytest.fixture(scope="session")
def amtool() -> str:
    return _tool("amtool")


@pytest.fixture(scope="session")
def alertmanager() -> str:
    """Return the Alertmanager program, by Debian's name or its own."""
    return _tool("prometheus-alertmanager", "alertmanager")
