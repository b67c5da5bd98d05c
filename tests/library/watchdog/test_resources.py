"""What counts as steady growth, and what a real process that leaks is told."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from math import sin
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from soulfra_monitor import groups, resources
from soulfra_monitor.events import Kind
from soulfra_monitor.resources import Limits, Resources, Usage

if TYPE_CHECKING:
    from .conftest import Kept
else:
    Kept = Any

ROOT = Path(__file__).parents[3]
MIB = 1 << 20


def test_the_trend_of_known_series_is_as_in_the_books() -> None:
    assert resources.theil_sen([1, 2, 3, 4, 5]) == 1
    assert resources.theil_sen([1, 2, 3, 4, 100]) == 1
    assert resources.mann_kendall([5, 5, 5, 5]) == 0
    assert resources.mann_kendall([1, 2, 3, 4, 5]) == pytest.approx(9 / (50 / 3) ** 0.5)
    assert resources.mann_kendall([5, 4, 3, 2, 1]) == pytest.approx(-9 / (50 / 3) ** 0.5)


Shape = Callable[[int, Random], float]


def watch(kept: Kept, shape: Shape, *, kind: Kind, seconds: int, limits: Limits, seed: int = 0) -> None:
    """Let that many seconds pass."""
    chance, clock = Random(seed), count()

    def use() -> Usage:
        value = int(shape(next(clock), chance))
        of = {Kind.HANDLES: 50, Kind.THREADS: 10, Kind.MEMORY: 200 * MIB} | {kind: value}
        return Usage(handles=of[Kind.HANDLES], threads=of[Kind.THREADS], memory=of[Kind.MEMORY])

    looked = Resources(kept, use, lambda: limits, 0.0)
    for second in range(seconds):
        looked.look(float(second))


LIMITS = Limits(handles=1024, memory=1024 * MIB)

HARMLESS: dict[str, Shape] = {
    "flat": lambda t, r: 200 * MIB,
    "noise": lambda t, r: (200 + r.uniform(-20, 20)) * MIB,
    "a sawtooth": lambda t, r: (200 + (t % 40) * 5) * MIB,
    "a fast sawtooth": lambda t, r: (200 + (t % 7) * 40) * MIB,
    "a slow sawtooth": lambda t, r: (200 + (t % 900) / 3) * MIB,
    "a step": lambda t, r: (200 if t < 1000 else 700) * MIB + r.uniform(0, MIB),
    "two steps": lambda t, r: (200 + 150 * (t // 2000)) * MIB + r.uniform(0, MIB),
    "a warm start": lambda t, r: (50 + min(t, 50) * 10) * MIB,
    "a filling cache": lambda t, r: (200 + 400 * (1 - 0.98**t)) * MIB + r.uniform(0, MIB),
    "day and night": lambda t, r: (300 + 200 * sin(t / 3000)) * MIB,
    "slow growth far from the limit": lambda t, r: (200 + t * 0.001) * MIB,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_use_of_memory_is_not_told(name: str, kept: Kept) -> None:
    for seed in range(3):
        watch(kept, HARMLESS[name], kind=Kind.MEMORY, seconds=4000, limits=LIMITS, seed=seed)

    assert kept.told == []


LEAKS: dict[str, tuple[Shape, int]] = {
    "fast": (lambda t, r: (200 + t * 2) * MIB + r.uniform(0, 5 * MIB), 300),
    "under a sawtooth": (lambda t, r: (200 + t * 0.5 + (t % 8) * 10) * MIB, 1300),
    "slow": (lambda t, r: (200 + t * 0.05) * MIB + r.uniform(0, 2 * MIB), 12000),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_told_long_before_the_limit_and_once(name: str, kept: Kept) -> None:
    shape, seconds = LEAKS[name]

    watch(kept, shape, kind=Kind.MEMORY, seconds=seconds, limits=LIMITS)

    note = kept.of(Kind.MEMORY)[0]
    assert note.facts["limit"] == 1024 * MIB
    assert note.facts["value"] < 0.8 * 1024 * MIB
    assert note.facts["seconds"] > 0
    assert len(kept.told) <= seconds / resources.QUIET + 1


def test_open_files_are_told_at_four_fifths_and_again_after_they_fell(kept: Kept) -> None:
    def use(t: int, _: Random) -> float:
        return 900 if t % 20 > 10 else 100

    watch(kept, use, kind=Kind.HANDLES, seconds=35, limits=LIMITS)

    assert [note.facts["value"] for note in kept.of(Kind.HANDLES)] == [900, 900]


def test_a_slow_leak_of_open_files_is_told_with_the_time_that_is_left(kept: Kept) -> None:
    watch(kept, lambda t, r: 50 + t * 0.5, kind=Kind.HANDLES, seconds=900, limits=LIMITS)

    note = kept.of(Kind.HANDLES)[0]
    assert note.facts["value"] < 0.8 * 1024
    assert note.facts["seconds"] > 60


def test_threads_that_pile_up_are_told(kept: Kept) -> None:
    watch(kept, lambda t, r: 10 + t * 0.5, kind=Kind.THREADS, seconds=600, limits=LIMITS)

    assert kept.of(Kind.THREADS)


def test_a_pool_that_fills_up_is_not_told(kept: Kept) -> None:
    watch(kept, lambda t, r: min(10 + t // 2, 60), kind=Kind.THREADS, seconds=3000, limits=LIMITS)

    assert kept.told == []


def test_this_process_is_seen_as_it_is() -> None:
    before = resources.usage()
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    after = resources.usage()
    for file in opened:
        os.close(file)

    assert after.handles - before.handles == 10
    assert after.threads >= 1
    assert after.memory > 5 * MIB
    assert resources.limits().handles == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert resources.limits().memory >= 64 * MIB


def test_a_real_process_that_runs_out_of_files_is_told() -> None:
    script = """
import resource, sys, threading
from soulfra_monitor import resources
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
told = threading.Event()
class Kept:
    def noted(self, kind, message, facts=None, **_):
        print(kind, facts["limit"], flush=True)
        told.set()
    def broke(self, place, error): raise error
undo = resources.install(Kept())
opened = []
try:
    while True:
        opened.append(open("/dev/null"))
except OSError:
    pass
told.wait(30)
undo()
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=60)

    assert done.stdout == "handles 60\n", done.stderr


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_limit_of_the_control_groups_counts(version: int, tmp_path: Path) -> None:
    mine = {line.split(":")[1]: line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().split()}
    path = mine.get("" if version == 2 else "memory")
    if path is None:
        pytest.skip(f"this process has no control group of version {version}")
    base = tmp_path if version == 2 else tmp_path / "memory"
    name, kills = (
        ("memory.max", "memory.events") if version == 2 else ("memory.limit_in_bytes", "memory.oom_control")
    )
    own = base / path.lstrip("/")
    own.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n" if version == 2 else "\n")
    (base / name).write_text("max\n" if version == 2 else f"{(1 << 63) - 4096}\n")
    (own / name).write_text(f"{512 * MIB}\n")
    (own / kills).write_text("oom 4\noom_kill 3\n")

    assert groups.memory_limit(os.getpid(), str(tmp_path)) == 512 * MIB
    assert groups.oom_kills(os.getpid(), str(tmp_path)) == 3
