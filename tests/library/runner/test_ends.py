"""How a program ended: what is told of it, once, and what is not."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from soulfra_monitor.crashes import Life
from soulfra_monitor.endings import judge

if TYPE_CHECKING:
    from .conftest import Remediator, Run, Start
else:
    Remediator = Run = Start = Any

READY = "import os, signal, sys, time\n"
WAITS = READY + "print('ready', flush=True)\nsys.stdin.read()\n"


def ready(process: Any) -> None:
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize(
    ("code", "asked", "life", "oom", "message"),
    [
        (0, {15}, None, False, None),
        (3, set(), None, False, "the program ended with status 3"),
        (3, set(), Life(notes=("exit app.py:3", "bye")), False, "the program ended with status 3"),
        (3, set(), Life(), False, "the program ended at once, as by os._exit with status 3"),
        (1, set(), Life(notes=("told", "bye")), False, None),
        (-15, {15}, None, False, None),
        (143, {15}, None, False, None),
        (130, {2}, None, False, None),
        (-15, set(), None, False, None),  # sent to the program itself
        (143, set(), None, False, "the program ended with status 143"),
        (-2, {15}, None, False, "the program was ended by SIGINT"),
        (-9, set(), None, False, "the program was ended by SIGKILL"),
        (-9, set(), None, True, "the kernel killed the program: memory ran out"),
        (-11, {11}, None, False, "the program was ended by SIGSEGV"),
        (
            -11,
            set(),
            Life(dump="Fatal Python error: Segmentation fault\n\nCurrent thread"),
            False,
            "the program was ended by SIGSEGV: Segmentation fault",
        ),
    ],
)
def test_a_bad_end_is_told_and_a_wanted_one_is_not(
    code: int, asked: set[int], life: Life | None, oom: bool, message: str | None
) -> None:
    ending = judge(code, asked, life, oom=oom)

    assert (ending.message if ending else None) == message


OUTSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "os.kill(os.getpid(), signal.SIGKILL)": ({"signal": "SIGKILL"}, "SIGKILL"),
    "os._exit(9)": ({"exit_code": 9}, "at once"),
    "sys.exit(3)": ({"exit_code": 3}, "with status 3"),
    "import ctypes; ctypes.string_at(0)": ({"signal": "SIGSEGV"}, "Segmentation fault"),
    "os.abort()": ({"signal": "SIGABRT"}, "Aborted"),
}


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_only_an_outsider_sees_is_told_once(
    text: str, run: Run, program: Callable[..., Path], remediator: Remediator, tmp_path: Path
) -> None:
    facts, part = OUTSIDE[text]

    run(str(program(READY + "def last():\n    " + text + "\nlast()\n")))

    event = remediator.wait_for("exit")
    assert list(tmp_path.rglob("*.life")) == []
    assert event["facts"].items() >= facts.items()
    assert part in event["message"]
    assert event["context"].get("at_once", False) is ("_exit" in text)
    assert event["service"] == "app"
    assert len(remediator.events) == 1


def test_a_crash_is_told_with_the_stack_of_python(
    run: Run, program: Callable[..., Path], remediator: Remediator
) -> None:
    run(str(program("import ctypes\ndef deep():\n    ctypes.string_at(0)\ndeep()\n")))

    assert "in deep" in remediator.wait_for("exit")["context"]["crash"]


def test_the_place_that_left_is_told(run: Run, program: Callable[..., Path], remediator: Remediator) -> None:
    path = program("import sys\n\nsys.exit(3)\n")

    run(str(path))

    assert remediator.wait_for("exit")["context"]["left_at"] == f"{path}:3"


def test_an_uncaught_error_is_told_by_the_program_alone(
    run: Run, program: Callable[..., Path], remediator: Remediator
) -> None:
    run(str(program("raise ValueError('v')\n")))

    remediator.wait_for("uncaught")
    assert [event["kind"] for event in remediator.events] == ["uncaught"]


DEATHS: dict[str, list[str]] = {
    "import logging\ntry:\n    1 / 0\nexcept Exception:\n    logging.exception('x')\n    raise\n": [
        "logged",
        "uncaught",
    ],
    "import sqlite3\nsqlite3.connect('/nonexistent/x.db')\n": ["database", "uncaught"],
    "import sys\nsys.excepthook = lambda *_: None\nraise ValueError\n": ["uncaught"],
    "import sys\ndef hook(*_):\n    sys.exit(4)\nsys.excepthook = hook\nraise ValueError\n": ["uncaught"],
    "next(iter(()))\n": ["uncaught"],
    "import asyncio\nraise asyncio.CancelledError\n": ["uncaught"],
}


@pytest.mark.parametrize("text", DEATHS)
def test_a_death_is_told_whatever_was_told_of_its_cause_before(
    text: str, run: Run, program: Callable[..., Path], remediator: Remediator
) -> None:
    run(str(program(text)))

    assert [event["kind"] for event in remediator.events] == DEATHS[text]
    assert not remediator.events[-1].get("handled")


def test_a_thread_that_dies_of_what_was_logged_is_told(
    run: Run, program: Callable[..., Path], remediator: Remediator
) -> None:
    run(
        str(
            program("""
                import logging, threading
                def work():
                    try:
                        1 / 0
                    except ZeroDivisionError:
                        logging.exception("x")
                        raise
                threading.Thread(target=work).start()
            """)
        )
    )

    assert [event["kind"] for event in remediator.events] == ["logged", "thread"]


def test_an_uncaught_error_that_the_program_may_not_tell_is_told_by_the_parent(
    run: Run, program: Callable[..., Path], remediator: Remediator, environment: dict[str, str]
) -> None:
    environment["SOULFRA_WITHOUT"] = "uncaught"

    run(str(program("raise ValueError('v')\n")))

    assert [event["kind"] for event in remediator.events] == ["exit"]


@pytest.mark.parametrize("text", ["print('fine')", "sys.exit(0)", "os._exit(0)"])
def test_of_a_good_end_nothing_is_told(
    text: str, run: Run, program: Callable[..., Path], remediator: Remediator, tmp_path: Path
) -> None:
    run(str(program(READY + text)))

    assert remediator.events == []
    assert list(tmp_path.rglob("*.life")) == []


def test_swallowed_errors_of_the_main_program_are_told(
    run: Run, program: Callable[..., Path], remediator: Remediator
) -> None:
    run(
        str(
            program(
                "def f():\n    try:\n        open('/no/such')\n    except Exception:\n        pass\nf()\n"
            )
        )
    )

    event = remediator.wait_for("swallowed")
    assert event["raised"][0]["type"] == "FileNotFoundError"
    assert event["context"]["handler"].endswith("app.py:4")


def test_the_switch_turns_swallowed_errors_off(
    run: Run, program: Callable[..., Path], remediator: Remediator, environment: dict[str, str]
) -> None:
    environment["SOULFRA_SWALLOWED"] = "off"

    run(str(program("try:\n    open('/no/such')\nexcept Exception:\n    pass\nraise ValueError\n")))

    assert [event["kind"] for event in remediator.events] == ["uncaught"]


def test_the_name_is_taken_from_the_command_line(
    run: Run, program: Callable[..., Path], remediator: Remediator
) -> None:
    run("--service", "trust-engine", str(program("raise ValueError\n")))

    assert remediator.wait_for("uncaught")["service"] == "trust-engine"


def test_a_program_with_wrong_settings_runs_unwatched_and_says_so(
    run: Run, program: Callable[..., Path], environment: dict[str, str]
) -> None:
    environment["SOULFRA_URL"] = "nowhere"

    done = run(str(program("print('ran')\n")))

    assert (done.stdout, done.returncode) == ("ran\n", 0)
    assert "runs unwatched" in done.stderr


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_ends_the_program_ends_the_parent_alike_and_is_not_told(
    number: int, start: Start, program: Callable[..., Path], remediator: Remediator
) -> None:
    process = start(str(program(WAITS)))
    ready(process)

    process.send_signal(number)
    process.wait(60)

    assert process.returncode == -number
    assert remediator.events == []


def test_each_signal_arrives_once(start: Start, program: Callable[..., Path]) -> None:
    process = start(
        str(
            program("""
                import os, signal, sys
                def show(number, frame):
                    os.write(1, signal.Signals(number).name.encode() + bytes([10]))
                for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGWINCH", "SIGUSR2"):
                    signal.signal(signal.Signals[name], show)
                print("ready", flush=True)
                sys.stdin.read()
            """)
        )
    )
    ready(process)

    for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGWINCH", "SIGUSR2"):
        process.send_signal(signal.Signals[name])
        assert process.stdout is not None
        assert process.stdout.readline() == f"{name}\n"

    out, _ = process.communicate("", timeout=60)
    assert (out, process.returncode) == ("", 0)


def test_a_program_that_cleans_up_after_a_request_to_stop_keeps_its_exit_status(
    start: Start, program: Callable[..., Path], remediator: Remediator
) -> None:
    text = READY + "signal.signal(15, lambda *_: sys.exit(0))\nprint('ready', flush=True)\nsys.stdin.read()\n"
    process = start(str(program(text)))
    ready(process)

    process.terminate()
    process.wait(60)

    assert process.returncode == 0
    assert remediator.events == []


def test_who_reads_its_output_notices_when_the_program_closes_it(
    start: Start, program: Callable[..., Path]
) -> None:
    process = start(str(program(READY + "os.write(1, b'all')\nos.close(1)\nsys.stdin.read()\n")))

    assert process.stdout is not None
    assert process.stdout.read() == "all"

    process.communicate("", timeout=60)
    assert process.returncode == 0


def test_when_the_parent_is_killed_the_program_dies(start: Start, program: Callable[..., Path]) -> None:
    process = start(str(program("import os, sys\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n")))
    assert process.stdout is not None
    child = os.pidfd_open(int(process.stdout.readline()))

    process.kill()

    import select  # noqa: PLC0415 - a pidfd is readable when its process has ended

    assert select.select([child], [], [], 60)[0]
    os.close(child)


def test_the_program_is_stopped_and_goes_on_with_its_parent(
    start: Start, program: Callable[..., Path]
) -> None:
    process = start(str(program(WAITS)), process_group=0)
    ready(process)

    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    _, status = os.waitpid(process.pid, os.WCONTINUED)
    assert os.WIFCONTINUED(status)

    process.communicate("", timeout=60)
    assert process.returncode == 0


def test_the_exit_status_comes_out_when_the_remediator_is_away(
    run: Run, program: Callable[..., Path], environment: dict[str, str], tmp_path: Path
) -> None:
    environment["SOULFRA_URL"] = "http://127.0.0.1:9"

    done = run(str(program("import sys\nsys.exit(5)\n")))

    assert done.returncode == 5
    assert list((tmp_path / "spool" / "app").rglob("*.seg"))


def test_an_error_after_the_last_moment_in_which_the_program_can_send_is_sent_by_the_parent(
    run: Run, program: Callable[..., Path], remediator: Remediator
) -> None:
    path = program("class Late:\n    def __del__(self):\n        raise ValueError('late')\nlate = Late()\n")

    ended = run(str(path))

    assert ended.returncode == 0
    assert [event["kind"] for event in remediator.events] == ["unraisable"]


def test_errors_that_nobody_takes_at_the_very_end_stay_in_the_spool(
    run: Run, program: Callable[..., Path], environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and answers nothing
        environment["SOULFRA_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        path = program("class Late:\n    def __del__(self):\n        raise ValueError\nlate = Late()\n")

        assert run(str(path)).returncode == 0

    assert len(list((tmp_path / "spool" / "app").rglob("*.seg"))) == 1
