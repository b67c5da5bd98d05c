"""A program that has the library in it, run under the monitor as well."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = """
    from soulfra_monitor import ErrorMonitor

    class Till:
        def open(self):
            raise KeyError("no key")

    monitor = ErrorMonitor(service="shop").start()
    till = monitor.add_service("till", Till())
    monitor.gauge("drift").set(0.5)
    try:
        till.open()
    except KeyError as error:
        print("no key, it seems", error)
    monitor.report("the drawer is stuck")
    monitor.stop()
    with ErrorMonitor(service="shop") as again:
        again.report("still stuck")
    print(monitor.stats().broken)
    raise RuntimeError("closed")
"""


def test_a_program_with_a_monitor_of_its_own_runs_as_ever_and_all_is_told_once(
    run: Any, program: Callable[..., Path], remediator: Any
) -> None:
    path = str(program(PROGRAM))

    plain, watched = run(path, watched=False), run(path)

    assert (watched.returncode, watched.stdout) == (plain.returncode, plain.stdout) == (1, plain.stdout)
    assert watched.stderr.splitlines()[-1] == "RuntimeError: closed"
    remediator.wait_for("uncaught")
    told = [event["message"] for event in remediator.of("reported") if event["service"] != "shop"]
    assert told == ["the drawer is stuck", "still stuck"]
    assert [event["service"] for event in remediator.of("method")] == ["till", "till"]


def test_modules_of_the_program_by_the_names_of_pythons_run_when_it_imports_them_and_not_before(
    run: Callable[..., Any], program: Callable[..., Path], remediator: Any
) -> None:
    names = ("random", "queue", "dis", "email", "resource", "signal")
    for name in names:
        program(f"print('its own {name}', flush=True)\n", f"{name}.py")
    path = program(f"print('begins', flush=True)\nimport {', '.join(names)}\nraise SystemExit(3)\n")

    ended = run(str(path))

    assert ended.returncode == 3
    assert ended.stdout == "begins\n" + "".join(f"its own {name}\n" for name in names)
    assert ended.stderr == ""
    assert remediator.wait_for("exit")["facts"] == {"exit_code": 3}
