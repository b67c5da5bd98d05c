"""The wheel carries everything that ``soulfra up --demo`` needs."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from remediator.stack.shipped import shipped_platform, shipped_rules

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    if find_spec("hatchling") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("missing: hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("package", ["soulfra_monitor", "exporter", "remediator"])
def test_every_file_of_a_package_is_in_it(names: set[str], package: str) -> None:
    files = (
        path for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".yml", ".html", ".typed")
    )

    assert {str(path.relative_to(ROOT)) for path in files} <= names


def test_the_rules_are_in_it(names: set[str]) -> None:
    files = {str(path.relative_to(ROOT / "rules")) for path in (ROOT / "rules").rglob("*.yml")}

    assert {f"remediator/shipped/rules/{file}" for file in files} <= names


def test_the_example_platform_is_in_it(names: set[str]) -> None:
    files = {
        path.name for path in (ROOT / "examples" / "platform").iterdir() if path.suffix in (".py", ".yml")
    }

    assert {f"remediator/shipped/platform/{file}" for file in files} <= names


def test_the_node_client_is_in_it(names: set[str]) -> None:
    assert "remediator/shipped/node/silent-error-monitoring.js" in names


def test_nothing_that_only_a_checkout_needs_is_in_it(names: set[str]) -> None:
    assert not [
        name for name in names if name.startswith(("tests/", "benchmarks/", "docs/")) or ".pyc" in name
    ]


def test_a_checkout_uses_its_own_rules_and_platform() -> None:
    assert shipped_rules() == ROOT / "rules"
    assert shipped_platform() == ROOT / "examples" / "platform"
