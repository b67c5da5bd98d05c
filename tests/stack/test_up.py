"""``soulfra up`` on real parts: starts, keeps running, ends, and leaves nothing behind."""

import os
import shutil
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

PARTS = ("exporter", "remediator", "prometheus", "alertmanager")

Make = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _real_parts(need: Callable[[str], None]) -> None:
    need("prometheus")
    need("alertmanager" if shutil.which("alertmanager") else "prometheus-alertmanager")


def sleeper(*lines: str) -> dict[str, Any]:
    """Return a service without checks: a Python program that ends with *lines*."""
    return {"restart": {"command": ["{python}", "-c", "\n".join(["import os, signal, time", *lines])]}}


def left_over(processes: list[psutil.Process]) -> list[str]:
    return [str(process) for process in processes if process.is_running()]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_every_part_is_ready_when_it_says_so_and_gone_after_sigterm(
    run_up: Callable[..., Any], stack_config: Make, tmp_path: Path
) -> None:
    up = run_up(stack_config())

    up.wait_line("ready in")
    everyone = up.family()
    for name, path in zip(PARTS, ("/-/ready", "/readyz", "/-/ready", "/-/ready"), strict=True):
        assert answers(f"http://{up.config[name]['listen']}{path}"), name
    status = up.end(signal.SIGTERM)

    assert status == 0
    assert left_over(everyone) == []
    assert not [line for line in up.lines if "Traceback" in line or "Exception" in line]
    assert {f"{name}.log" for name in PARTS} <= {file.name for file in (tmp_path / "data" / "logs").iterdir()}


def test_ctrl_c_ends_services_too_also_one_that_has_moved_into_a_session_of_its_own(
    run_up: Callable[..., Any], stack_config: Make, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    told = tmp_path / "orphan.pid"
    orphan = sleeper(
        f"if os.fork() == 0: os.setsid(); open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    up = run_up(stack_config(services={"plain": sleeper("time.sleep(600)"), "orphan": orphan}), "--demo")

    up.wait_line("ready in")
    everyone = up.family()
    adopted = psutil.Process(eventually(lambda: told.exists() and int(told.read_text() or "0")))
    assert adopted.ppid() == up.process.pid
    up.end(signal.SIGINT)

    assert left_over([*everyone, adopted]) == []


def test_a_service_that_ignores_sigterm_or_is_stopped_is_gone_within_15_seconds(
    run_up: Callable[..., Any], stack_config: Make
) -> None:
    deaf = sleeper("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "time.sleep(600)")
    stopped = sleeper("os.kill(os.getpid(), signal.SIGSTOP)", "time.sleep(600)")
    up = run_up(stack_config(services={"deaf": deaf, "stopped": stopped}), "--demo")

    up.wait_line("ready in")
    everyone = up.family()
    up.end(signal.SIGTERM, seconds=15)

    assert left_over(everyone) == []


def test_a_second_ctrl_c_kills_at_once(
    run_up: Callable[..., Any], stack_config: Make, tmp_path: Path
) -> None:
    told = tmp_path / "terminated"
    deaf = sleeper(
        f"signal.signal(signal.SIGTERM, lambda *_: open({str(told)!r}, 'w'))", "while True: time.sleep(600)"
    )
    up = run_up(stack_config(services={"deaf": deaf}), "--demo")

    up.wait_line("ready in")
    everyone = up.family()
    up.process.send_signal(signal.SIGINT)
    up.process.send_signal(signal.SIGTERM)  # two equal signals could arrive as one
    up.process.wait(5)

    assert left_over(everyone) == []


def test_a_part_that_is_killed_runs_again_and_says_so(
    run_up: Callable[..., Any], stack_config: Make, eventually: Callable[..., Any]
) -> None:
    up = run_up(stack_config())
    up.wait_line("ready in")

    for name, path in zip(PARTS, ("/-/ready", "/readyz", "/-/ready", "/-/ready"), strict=True):
        killed = up.part(name)
        killed.kill()
        up.wait_line(f"{name} was ended by signal 9; starting it again")
        eventually(lambda name=name, path=path: answers(f"http://{up.config[name]['listen']}{path}"))
        assert not killed.is_running()
    up.end()


def test_a_service_is_not_started_again_by_the_stack(
    run_up: Callable[..., Any], stack_config: Make, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    brief = sleeper(f"open({str(starts)!r}, 'a').write('x')")
    up = run_up(stack_config(services={"brief": brief}), "--demo")

    up.wait_line("ready in")
    up.end()

    assert starts.read_text() == "x"


def test_parts_end_when_the_stack_itself_is_killed(
    run_up: Callable[..., Any], stack_config: Make, eventually: Callable[..., Any]
) -> None:
    up = run_up(stack_config())
    up.wait_line("ready in")
    everyone = up.family()

    up.process.kill()
    up.process.wait()

    eventually(lambda: not left_over(everyone))


def test_two_stacks_live_side_by_side(run_up: Callable[..., Any], stack_config: Make, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()

    stacks = [run_up(stack_config(), folder=folder) for folder in folders]

    for up in stacks:
        up.wait_line("ready in")
    for up in stacks:
        assert up.end() == 0


def test_a_data_folder_takes_one_stack(run_up: Callable[..., Any], stack_config: Make) -> None:
    first = run_up(stack_config())
    first.wait_line("ready in")

    second = run_up(stack_config())

    assert second.process.wait(20) == 2
    second.wait_line(f"is in use by another soulfra up, process {first.process.pid}")
    first.end()


def test_busy_ports_are_told_all_at_once_and_nothing_is_started(
    run_up: Callable[..., Any], stack_config: Make, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        busy = [f"127.0.0.1:{server.getsockname()[1]}" for server in (one, other)]
        port = int(busy[1].rpartition(":")[2])
        service = {"process": {"port": port}, **sleeper("time.sleep(600)")}
        up = run_up(stack_config(exporter={"listen": busy[0]}, services={"front": service}), "--demo")
        status = up.process.wait(20)

    assert status == 2
    up.wait_line(f"exporter cannot listen on {busy[0]}: the port is in use by process {os.getpid()}")
    up.wait_line(f"front cannot listen on {busy[1]}: the port is in use by process {os.getpid()}")
    assert len(up.lines) == 2
    assert not (tmp_path / "data").exists()


def test_five_mistakes_are_listed_with_their_places_and_nothing_is_started(
    run_up: Callable[..., Any], stack_config: Make, tmp_path: Path
) -> None:
    config = stack_config(
        exporter={"listen": "nowhere", "interval": 5},
        services={"front": {"probes": [{"http": "ftp://front"}], "depends_on": ["nobody"], "colour": "red"}},
    )
    up = run_up(config)

    assert up.process.wait(20) == 2
    places = ("exporter.listen", "exporter.interval", "services.front.probes[0]", "depends_on", "colour")
    for place in places:
        assert any(f"{tmp_path / 'soulfra.yml'}:" in line and place in line for line in up.lines), place
    assert "Traceback" not in "".join(up.lines)
    assert not (tmp_path / "data").exists()
