"""The feed is for people who look; when nobody does, nothing waits and nothing breaks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FULL = Path("/dev/full")
MANY = """
import sys, time
from remediator import feed
began = time.monotonic()
for number in range(5000):
    feed.print_line("test", f"{number} " + "x" * 200)
feed.flush(0.2)
sys.stderr.write(f"{time.monotonic() - began:.3f}")
sys.stderr.flush()
import os
os._exit(0)
"""


def said(output: Any) -> float:
    """Say many lines to *output*; return the seconds that took."""
    done = subprocess.run(
        [sys.executable, "-c", MANY], stdout=output, stderr=subprocess.PIPE, timeout=20, check=True
    )
    return float(done.stderr.split()[-1])


def test_a_pipe_that_nobody_reads_holds_up_nothing() -> None:
    reader, writer = os.pipe()
    try:
        assert said(writer) < 5
    finally:
        os.close(reader)
        os.close(writer)


def test_a_pipe_that_nobody_holds_breaks_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert said(writer) < 5
    finally:
        os.close(writer)


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_breaks_nothing() -> None:
    with FULL.open("w") as full:
        assert said(full) < 5


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_once_and_what_was_lost_is_counted() -> None:
    code = (
        "import os, sys, tempfile\nfrom remediator import feed\n"
        "out, sys.stdout = sys.stdout, open('/dev/full', 'w')\n"
        "for n in range(3): feed.print_line('test', f'line {n}'); feed.flush(5)\n"
        "full, sys.stdout = sys.stdout, out\n"
        "feed.print_line('test', 'back'); feed.flush(5)\nos._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )

    assert done.stdout.splitlines()[0] == "(3 lines were dropped)"
    assert (
        done.stderr.count("the feed cannot be printed, its lines are dropped: No space left on device") == 1
    )


def test_a_reader_gets_every_line_in_order() -> None:
    code = (
        "from remediator import feed\nfor n in range(50): feed.print_line('test', f'line {n}')\nfeed.flush()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert [line.rsplit(" ", 1)[1] for line in done.stdout.splitlines()] == [str(n) for n in range(50)]


def test_a_reader_that_comes_back_is_told_how_much_it_missed() -> None:
    slow = MANY.replace("import os\nos._exit(0)", "feed.flush(5)\nfeed.print_line('end', 'x')\nfeed.flush(5)")
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.read(1)  # all is said, and nothing was read yet
    with process:
        assert b"lines were dropped" in process.stdout.read()
        process.stderr.read()
