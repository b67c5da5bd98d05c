"""What the README shows works."""

import re
from pathlib import Path

from click.testing import CliRunner

from remediator.cli import COMMANDS, main

README = Path(__file__).resolve().parents[2] / "README.md"


def test_its_configuration_is_right(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "soulfra.yml"
    file.write_text(example, encoding="utf-8")

    done = CliRunner().invoke(main, ["check", "--config", str(file)])

    assert (done.exit_code, done.stderr) == (0, "")
    assert len(example.splitlines()) <= 20


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"soulfra ([a-z]+)", README.read_text(encoding="utf-8")))

    assert named - {"up"} <= set(COMMANDS)


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))

    assert [link for link in links if not (README.parent / link).exists()] == []
