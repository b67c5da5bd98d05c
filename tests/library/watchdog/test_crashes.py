"""What is left of real processes that were killed, crashed, left, or said goodbye."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, cast

import pytest

from soulfra_monitor import crashes
from soulfra_monitor.events import Kind
from soulfra_monitor.settings import read

if TYPE_CHECKING:
    from .conftest import Kept
else:
    Kept = Any

ROOT = Path(__file__).parents[3]
HEAD = """
import os, signal, sys, threading, time
from soulfra_monitor import crashes
class Kept:
    def noted(self, kind, message, **_): print(kind, message, flush=True)
    def broke(self, place, error): raise error
undo = crashes.install(Kept())
"""


class Told:
    """What is told of failures of ours."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, BaseException]] = []

    def broke(self, place: str, error: BaseException) -> None:
        self.broken.append((place, error))


def fail(place: str, error: BaseException) -> None:
    """Stand for what is told of failures of ours where there must be none."""
    raise AssertionError(place) from error


Live = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOULFRA_SPOOL", str(tmp_path))
    monkeypatch.setenv("SOULFRA_SERVICE", "shop")
    return Path(crashes.place(read({})))


@pytest.fixture
def live(folder: Path) -> Iterator[Live]:
    """Run a life to its end."""
    lives: list[subprocess.Popen[str]] = []

    def live(text: str, *, until: str = "") -> "subprocess.CompletedProcess[str]":
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        command = [sys.executable, "-c", HEAD + dedent(text)]
        process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        lives.append(process)
        if until:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.Signals[until])
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    yield live
    for process in lives:
        if process.poll() is None:
            process.kill()
            process.communicate()


def told(live: Live) -> list[str]:
    return live("").stdout.splitlines()


WAITS = "print('ready', flush=True)\nsys.stdin.read()\n"


@pytest.mark.parametrize("text", ["", "sys.exit(3)", "raise ValueError", "undo()", "os.kill(os.getpid(), 2)"])
def test_a_life_that_ran_to_its_end_leaves_nothing(text: str, live: Live, folder: Path) -> None:
    live(text)

    assert list(folder.iterdir()) == []
    assert told(live) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
def test_a_life_that_gave_up_its_rights_and_ran_to_its_end_is_not_told(live: Live, folder: Path) -> None:
    live("os.setuid(65534)")

    assert len(list(folder.glob("*.life"))) == 1  # it could not remove it
    assert told(live) == []
    assert list(folder.glob("*.life")) == []


def test_a_killed_life_is_told_by_the_next_once(live: Live) -> None:
    live(WAITS, until="SIGKILL")

    assert told(live) == ["exit an earlier process ended without saying goodbye: killed, or left by os._exit"]
    assert told(live) == []


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_request_to_stop_is_no_bad_end_and_ends_the_program_as_always(number: str, live: Live) -> None:
    done = live(WAITS, until=number)

    assert (done.returncode, done.stderr) == (-signal.Signals[number], "")
    assert told(live) == []


def test_handlers_of_the_program_are_its_own(live: Live) -> None:
    done = live("""
        print(signal.getsignal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
        os.kill(os.getpid(), signal.SIGTERM)
    """)

    assert done.stdout.splitlines() == [str(signal.Handlers.SIG_DFL)]
    assert done.returncode == 4
    assert told(live) == []


def test_handlers_that_a_program_sets_later_outlive_forks_and_the_end_of_watching(live: Live) -> None:
    done = live("""
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"mine "))
        pid = os.fork()
        os.kill(os.getpid(), signal.SIGTERM)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        undo()
        os.kill(os.getpid(), signal.SIGTERM)
    """)

    assert done.stdout == "mine " * 3


def test_a_life_that_becomes_another_program_is_no_bad_end(live: Live) -> None:
    live(
        """
        from soulfra_monitor.hooks import execs
        execs.install(Kept())
        os.execv(sys.executable, [sys.executable, "-c", "pass"])
        """
    )

    assert live("").stdout == ""


def test_a_life_that_could_not_become_another_program_goes_on(live: Live) -> None:
    live(
        """
        from soulfra_monitor.hooks import execs
        execs.install(Kept())
        try:
            os.execv(sys.executable, [])
        except ValueError:
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    assert "an earlier process ended without saying goodbye" in live("").stdout


def test_a_crash_is_told_with_its_stack(live: Live, folder: Path, kept: Kept) -> None:
    done = live("import ctypes\ndef deep():\n    ctypes.string_at(0)\ndeep()")

    assert (done.returncode, done.stderr) == (-signal.SIGSEGV, "")
    (life,) = crashes.sweep(str(folder), kept.broke)
    crashes._tell(kept, life)
    (note,) = kept.of(Kind.EXIT)
    assert note.message == "an earlier process crashed: Segmentation fault"
    assert note.facts == {"signal": "SIGSEGV"}
    assert "in deep" in note.context["crash"]


def test_a_program_that_wants_crashes_on_its_stderr_gets_them(live: Live) -> None:
    done = live("import faulthandler, ctypes\nfaulthandler.enable()\nctypes.string_at(0)")

    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_a_life_on_a_machine_that_went_down_is_told_as_such(live: Live, folder: Path) -> None:
    live(WAITS, until="SIGKILL")
    (file,) = folder.iterdir()
    file.write_text(file.read_text().replace(crashes.machine(), "another-start"))

    assert told(live) == ["exit an earlier process ended when the machine stopped"]


def test_a_living_process_is_left_alone(live: Live, folder: Path) -> None:
    command = [sys.executable, "-c", HEAD + WAITS]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        assert told(live) == []
        assert len(list(folder.iterdir())) == 1
        process.communicate("")


def test_of_many_starters_one_tells(live: Live, folder: Path) -> None:
    live(WAITS, until="SIGKILL")
    command = [sys.executable, "-c", HEAD]

    together = [subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) for _ in range(6)]

    lines = [line for process in together for line in process.communicate(timeout=60)[0].splitlines()]
    assert len(lines) == 1


@pytest.mark.parametrize(
    "text",
    [
        "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)",
        "pid = os.fork()\nif pid == 0: sys.exit(0)\nos.waitpid(pid, 0)",
        "pid = os.fork()\nif pid == 0: signal.pause()\nos.kill(pid, 9)\nos.waitpid(pid, 0)",
        "pid = os.fork()\nif pid == 0: signal.pause()\nos.kill(pid, 15)\nos.waitpid(pid, 0)",
    ],
)
def test_ends_of_forked_processes_are_not_the_end_of_this_life(text: str, live: Live, folder: Path) -> None:
    live(text)

    assert list(folder.iterdir()) == []


def test_a_forked_process_that_was_asked_to_stop_hides_no_kill(live: Live) -> None:
    live(
        "pid = os.fork()\nif pid == 0: signal.pause()\nos.kill(pid, 15)\nos.waitpid(pid, 0)\n"
        "os.kill(os.getpid(), 9)"
    )

    assert len(told(live)) == 1


def test_a_daemon_says_goodbye_for_the_process_that_it_outlives(live: Live, folder: Path) -> None:
    live("if os.fork(): os._exit(0)\nwhile crashes._is_alive(crashes.current().owner): os.sched_yield()\n")

    assert told(live) == []
    assert list(folder.iterdir()) == []


def test_a_crash_of_a_forked_process_is_told_by_the_living(live: Live) -> None:
    done = live(
        "import ctypes\npid = os.fork()\nif pid == 0: ctypes.string_at(0)\nos.waitpid(pid, 0)\n"
        "crashes.look(Kept())\ncrashes.look(Kept())\nundo()\n"
    )

    assert done.stdout.splitlines() == ["child a forked process crashed: Segmentation fault"]


def test_the_folder_stays_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "FILES_LIMIT", 5)
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"{number}-dead.life").write_text(f"pid {number}\n\n")

    record = crashes.begin(str(folder), "shop", fail)

    record.goodbye()
    assert len(list(folder.iterdir())) == 4


def test_a_disk_that_takes_nothing_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(NotADirectoryError):
        crashes.begin(str(tmp_path / "file" / "lives"), "shop", fail)
    assert list(crashes.sweep(str(tmp_path / "none"), fail)) == []


def test_a_life_without_a_record_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOULFRA_SPOOL", str(tmp_path / "file"))
    told = Told()

    crashes.install(cast("Any", told))()

    ((place, error),) = told.broken
    assert place == "crashes"
    assert isinstance(error, NotADirectoryError)


def test_a_record_that_the_program_has_closed_is_told_once(folder: Path) -> None:
    told = Told()
    record = crashes.begin(str(folder), "shop", told.broke)
    os.close(record.fd)

    assert [record.news(), record.news()] == ["", ""]

    assert [(place, str(error)) for place, error in told.broken] == [
        ("crashes", "[Errno 9] Bad file descriptor")
    ]


def test_a_record_that_cannot_be_taken_away_is_told_and_leaves_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    (folder / "1-link.life").symlink_to(folder / "nowhere")
    (folder / "2-dead.life").write_text(f"pid 1\nstarted {time.time()}\n\n")
    told = Told()

    (life,) = crashes.sweep(str(folder), told.broke)

    assert life.pid == 1
    assert [place for place, _ in told.broken] == ["crashes"]


@pytest.mark.parametrize("text", ["", "\n\n", "pid x\nstarted y\n\nsoulfra: bye\n", "pid\n", "\0" * 100])
def test_a_file_that_is_not_as_written_is_read_without_an_error(text: str) -> None:
    assert crashes.parse(text).pid == 0


def test_watching_begun_and_ended_over_and_over_takes_no_more_files(live: Live) -> None:
    done = live(
        """
        def files():
            return len(os.listdir("/proc/self/fd"))
        before = files()
        for _ in range(5):
            undo()
            undo = crashes.install(Kept())
        print(files() - before)
        """
    )

    assert done.stdout == "0\n"
