"""A restart on real processes: what is ended, what never is, and what is started."""

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from remediator.actions import ActionError
from remediator.actions.restart import run
from remediator.actions.spawn import CHILDREN, reap, recorded_process, start_service
from remediator.places import record_of
from remediator.playbook import RestartArgs

if TYPE_CHECKING:
    from pathlib import Path

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
POLITE = (
    "import signal, sys\n"
    "def end(*_): print('goodbye', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end); " + SLEEP
)
PARENT = (
    "import subprocess, sys; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); " + SLEEP
)


def seen(process: psutil.Process, **more: Any) -> dict[str, Any]:
    return {"pid": process.pid, "start_time": process.create_time(), "status": "running", **more}


def restart(bench: Any, processes: dict[str, Any] | None = None, timeout: float = 20.0, **more: Any) -> str:
    return run(RestartArgs(service="shop"), bench.context(processes, **more), timeout)


def started(line: str) -> psutil.Process:
    return psutil.Process(int(line.partition("started ")[2].partition(";")[0]))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_running_service_is_asked_to_end_and_started_again(bench: Any) -> None:
    bench.service("shop", POLITE)
    old = bench.start("shop")

    line = restart(bench, {"shop": seen(old)})

    assert is_gone(old)
    assert "goodbye" in bench.log("shop")
    assert "ended when asked" in line
    assert started(line).is_running()


def test_a_service_that_does_not_run_is_started(bench: Any) -> None:
    bench.service("shop", SLEEP)

    line = restart(bench)

    assert "nothing was running" in line
    assert started(line).is_running()


def test_a_process_that_ignores_the_request_is_killed_after_its_grace(bench: Any) -> None:
    bench.service("shop", DEAF, grace="700ms")
    old = bench.start("shop")
    began = time.monotonic()

    line = restart(bench, {"shop": seen(old)})

    assert is_gone(old)
    assert "killed" in line
    assert 0.7 <= time.monotonic() - began < 3


def test_a_stopped_process_hears_the_request_when_it_goes_on(bench: Any) -> None:
    bench.service("shop", POLITE)
    old = bench.start("shop")
    old.suspend()
    bench.until(lambda: old.status() == psutil.STATUS_STOPPED)
    began = time.monotonic()

    restart(bench, {"shop": seen(old, status="stopped")})

    assert is_gone(old)
    assert "goodbye" in bench.log("shop")
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("stopped", [True, False])
def test_a_process_that_answers_nothing_gets_one_second(bench: Any, stopped: bool) -> None:
    bench.service("shop", DEAF, grace="10s")
    old = bench.start("shop")
    if stopped:
        old.suspend()
        bench.until(lambda: old.status() == psutil.STATUS_STOPPED)
    began = time.monotonic()

    restart(bench, {"shop": seen(old, unresponsive=not stopped)})

    assert is_gone(old)
    assert time.monotonic() - began < 3


def test_the_killing_fits_into_the_timeout_when_the_grace_does_not(bench: Any) -> None:
    bench.service("shop", DEAF, grace="60s")
    old = bench.start("shop")
    began = time.monotonic()

    restart(bench, {"shop": seen(old)}, timeout=3.0)

    assert is_gone(old)
    assert time.monotonic() - began < 4


def test_what_the_process_started_ends_with_it(bench: Any) -> None:
    bench.service("shop", PARENT)
    old = bench.start("shop")
    (child,) = old.children()

    line = restart(bench, {"shop": seen(old)})

    assert is_gone(child)
    assert "1 of its processes killed" in line


def test_another_process_with_the_same_pid_is_left_alone(bench: Any) -> None:
    bench.service("shop", SLEEP)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        facts = {"pid": stranger.pid, "start_time": time.time() - 5000, "status": "running"}

        line = restart(bench, {"shop": facts})

        assert stranger.poll() is None
        assert "was not running" in line
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_without_a_start_time_is_left_alone(bench: Any) -> None:
    bench.service("shop", SLEEP)
    old = bench.start("shop")

    with pytest.raises(ActionError, match="left alone"):
        restart(bench, {"shop": {"pid": old.pid, "status": "running"}})

    assert old.is_running()


@pytest.mark.parametrize(
    "pid", [0, 1, os.getpid(), os.getppid()], ids=["nobody", "init", "the monitor", "its parent"]
)
def test_the_monitor_and_what_is_above_it_are_never_signalled(bench: Any, pid: int) -> None:
    bench.service("shop", SLEEP)
    start_time = psutil.Process(pid).create_time() if pid else 1.0

    if pid == 0:
        assert "nothing was running" in restart(bench, {"shop": {"pid": 0, "start_time": start_time}})
        return
    with pytest.raises(ActionError, match="finds the wrong one") as caught:
        restart(bench, {"shop": {"pid": pid, "start_time": start_time}})
    assert caught.value.permanent


def test_a_child_of_ours_that_is_another_service_is_never_signalled(bench: Any) -> None:
    bench.service("bank", SLEEP)
    bank = bench.start("bank")
    bench.service("shop", SLEEP)

    with pytest.raises(ActionError, match="belongs to bank"):
        restart(bench, {"shop": seen(bank)})

    assert bank.is_running()


def test_a_child_of_ours_that_is_no_service_is_never_signalled(bench: Any) -> None:
    bench.service("shop", SLEEP)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(ActionError, match="part of the remediator"):
            restart(bench, {"shop": seen(psutil.Process(helper.pid))})
        assert helper.poll() is None
    finally:
        helper.kill()
        helper.wait()


def test_a_process_that_only_the_record_knows_is_ended_too(bench: Any) -> None:
    bench.service("shop", SLEEP)
    unseen = bench.start("shop")

    restart(bench)  # the exporter found none: it has not opened its port

    assert is_gone(unseen)


def test_a_worker_that_was_seen_ends_with_the_process_that_was_started(bench: Any) -> None:
    bench.service("shop", PARENT)
    master = bench.start("shop")
    (worker,) = master.children()

    line = restart(bench, {"shop": seen(worker)})

    assert is_gone(master)
    assert is_gone(worker)
    assert f"{master.pid} ended when asked" in line


def test_a_killed_process_that_nobody_reaped_counts_as_gone(bench: Any) -> None:
    bench.service("shop", SLEEP)
    old = bench.start("shop")
    facts = seen(old)
    old.kill()
    bench.until(lambda: old.status() == psutil.STATUS_ZOMBIE)

    line = restart(bench, {"shop": facts})

    assert "was not running" in line


def test_a_service_that_fails_at_once_is_told_with_its_last_words(bench: Any) -> None:
    bench.service("shop", "import sys; print('before'); print('pass' + 'word=hunter2'); sys.exit(3)")

    with pytest.raises(ActionError, match=r"exited with code 3 at once: before \| password=\*\*\*") as caught:
        restart(bench)

    assert not caught.value.permanent


def test_only_what_the_new_process_printed_is_told(bench: Any) -> None:
    bench.service("shop", "import sys; print('words of a run'); sys.exit(1)")
    with pytest.raises(ActionError):
        restart(bench)
    bench.service("shop", "import sys; sys.exit(1)")

    with pytest.raises(ActionError, match="printed nothing"):
        restart(bench)


def test_a_command_that_ends_well_at_once_has_started_something(bench: Any) -> None:
    bench.service("shop", "pass")

    assert "started" in restart(bench)


def test_a_missing_program_is_named_with_its_place(bench: Any) -> None:
    bench.service("shop", "", command=("no-such-program-here",))

    with pytest.raises(
        ActionError, match=r"services\.shop\.restart\.command: 'no-such-program-here'"
    ) as caught:
        restart(bench)

    assert caught.value.permanent
    assert "install it" in str(caught.value)


def test_a_program_without_the_right_to_execute_is_named(bench: Any) -> None:
    (bench.folder / "tool").write_text("#!/bin/sh\n")
    bench.service("shop", "", command=("./tool",))

    with pytest.raises(ActionError, match=r"is not executable; .*chmod") as caught:
        restart(bench)

    assert caught.value.permanent


def test_a_missing_folder_is_named(bench: Any) -> None:
    bench.service("shop", SLEEP, cwd="nowhere")

    with pytest.raises(
        ActionError, match=r"services\.shop\.restart\.cwd: .*nowhere does not exist"
    ) as caught:
        restart(bench)

    assert caught.value.permanent


def test_a_log_that_cannot_be_written_is_named(bench: Any) -> None:
    (bench.folder / "file").write_text("")
    bench.service("shop", SLEEP, log="file/shop.log")

    with pytest.raises(ActionError, match=r"services\.shop\.restart\.log"):
        restart(bench)


def test_the_process_gets_its_own_environment_and_not_our_secrets(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SOULFRA_TOKEN", "SOULFRA_TOKEN_ALERTMANAGER", "ERROR_WEBHOOK_URL", "OPERATOR_KEY"):
        monkeypatch.setenv(name, "x" * 20)
    monkeypatch.setenv("ORDINARY", "kept")
    bench.service(
        "shop", "import os; print(sorted(os.environ), os.environ['MINE'])", env={"MINE": "{data}/x"}
    )

    restart(bench, withheld=frozenset({"OPERATOR_KEY"}))
    bench.until(lambda: bench.log("shop"))

    told = bench.log("shop")
    assert "ORDINARY" in told
    assert f"{bench.data}/x" in told
    assert not any(name in told for name in ("SOULFRA_TOKEN", "ERROR_WEBHOOK_URL", "OPERATOR_KEY"))


def test_the_process_has_a_session_folder_and_signals_of_its_own(bench: Any) -> None:
    code = (
        "import os, signal, sys; print(os.getsid(0) == os.getpid(), os.getcwd(), sys.argv[1],"
        " signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.read(0, 1), flush=True); "
    ) + SLEEP
    (bench.folder / "work").mkdir()
    bench.service("shop", "", command=("{python}", "-c", code, "--data={data}"), cwd="work")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        restart(bench)
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    bench.until(lambda: "ready" in bench.log("shop"))

    assert f"True {bench.folder}/work --data={bench.data} set() b''" in bench.log("shop")


def test_a_process_that_ended_is_reaped_once_with_its_code(bench: Any) -> None:
    service = bench.service("shop", "import sys; sys.exit(7)")
    process = start_service("shop", service, config_folder=bench.folder, data_folder=bench.data)
    ended: list[tuple[str, int, int]] = []

    def collect() -> bool:
        ended.extend(reap())
        return bool(ended)

    bench.until(collect)

    assert ended == [("shop", process.pid, 7)]
    assert not psutil.pid_exists(process.pid)
    assert CHILDREN.name_of(process.pid) is None


def test_a_large_log_is_set_aside(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remediator.actions.spawn.LOG_LIMIT", 100)
    log: Path = bench.data / "logs" / "shop.log"
    log.parent.mkdir(parents=True)
    log.write_text("old" * 100)
    bench.service("shop", SLEEP)

    restart(bench)

    assert "old" not in log.read_text()
    assert "old" in (log.parent / "shop.log.1").read_text()


@pytest.mark.parametrize("text", ["", "{}", '{"pid": 1', '{"pid": "x", "start_time": 1}'])
def test_what_is_no_record_is_told_and_not_gone_by(
    tmp_path: "Path", caplog: pytest.LogCaptureFixture, text: str
) -> None:
    record = record_of("shop", tmp_path)
    record.parent.mkdir(parents=True)
    record.write_text(text)

    assert recorded_process("shop", tmp_path) is None

    assert "is no record of a process" in caplog.text


def test_nothing_is_started_beside_a_process_whose_record_cannot_be_read(bench: Any) -> None:
    bench.service("shop", SLEEP)
    bench.start("shop")
    record = record_of("shop", bench.data)
    record.unlink()
    record.mkdir()

    with pytest.raises(ActionError, match="cannot be read: Is a directory"):
        restart(bench)
