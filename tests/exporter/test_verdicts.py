"""Our verdicts are those of the real blackbox_exporter, but for the differences that the table names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.verdicts.cases import CASES
from benchmarks.verdicts.table import BLACKBOX, run_table


async def test_our_verdicts_are_those_of_blackbox_exporter(
    binary: Callable[[str], str], tmp_path: Path
) -> None:
    if os.environ.get("CI") != "true":
        pytest.importorskip("grpc_health")
    for program in ("openssl", "dnsmasq"):
        binary(program)

    rows = await run_table(binary(BLACKBOX), tmp_path)

    assert len(rows) >= 170
    assert {row.case.name: row.mistakes for row in rows if row.mistakes} == {}


def test_each_case_has_a_name_of_its_own_and_each_difference_a_reason() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert [case.name for case in CASES if (case.ours is None) is bool(case.why)] == []


def test_docs_name_each_deliberate_difference() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "blackbox.md").read_text()

    assert [case.why for case in CASES if case.why and case.why not in docs] == []
