"""The changelog keeps up with the version."""

import re
from pathlib import Path

from soulfra_monitor import __version__

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


def test_its_newest_entry_is_of_this_version() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert versions[0] == __version__
