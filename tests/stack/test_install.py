"""The installer says what is missing where it cannot install it, and changes nothing then."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "env", "dirname", "sort", "cat", "id", "python3")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a checkout of what the installer needs, and a PATH with a shell, a few tools and Python."""
    shutil.copytree(ROOT / "scripts", tmp_path / "checkout" / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "checkout")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path / "checkout"


def install(checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(checkout / "scripts" / "install.sh"), *options],
        env={"PATH": str(checkout.parent / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_apt_it_names_every_missing_program(checkout: Path) -> None:
    done = install(checkout)

    assert done.returncode == 1
    for name in ("prometheus", "prometheus-alertmanager", "redis-server", "https://prometheus.io/download/"):
        assert name in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_too_old_is_told(checkout: Path) -> None:
    for name in ("prometheus", "alertmanager", "redis-server"):
        (checkout.parent / "bin" / name).symlink_to("/bin/true")
    (checkout.parent / "bin" / "python3").unlink()
    old = checkout.parent / "bin" / "python3"
    old.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n', encoding="utf-8"
    )
    old.chmod(0o755)

    done = install(checkout)

    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; python3 here is Python 3.9.2" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("script", ["scripts/install.sh", "scripts/install-packages.sh", ".ci/run"])
def test_the_scripts_are_executable_and_parse(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    assert (ROOT / script).stat().st_mode & 0o111
