"""The command, as its own process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMAND = (sys.executable, "-c", "from exporter.cli import exporter; exporter()")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=60, cwd=Path.cwd()
    )


def config(folder: Path, text: str) -> str:
    file = folder / "soulfra.yml"
    file.write_text(text)
    return str(file)


def test_mistakes_are_all_printed_and_nothing_is_started(tmp_path: Path) -> None:
    done = run("--config", config(tmp_path, "exporter: {interval: 5}\nservices: {a: {x: 1}}\nb: 2\n"))

    assert done.returncode == 2
    assert done.stdout == ""
    assert [re.sub(r"^.*/", "", line).split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["soulfra.yml:1", "exporter.interval"],
        ["soulfra.yml:2", "services.a.x"],
        ["soulfra.yml:3", "b"],
    ]


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("--config", config(tmp_path, ""), "--listen", address)

    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"cannot listen on {address}: another process listens there already")


@pytest.mark.parametrize("address", ["0.0.0.0:1234", "192.0.2.1:1234", "[::]:1234", "example.org:1234"])
def test_listening_beyond_loopback_is_refused(tmp_path: Path, address: str) -> None:
    done = run("--config", config(tmp_path, ""), "--listen", address)

    assert done.returncode == 2
    assert f"refused to listen on {address}" in done.stderr


def test_a_listen_address_without_a_port_is_refused(tmp_path: Path) -> None:
    done = run("--config", config(tmp_path, ""), "--listen", "localhost")

    assert done.returncode == 2
    assert "--listen: must be HOST:PORT" in done.stderr


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def await_line(process: "subprocess.Popen[bytes]", text: str) -> None:
    """Read the log until a line has *text*; the log's end fails the test."""
    assert process.stderr is not None
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    try:
        for line in process.stderr:
            if text in line.decode():
                return
        pytest.fail(f"the exporter ended without saying {text!r}")
    finally:
        watchdog.cancel()


def test_it_serves_reloads_on_sighup_and_ends_cleanly_on_sigterm(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    file = config(
        tmp_path,
        f"exporter: {{listen: '{address}', fast_path: false}}\nservices: {{a: {{process: {{port: 1}}}}}}\n",
    )
    started = time.monotonic()
    process = launch(*COMMAND, "--config", file, stderr=subprocess.PIPE)
    await_line(process, "fast path: alerts go to nobody, it is switched off")
    await_line(process, "a is down")
    assert time.monotonic() - started < 10
    assert fetch(f"http://{address}/state")["services"]["a"]["failing"]["reason"] == "gone"

    Path(file).write_text("exporter: {fast_path: false}\nservices: {b: {}}\n")
    os.kill(process.pid, signal.SIGHUP)
    await_line(process, "was read again")
    assert list(fetch(f"http://{address}/state")["services"]) == ["b"]

    Path(file).write_text("services: 1\n")
    os.kill(process.pid, signal.SIGHUP)
    await_line(process, "stays as it was")
    assert list(fetch(f"http://{address}/state")["services"]) == ["b"]

    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=10) == 0


def test_it_runs_and_ends_cleanly_where_it_was_given_no_standard_files(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    file = config(tmp_path, f"exporter: {{listen: '{address}', fast_path: false}}\nservices: {{a: {{}}}}\n")
    closed = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    process = launch(*closed, *COMMAND, "--config", file)
    deadline = time.monotonic() + 30
    while True:
        try:
            assert list(fetch(f"http://{address}/state")["services"]) == ["a"]
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=10) == 0


def test_a_sighup_while_it_starts_is_a_reload_once_it_has_started(
    tmp_path: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    os.mkfifo(tmp_path / "soulfra.yml")
    process = launch(
        *COMMAND, "--config", str(tmp_path / "soulfra.yml"), "--listen", address, stderr=subprocess.PIPE
    )
    with (tmp_path / "soulfra.yml").open("w") as writing:  # it is read now
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(0.1)
        (tmp_path / "soulfra.yml").unlink()
        config(tmp_path, "exporter: {fast_path: false}\nservices: {b: {}}\n")
        writing.write("exporter: {fast_path: false}\nservices: {a: {}}\n")

    await_line(process, "was read again")
    assert list(fetch(f"http://{address}/state")["services"]) == ["b"]
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=10) == 0
