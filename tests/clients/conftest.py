"""Node, the oldest that is promised and the one that is installed, and the packages its tests need."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "clients" / "node"
OLDEST = "16"
"""The Node of the npm package ``node``, the oldest that the client promises."""


def _missing(what: str) -> None:
    """Skip on a user's machine, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def packages() -> Path:
    """Install what the client's tests need, unless it is there; tests in two processes may ask at once."""
    with (CLIENT / "package.json").open(encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return _installed(file.read())


def _installed(wanted: str) -> Path:
    modules = CLIENT / "node_modules"
    stamp = modules / ".installed"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return modules
    npm = shutil.which("npm")
    if npm is None:
        _missing("npm is not installed (Debian: apt-get install nodejs npm)")
    command = [str(npm), "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    made = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=170, check=False)
    if made.returncode != 0:
        _missing(f"npm ci failed: {made.stderr[-500:]}")
    stamp.write_text(wanted, encoding="utf-8")
    return modules


@pytest.fixture(params=["installed", OLDEST])
def node(request: pytest.FixtureRequest, packages: Path) -> str:
    """Return the path of a Node."""
    path = shutil.which("node") if request.param == "installed" else str(packages / "node" / "bin" / "node")
    if path is None or not Path(path).is_file():
        _missing(f"Node ({request.param}) is missing")
    return str(path)
