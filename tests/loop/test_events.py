"""Errors that applications report, on real parts: one death is one restart, and files are mended at once."""

import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from benchmarks.harness import DemoStack, demo_config, wait_until

_SERVICE = "mobile-converter"
_DEAF = "chat-analyzer"
_NEEDS_A_FOLDER = "orchestrator"
_READS_ITS_FOLDER = """
import os, runpy, sys
from soulfra_monitor import ErrorMonitor
monitor = ErrorMonitor(service="orchestrator", url=sys.argv.pop(1))
monitor.start()
os.listdir(sys.argv.pop(1))
monitor.stop()
sys.path.insert(0, os.getcwd())
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
_IGNORES_SIGTERM = """
import runpy, signal, sys
_set = signal.signal
signal.signal = lambda number, how: _set(number, signal.SIG_IGN if number == signal.SIGTERM else how)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """Run the demo with folders that may be mended, and one service that must be killed to end."""
    folder = tmp_path_factory.mktemp("events")
    program_file = folder / "reads_its_folder.py"
    program_file.write_text(_READS_ITS_FOLDER)
    (folder / "needed").mkdir()

    def declare(config: dict[str, Any]) -> None:
        config["services"][_SERVICE]["paths"] = [
            {"path": str(folder / "out"), "mode": "0750", "create": True}
        ]
        restart = config["services"][_DEAF]["restart"]
        python, *program = restart["command"]
        restart["command"] = [python, "-c", _IGNORES_SIGTERM, *program]
        needs = config["services"][_NEEDS_A_FOLDER]
        needs["paths"] = [{"path": str(folder / "needed"), "mode": "0750", "create": True}]
        python, *program = needs["restart"]["command"]
        url = f"http://{config['remediator']['listen']}"
        needs["restart"]["command"] = [python, str(program_file), url, str(folder / "needed"), *program]
        config["demo"]["load"] = []

    config, _ = demo_config(declare)
    with DemoStack(folder=folder, config=config) as running:
        yield running


def _report(stack: DemoStack, **event: Any) -> None:
    answer = stack.post("errors", {"service": _SERVICE, "message": "told by a test", **event})
    assert answer.status_code == 200, answer.text


def _recovered(stack: DemoStack, problem: str, since: float, within: float) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        return next(
            (
                error
                for error in stack.errors(_SERVICE)
                if error["type"] == problem and error["recovered"] and _seconds(error["recoveredAt"]) > since
            ),
            None,
        )

    return wait_until(f"{problem} recovered\n{stack.output()}", look, within)


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _runs(stack: DemoStack, since: float, service: str = _SERVICE) -> list[dict[str, Any]]:
    found = stack.api("runs", since="1h", service=service)["runs"]
    return [run for run in found if _seconds(run["startedAt"]) > since]


def test_a_death_that_the_exporter_and_a_library_tell_is_one_restart(stack: DemoStack) -> None:
    before = stack.pid(_SERVICE)
    began = time.time()
    at = stack.kill(_SERVICE)
    _report(stack, kind="exit", facts={"signal": 9})

    _recovered(stack, "process_died", at, within=30)
    _recovered(stack, "service_down", at, within=30)
    wait_until(
        "every alert is over",
        lambda: not any(error["open"] for error in stack.errors(_SERVICE)),
        30,
    )
    _report(stack, kind="exit", facts={"signal": 9})  # once more, after everything

    (run,) = _runs(stack, began)
    assert run["outcome"] == "recovered"
    assert stack.pid(_SERVICE) != before


def test_a_file_that_was_refused_is_mended_within_seconds(stack: DemoStack) -> None:
    out = stack.folder / "out"
    out.mkdir(mode=0o500)
    pid = stack.pid(_SERVICE)
    at = time.time()

    _report(stack, kind="file", facts={"errno": 13, "path": str(out)})

    error = _recovered(stack, "permission_denied", at, within=15)
    assert error["subject"] == str(out)
    assert error["recoveryTime"] < 10_000
    assert out.stat().st_mode & 0o7777 == 0o750
    assert stack.pid(_SERVICE) == pid
    detail = stack.api(f"errors/{error['id']}")
    assert detail["error"]["suggestedFix"]["action"] == "file"
    assert detail["error"]["observations"]["services"][_SERVICE]["status"] == "up"
    assert [step["action"] for run in detail["runs"] for step in run["steps"]] == ["file"]


def test_a_missing_folder_is_made_and_its_event_is_shown(stack: DemoStack) -> None:
    out = stack.folder / "out"
    at = time.time()
    out.rmdir()

    _report(stack, kind="file", facts={"errno": 2, "path": str(out)})
    error = _recovered(stack, "missing_file", at, within=15)
    assert out.is_dir()

    detail = stack.api(f"errors/{error['id']}")["error"]
    assert detail["events"][0]["facts"]["path"] == str(out)
    assert detail["suggestedFix"]["knob"] == f"services.{_SERVICE}.paths"


def test_a_file_that_was_missing_with_its_folder_is_the_programs_to_write(stack: DemoStack) -> None:
    out = stack.folder / "out"
    at = time.time()
    out.rmdir()

    _report(stack, kind="file", facts={"errno": 2, "path": str(out / "a.md")})

    error = _recovered(stack, "missing_file", at, within=15)
    assert (error["subject"], error["attempts"], error["escalatedAt"]) == (str(out / "a.md"), 1, None)
    assert list(out.iterdir()) == []


def test_a_hung_service_that_we_killed_ourselves_tells_of_no_second_failure(stack: DemoStack) -> None:
    before = stack.pid(_DEAF)
    at = stack.kill(_DEAF, signal.SIGSTOP)

    def told() -> dict[str, Any] | None:
        found = stack.api("decisions", since="1h")["decisions"]
        return next(
            (one for one in found if one["service"] == _DEAF and one["cause"].startswith("v1.")), None
        )

    decision = wait_until(f"the death is told\n{stack.output()}", told, 60)

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = stack.api(f"runs/{decision['run']}")
        return found if found["endedAt"] else None

    run = wait_until("the run has ended", ended, 30)
    assert run["outcome"] == "recovered"
    assert (decision["verdict"], decision["reason"]) == ("refused", "duplicate")
    assert decision["error"] == run["error"]
    assert any(f"{before} killed after" in step["result"] for step in run["steps"])
    wait_until(
        "every error is over", lambda: not any(error["open"] for error in stack.errors(_DEAF)), within=30
    )
    assert {error["type"] for error in stack.errors(_DEAF)} <= {"service_down", "service_timeout"}
    assert stack.pid(_DEAF) != before
    assert [one["id"] for one in _runs(stack, at, _DEAF)] == [run["id"]]


def test_a_service_that_crashes_at_start_for_a_missing_folder_is_up_again_soon(stack: DemoStack) -> None:
    needed = stack.folder / "needed"
    before = stack.pid(_NEEDS_A_FOLDER)
    needed.rmdir()
    at = stack.kill(_NEEDS_A_FOLDER)
    _report(stack, service=_NEEDS_A_FOLDER, kind="exit", facts={"signal": 9})

    def up() -> float | None:
        status = stack.api("health")["services"][_NEEDS_A_FOLDER]["status"]
        pid = stack.pid(_NEEDS_A_FOLDER) if needed.is_dir() and status != "critical" else None
        return time.time() if pid not in (None, before) else None

    took = wait_until(f"it is up again\n{stack.output()}", up, 60) - at

    def over() -> dict[str, Any] | None:
        found = {error["type"]: error for error in stack.errors(_NEEDS_A_FOLDER)}
        mine = {name: found.get(name) for name in ("missing_file", "process_died", "service_down")}
        return mine if all(error and not error["open"] for error in mine.values()) else None

    errors = wait_until(f"what was told of it is over\n{stack.output()}", over, 30)
    assert errors["missing_file"]["recoveredBy"] == "run"
    assert [error["escalatedAt"] for error in errors.values()] == [None] * 3
    assert errors["service_down"]["recoveryTime"] < 10_000, stack.output()
    assert took < 12, stack.output()
