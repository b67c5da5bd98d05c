"""The exporter's benchmark runs to its end; its figures are its own matter."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_benchmark_measures_both_sides(binary: Callable[[str], str]) -> None:
    for program in ("prometheus", "prometheus-blackbox-exporter", "openssl"):
        binary(program)
    size = ["--rounds", "1", "--targets", "100", "--seconds", "5", "--warm-up", "1"]

    command = [sys.executable, "-m", "benchmarks.exporter", "cost", "hang", *size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)

    assert done.returncode == 0, done.stderr
    file = Path(done.stdout.rsplit("written to ", 1)[1].strip())
    result = json.loads(file.read_text())
    file.unlink()
    assert result["cost"]["installed plain"]["ratio"] > 0
    assert result["cost"]["installed tls"]["blackbox_exporter"]["checks"] > 0
    assert result["hang"]["count"] > 0
