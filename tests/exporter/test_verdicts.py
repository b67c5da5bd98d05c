"""Our verdicts are those of the real blackbox_exporter, but for the differences that the table names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.verdicts.cases import CASES
from benchmarks.verdicts.table import BLACKBOX, Row, Verdict, run_table


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


def test_the_values_that_a_target_decides_are_compared() -> None:
    there = Verdict(success=True, values={"probe_http_status_code": 200, "probe_http_redirects": 1})
    here = Verdict(success=True, values={"probe_http_status_code": 200, "probe_http_content_length": 4})
    row = Row(case=CASES[0], blackbox=there, ours=here)

    assert row.mistakes == [
        "probe_http_content_length is 4, there None",
        "probe_http_redirects is None, there 1",
    ]


def test_each_case_has_a_name_of_its_own_and_each_difference_a_reason() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert [case.name for case in CASES if (case.ours is None) is bool(case.why)] == []


def test_docs_name_each_deliberate_difference() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "blackbox.md").read_text()

    reasons = {reason for case in CASES for reason in (case.why, *case.different.values()) if reason}

    assert sorted(reason for reason in reasons if reason not in docs) == []
