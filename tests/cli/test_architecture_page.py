"""docs/architecture.md has a place for every module."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["soulfra_monitor", "remediator"])
def test_every_module_is_in_it(package: str) -> None:
    names = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    plain = {name for name in names if not name.startswith("cli_")}

    assert [name for name in sorted(plain) if not re.search(rf"\b{name}\b", PAGE)] == []


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)

    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
