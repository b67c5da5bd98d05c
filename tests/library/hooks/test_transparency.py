"""Python's own tests come out under the hooks as they do without, and stderr stays the program's own."""

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

MODULES = [
    "test.test_httplib",
    "test.test_warnings",
    "test.test_atexit",
    "test.test_coroutines",
    "test.test_asyncio.test_futures",
    "test.test_asyncio.test_subprocess",
]

RUN = """
import importlib, io, json, sys, unittest
sys.path.insert(0, {root!r})
broken = []
if {hooked!r}:
    from soulfra_monitor.hooks.table import HOOKS
    class Reporter:
        def raised(self, *args, **more): pass
        def noted(self, *args, **more): pass
        def broke(self, place, error): broken.append(f"{{place}}: {{error!r}}")
    for name, place in HOOKS.items():
        if name != "swallowed":
            module, _, function = place.partition(":")
            getattr(importlib.import_module(module), function)(Reporter())
suite = unittest.defaultTestLoader.loadTestsFromName({module!r})
result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
failed = sorted(str(test) for test, _ in (*result.failures, *result.errors))
print()
print(json.dumps({{"ran": result.testsRun, "failed": failed, "broken": broken}}))
"""


def outcome(module: str, folder: Path, *, hooked: bool) -> object:
    folder.mkdir()
    code = RUN.format(root=str(ROOT), hooked=hooked, module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=150, cwd=folder
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", MODULES)
def test_pythons_own_tests_come_out_the_same(module: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("test") is None or importlib.util.find_spec(module) is None:
        pytest.skip("this Python comes without its tests")

    with ThreadPoolExecutor(1) as pool:
        bare = pool.submit(outcome, module, tmp_path / "bare", hooked=False)
        hooked = outcome(module, tmp_path / "hooked", hooked=True)

    assert hooked == bare.result()


ALONE = """
import sys
sys.path.insert(0, {root!r})
{first}
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor(service="shop", url="http://127.0.0.1:1", spool={spool!r})
monitor.start()
monitor.report("lost")
monitor.flush(2)
{then}
"""


def alone(folder: Path, first: str, then: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a program whose remediator is away."""
    code = ALONE.format(root=str(ROOT), first=first, then=then, spool=str(folder / "spool"))
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60, cwd=folder
    )


@pytest.mark.parametrize("first", ["", "import logging"])
def test_that_the_remediator_is_away_is_not_said_on_the_programs_stderr(first: str, tmp_path: Path) -> None:
    assert alone(tmp_path, first).stderr == ""


def test_a_log_that_the_program_has_set_up_says_that_the_remediator_is_away(tmp_path: Path) -> None:
    done = alone(tmp_path, "import logging; logging.basicConfig()")

    assert "soulfra_monitor:errors are kept until they can be sent" in done.stderr


def test_a_stack_that_the_program_has_used_up_is_counted_and_not_complained_of(tmp_path: Path) -> None:
    then = """
monitor.broke("a place", RecursionError())
monitor.flush(1)
print(dict(monitor.stats().broken))
"""

    done = alone(tmp_path, "import logging; logging.basicConfig()", then)

    assert (done.stdout, "a place" in done.stderr) == ("{'a place': 1}\n", False)


def test_who_lists_the_programs_threads_finds_none_of_ours(tmp_path: Path) -> None:
    first = """
import logging, threading, time
said = threading.Event()
class Asks(logging.Handler):
    def emit(self, record):
        said.set()
logging.basicConfig(handlers=[Asks()])
"""
    then = """
assert said.wait(10)  # logging has asked for the thread that said so
end = time.monotonic() + 10
while threading.active_count() > 1 and time.monotonic() < end:
    time.sleep(0.01)
print([thread.name for thread in threading.enumerate()])
"""

    assert alone(tmp_path, first, then).stdout == "['MainThread']\n"
