"""The benchmarks run to their end; their figures are their own matter."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def test_the_benchmark_measures_calls_and_applications(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    command = [sys.executable, "-m", "benchmarks.watching", "--quick", "--results", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)

    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    variants = result["calls"]["variants"]
    assert variants["plain"]["ns"] < variants["watched, all features on"]["ns"]
    assert variants["async: plain"]["ns"] < variants["async: watched"]["ns"]
    assert len(variants) + 2 * len(result["calls"]["missing"]) >= 11
    for kind in ("flask", "asyncio"):
        assert set(result["applications"][kind]) == {"plain", "watched", "library"}
        assert result["applications"][kind]["library"]["microseconds"] > 0


def test_the_benchmark_has_the_remediator_away_and_finds_all_errors_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    command = [sys.executable, "-m", "benchmarks.watching", "away", "--quick", "--results", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)

    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())["away"]
    assert [phase["name"] for phase in result["phases"]] == ["there", "refused", "back", "black hole", "back"]
    assert all(phase["kept"] > 0 for phase in result["phases"] if phase["name"] in ("refused", "black hole"))
    assert result["seen"] == result["arrived"] > 0
    assert (result["dropped"], result["broken"]) == ({}, {})
