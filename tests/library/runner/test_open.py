"""What is open when a program begins is the program's alone, and so is what is closed."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Remediator, Run, Start
else:
    Remediator = Run = Start = Any

SAYS = """
    import json, os, sys
    said = [stream is None for stream in (sys.stdin, sys.stdout, sys.stderr)]
    said.append(os.open(os.devnull, os.O_RDONLY))
    with open(sys.argv[1], "w") as file:
        json.dump(said, file)
    print("out")
"""
ENDS = {
    "fine": "",
    "a status": "sys.exit(3)",
    "an error": "raise ValueError('v')",
    "at once": "os._exit(4)",
    "killed": "os.kill(os.getpid(), 9)",
    "its stderr": "print('err', file=sys.stderr)",
}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("end", ENDS)
def test_a_program_with_closed_streams_behaves_as_under_plain_python(
    closed: str, end: str, program: Callable[..., Path], environment: dict[str, str], tmp_path: Path
) -> None:
    path = program(SAYS + "    " + ENDS[end] + "\n")

    def seen(*before: str) -> tuple[int, str, str, object]:
        command = [sys.executable, *before, str(path), str(tmp_path / "said")]
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command],
            env=environment,
            input="",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = json.loads((tmp_path / "said").read_text())
        return done.returncode, done.stdout, done.stderr, said

    assert seen("-m", "soulfra_monitor") == seen()


@pytest.mark.parametrize("arguments", [["no-such-file.py"], ["-"], ["-c", "raise ValueError"]])
@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_other_programs_end_alike_with_closed_streams(
    closed: str, arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    def status(*before: str) -> int:
        return subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, *before, *arguments],
            env=environment,
            cwd=tmp_path,
            input="",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).returncode

    assert status("-m", "soulfra_monitor") == status()


@pytest.mark.parametrize("arguments", [["--help"], [], ["--nonsense"]])
def test_the_command_itself_bears_closed_streams(
    arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "soulfra_monitor", *arguments]

    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], env=environment, timeout=60, check=False
    )

    assert done.returncode == (0 if arguments == ["--help"] else 2)


def test_the_end_of_a_program_without_streams_is_told(
    program: Callable[..., Path], environment: dict[str, str], remediator: Remediator
) -> None:
    command = [sys.executable, "-m", "soulfra_monitor", str(program("import os\nos._exit(4)\n"))]

    subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], env=environment, timeout=60, check=False
    )

    assert remediator.wait_for("exit")["facts"] == {"exit_code": 4}


def test_who_waits_for_a_readiness_pipe_to_close_notices_when_the_program_closes_it(
    start: Start, program: Callable[..., Path]
) -> None:
    ours, theirs = os.pipe()
    text = "import os, sys\nfd = int(sys.argv[1])\nos.write(fd, b'up')\nos.close(fd)\nsys.stdin.read()\n"
    process = start(str(program(text)), str(theirs), pass_fds=(theirs,))
    os.close(theirs)

    got = b""
    while select.select([ours], [], [], 30)[0] and (part := os.read(ours, 100)):
        got += part
    assert process.poll() is None
    os.close(ours)

    assert got == b"up"
    assert part == b"", "it was not closed"
    process.communicate("", timeout=60)
    assert process.returncode == 0


def test_the_parent_holds_nothing_that_the_program_inherited(
    start: Start, program: Callable[..., Path]
) -> None:
    nothing = Path(os.devnull)
    with nothing.open("rb") as one, nothing.open("rb") as other:
        given = (one.fileno(), other.fileno())
        process = start(
            str(program("import sys\nprint('ready', flush=True)\nsys.stdin.read()\n")), pass_fds=given
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        held = {int(fd.name): fd.readlink() for fd in Path(f"/proc/{process.pid}/fd").iterdir()}

    assert {held[fd] for fd in (0, 1, 2)} == {nothing}
    assert not held.keys() & set(given)
    process.communicate("", timeout=60)


@pytest.mark.parametrize("name", ["LISTEN_PID", "WATCHDOG_PID"])
def test_what_a_service_manager_says_to_this_process_is_said_to_the_program(
    name: str, program: Callable[..., Path], environment: dict[str, str]
) -> None:
    path = program(f"import os\nprint(os.environ['{name}'] == str(os.getpid()), os.environ['{name}'])\n")
    command = [sys.executable, "-m", "soulfra_monitor", str(path)]

    def out(value: str) -> str:
        line = f'{name}={value} exec "$@"'
        return subprocess.run(
            ["/bin/sh", "-c", line, "sh", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    assert out("$$").startswith("True ")
    assert out("1") == "False 1\n"  # meant for somebody else


def _wait_for_state(pid: int, state: bytes) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_that_was_stopped_and_continued_by_itself_still_gets_signals(
    start: Start, program: Callable[..., Path]
) -> None:
    process = start(str(program("import os, sys\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n")))
    assert process.stdout is not None
    child = int(process.stdout.readline())

    for _ in range(3):
        os.kill(child, signal.SIGSTOP)
        _wait_for_state(child, b"T")
        os.kill(child, signal.SIGCONT)
        _wait_for_state(child, b"S")
    process.terminate()

    assert process.wait(30) == -signal.SIGTERM


def test_a_program_that_stops_itself_when_the_terminal_asks_stops_its_parent_too(
    start: Start, program: Callable[..., Path]
) -> None:
    process = start(
        str(
            program("""
                import os, signal, sys
                signal.signal(signal.SIGTSTP, lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
                print("ready", flush=True)
                sys.stdin.read()
            """)
        ),
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    process.communicate("", timeout=60)

    assert process.returncode == 0
