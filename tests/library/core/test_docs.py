"""docs/library.md tells of every setting and every reason."""

import re
from pathlib import Path

import pytest

from soulfra_monitor.capture import FACTS
from soulfra_monitor.settings import _READERS, _VARIABLES
from tests.library.core.conftest import ROOT

TEXT = (ROOT / "docs" / "library.md").read_text()
CODE = "\n".join(path.read_text() for path in (ROOT / "soulfra_monitor").glob("*.py"))


@pytest.mark.parametrize("name", _READERS)
def test_every_setting_is_told_with_its_variable(name: str) -> None:
    variable = f"`{_VARIABLES[name]}`" if name in _VARIABLES else ""

    assert re.search(rf"^\| `{name}` \| {variable} ?\|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("fact", sorted(FACTS))
def test_every_fact_is_told(fact: str) -> None:
    assert f"`{fact}`" in TEXT


def test_every_reason_for_a_drop_is_told() -> None:
    reasons = set(re.findall(r'drop\("(\w+)"', CODE)) | set(re.findall(r'_give_up\("(\w+)"', CODE))
    reasons |= set(re.findall(r'Lost\(\w+\.weight, "(\w+)"', CODE))

    assert {"usual", "spool_age", "refused"} <= reasons
    assert {reason for reason in reasons if f"`{reason}`" not in TEXT} == set()


def test_the_examples_can_be_read_as_python() -> None:
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)

    assert len(examples) == 2
    for example in examples:
        compile(example, str(Path("docs/library.md")), "exec")
