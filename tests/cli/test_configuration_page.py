"""The examples of docs/configuration.md are right, and its lists are whole."""

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from exporter.config import OwnPath
from remediator.cli import main
from remediator.config import EventsSection, load
from remediator.events import _FACTS
from remediator.playbook import STEP_ARGS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
SERVICE = {"probes": [{"http": "http://127.0.0.1:4002/health"}], "restart": {"command": ["true"]}}


def section(heading: str) -> str:
    return PAGE.partition(f"\n{heading}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: str(text.split("\n")[1].strip()))
def test_an_example_is_accepted(tmp_path: Path, example: str) -> None:
    written = yaml.safe_load(example)
    services = {"payments": SERVICE, **written.get("services", {})}
    for service in services.values():
        service.pop("depends_on", None)  # on what stands in another example
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump({**written, "services": services}), encoding="utf-8")

    done = CliRunner().invoke(main, ["check", "--config", str(file)])

    assert done.exit_code == 0, done.output


def test_the_example_of_paths_is_read_as_it_is_explained(tmp_path: Path) -> None:
    (example,) = [text for text in EXAMPLES if "\n    paths:" in text]
    file = tmp_path / "soulfra.yml"
    file.write_text(example, encoding="utf-8")

    (service,) = load(file, {}).config.services.values()

    assert [path.kind for path in service.paths] == ["directory", "file", "lock"]


def test_every_key_of_a_path_is_explained() -> None:
    rows = re.findall(r"^\| (`.*?) \|", section("### Files that may be mended"), flags=re.MULTILINE)

    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == OwnPath.model_fields.keys()


def test_every_key_of_the_events_section_is_explained() -> None:
    rows = re.findall(r"^\| (`remediator\.events\..*?) \|", PAGE, flags=re.MULTILINE)

    names = {key for row in rows for key in re.findall(r"`(?:remediator\.events\.)?(\w+)`", row)}
    assert names == EventsSection.model_fields.keys()


def test_every_action_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("## Playbooks"), flags=re.MULTILINE)

    assert set(rows) >= STEP_ARGS.keys()


def test_every_fact_that_playbooks_can_match_is_named() -> None:
    assert [fact for fact in _FACTS if f"`{fact}`" not in section("## Playbooks")] == []


def test_every_shipped_playbook_is_named(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text("services: {}\n", encoding="utf-8")

    for playbook in load(file, {}).playbooks:
        assert f"`{playbook.name}`" in section("## Playbooks")
