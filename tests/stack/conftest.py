"""A real ``soulfra up`` as a child process, on free ports, with everything it says."""

import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

PARTS = ("exporter", "remediator", "prometheus", "alertmanager")


def need_program(name: str) -> None:
    """Skip on a user's machine, fail in CI, when a real part is missing."""
    if shutil.which(name) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"missing: {name}")


@pytest.fixture
def need() -> Callable[[str], None]:
    return need_program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ports() -> Callable[[], int]:
    return free_port


@pytest.fixture
def stack_config() -> Callable[..., dict[str, Any]]:
    """Return a maker of configurations with every part on a free port."""

    def make(**sections: Any) -> dict[str, Any]:
        parts: dict[str, dict[str, Any]] = {name: {"listen": f"127.0.0.1:{free_port()}"} for name in PARTS}
        parts["alertmanager"]["people"] = []  # nobody is to be told, and no warning about that
        return {**parts, "services": {}, **sections}

    return make


@dataclass(slots=True, kw_only=True)
class Up:
    """A running ``soulfra up``."""

    process: subprocess.Popen[str]
    config: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    fresh: "queue.Queue[str | None]" = field(default_factory=queue.Queue)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self.fresh.put(line)
        self.fresh.put(None)

    def wait_line(self, text: str, seconds: float = 40) -> str:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self.fresh.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                break
            if text in line:
                return line
        raise AssertionError(f"never said {text!r}:\n{''.join(self.lines)}")

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, name: str) -> psutil.Process:
        """Return the process that listens at the address of a part, or its parent within the part."""
        port = int(self.config[name]["listen"].rpartition(":")[2])
        listening = [
            process
            for process in psutil.Process(self.process.pid).children()
            if any(c.laddr.port == port for c in process.net_connections("tcp") if c.status == "LISTEN")
        ]
        assert listening, f"nobody listens for {name}"
        return listening[0]

    def end(self, number: int = signal.SIGTERM, seconds: float = 25) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@pytest.fixture
def run_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Return a starter of stacks; what a failed test leaves running is killed by pid."""
    started: list[Up] = []
    seen: list[psutil.Process] = []

    def start(config: dict[str, Any], *options: str, folder: Path = tmp_path) -> Up:
        file = folder / "soulfra.yml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        argv = [sys.executable, "-m", "remediator.cli", "up", "--config", str(file)]
        if "--data" not in options:
            argv += ["--data", str(folder / "data")]
        process = subprocess.Popen(
            [*argv, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        up = Up(process=process, config=config)
        started.append(up)
        threading.Thread(target=up.listen, daemon=True).start()
        return up

    yield start
    for up in started:
        if up.process.poll() is None:
            seen += up.family()
            up.process.kill()
            up.process.wait()
        if up.process.stdout is not None:
            up.process.stdout.close()
    for process in seen:
        if process.is_running():
            process.kill()


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about in time")


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Any]:
    return eventually
