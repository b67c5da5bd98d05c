"""Programs with modules of their own by the names of Python's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Recorder, Run
else:
    Recorder = Run = Any

NAMES = ("email", "resource", "ssl", "calendar", "tempfile", "random")
OWN = "print('its own {name}', flush=True)\nMARK = 1\n"


@pytest.fixture
def own(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(OWN.format(name=name))


@pytest.mark.usefixtures("own")
def test_modules_of_the_program_neither_run_for_us_nor_stand_in_our_way(recorder: Recorder, run: Run) -> None:
    ended = run(f"""
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor(without=[]).start()
monitor.report("told")
print(monitor.flush(10), monitor.stats().broken, flush=True)
import {", ".join(NAMES)}
print({" + ".join(f"{name}.MARK" for name in NAMES)})
""").end()

    out = "".join(f"its own {name}\n" for name in NAMES)
    assert ended == (0, f"True {{}}\n{out}{len(NAMES)}\n", "")
    assert [event.message for event in recorder.events] == ["told"]


@pytest.mark.usefixtures("own")
def test_what_the_program_has_imported_is_left_alone(run: Run) -> None:
    ended = run("""
import resource
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor(without=[]).start()
monitor.report("told")
print(monitor.flush(10), flush=True)
import resource
print(resource.MARK)
""").end()

    assert ended == (0, "its own resource\nTrue\n1\n", "")
