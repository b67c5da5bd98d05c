"""The command line: what it refuses, what it lists, and that a terminal's signals arrive once."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Run
else:
    Run = Any


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "there is no program to run"),
        (["-m"], "there is no program to run"),
        (["--service"], "--service needs a value"),
        (["--sevice", "x", "app.py"], "--sevice is no option"),
        (["--list-swallowed"], "--list-swallowed needs files or folders"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(arguments: list[str], why: str, run: Run) -> None:
    done = run(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"soulfra_monitor: {why}\n")


def test_help_is_printed(run: Run) -> None:
    assert run("--help").stdout.startswith("usage: python -m soulfra_monitor")


def test_handlers_that_swallow_are_listed_and_nothing_is_run(program: Callable[..., Path], run: Run) -> None:
    path = program("1 / 0\ntry:\n    work()\nexcept Exception:\n    pass\n", "shop/cart.py")
    program("try:\n    work()\nexcept Exception:\n    pass\n", "shop/.venv/lib/other.py")
    program("try:\n    work()\nexcept KeyError:\n    pass\n", "shop/fine.py")

    done = run("--list-swallowed", str(path.parent))

    assert done.stdout == f"{path}:4: catches Exception: catches everything and says nothing\n"
    assert done.returncode == 1


def test_where_nothing_swallows_the_status_is_0(program: Callable[..., Path], run: Run) -> None:
    done = run("--list-swallowed", str(program("x = 1\n")))

    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("text", ["x = = 1\n", None])
def test_what_cannot_be_read_gives_status_2(text: str | None, program: Callable[..., Path], run: Run) -> None:
    done = run("--list-swallowed", str(program(text)) if text else "no-such-folder")

    assert done.returncode == 2
    assert done.stderr.startswith("soulfra_monitor: ")


Terminal = Callable[[str], "tuple[subprocess.Popen[bytes], int]"]


@pytest.fixture
def terminal(environment: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    """Run a program as the foreground job of a terminal of its own."""
    running: list[tuple[subprocess.Popen[bytes], int]] = []

    def begin(path: str) -> "tuple[subprocess.Popen[bytes], int]":
        ours, theirs = pty.openpty()
        code = (
            "import fcntl, os, sys, termios\nos.setsid()\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'soulfra_monitor', sys.argv[1]])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, path],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=tmp_path,
            env=environment,
        )
        os.close(theirs)
        running.append((process, ours))
        return process, ours

    yield begin
    for process, ours in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, wanted: str) -> str:
    seen = ""
    while wanted not in seen:
        try:
            seen += os.read(terminal, 1000).decode()
        except OSError:  # the other side has gone
            break
    return seen


def test_ctrl_c_reaches_the_program_once(program: Callable[..., Path], terminal: Terminal) -> None:
    path = program("""
        import signal, sys
        times = []
        signal.signal(signal.SIGINT, lambda *_: times.append(1))
        print("ready", flush=True)
        sys.stdin.readline()
        print("times:", len(times), flush=True)
    """)
    process, ours = terminal(str(path))
    read_until(ours, "ready")

    os.write(ours, b"\x03")
    read_until(ours, "^C")
    os.write(ours, b"\n")

    assert "times: 1" in read_until(ours, "times: 1")
    assert process.wait(60) == 0


def test_ctrl_c_ends_a_program_that_does_not_handle_it(
    program: Callable[..., Path], terminal: Terminal
) -> None:
    process, ours = terminal(str(program("import sys\nprint('ready', flush=True)\nsys.stdin.read()\n")))
    read_until(ours, "ready")

    os.write(ours, b"\x03")

    assert read_until(ours, "KeyboardInterrupt").count("Traceback") == 1
    read_until(ours, "never printed")
    assert process.wait(60) == -signal.SIGINT
