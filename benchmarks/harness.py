"""Runs the demo stack on ports of its own and looks at it from outside; for benchmarks and loop tests."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import requests
import yaml

ROOT = Path(__file__).resolve().parent.parent
PLATFORM = ROOT / "examples" / "platform"
_DEFAULT_PORTS = (9877, 3001, 9090, 9093, *range(4000, 4008))
_FIRST_PORT, _LAST_PORT = 20000, 32000  # below what Linux hands out by itself
_PARTS = {
    "exporter": r"-m remediator\.cli exporter",
    "remediator": r"-m remediator\.(cli remediator|serving)",
    "alertmanager": r"^\S*alertmanager ",
    "prometheus": r"^\S*prometheus ",
}
"""How the command line of each part looks."""

_WELL = ("healthy", "degraded")
_Found = TypeVar("_Found")


def wait_until(what: str, look: Callable[[], _Found | None], within: float, every: float = 0.05) -> _Found:
    """Return the first answer of *look* that says something; or raise TimeoutError."""
    deadline = time.monotonic() + within
    while True:
        with suppress(requests.ConnectionError):  # whoever is asked may be starting again
            found = look()
            if found:
                return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within:g} s")
        time.sleep(every)


def free_ports(count: int) -> list[int]:
    """Return a run of ports that nothing listens on, so that stacks can live beside each other."""
    start = _FIRST_PORT + (os.getpid() * 37) % (_LAST_PORT - _FIRST_PORT)
    for offset in range(0, _LAST_PORT - _FIRST_PORT, count):
        first = _FIRST_PORT + (start - _FIRST_PORT + offset) % (_LAST_PORT - _FIRST_PORT - count)
        ports = list(range(first, first + count))
        if all(_is_free(port) for port in ports):
            return ports
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def demo_config(
    change: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[dict[str, Any], dict[int, int]]:
    """Return the demo's configuration moved to free ports, and which port became which."""
    moved = dict(zip(_DEFAULT_PORTS, free_ports(len(_DEFAULT_PORTS)), strict=True))
    text = (PLATFORM / "soulfra.yml").read_text(encoding="utf-8")
    text = re.sub(r"(?<![\d.])\d{4}(?!\d)", lambda found: str(moved.get(int(found[0]), found[0])), text)
    config: dict[str, Any] = yaml.safe_load(text)
    for service in config["services"].values():
        if "restart" in service:
            service["restart"]["cwd"] = str(PLATFORM)
    command = config["demo"]["load"]
    command[1] = str(PLATFORM / command[1])
    if change:
        change(config)
    return config, moved


@dataclass
class DemoStack:
    """One ``soulfra up --demo`` in a folder of its own."""

    folder: Path
    config: dict[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    healthy: Iterable[str] | None = None  # the services that ready means; default: all
    process: subprocess.Popen[bytes] | None = None
    seconds_to_ready: float = 0.0

    def start(self, within: float = 60.0) -> "DemoStack":
        """Start it and wait until every part is ready and every service has been seen up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "soulfra.yml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        begun = time.monotonic()
        command = [sys.executable, "-m", "remediator.cli", "up", "--demo", "--config", str(file)]
        with (self.folder / "up.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.folder / "data")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        try:
            wait_until("ready", self._is_ready, within)
        except TimeoutError:
            self.stop()
            raise
        self.seconds_to_ready = time.monotonic() - begun
        return self

    def _is_ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"soulfra up ended:\n{self.output()}")
        with suppress(requests.RequestException):
            health = self.api("health")
            services = health["services"].values()
            return bool(services) and all(
                service["status"] in ("healthy", "degraded") for service in services
            )
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and whatever of it does not end by itself."""
        if self.process is None:
            return
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        self.process = None

    def output(self) -> str:
        """Return what ``soulfra up`` has printed."""
        return (self.folder / "up.log").read_text(encoding="utf-8", errors="replace")

    def url(self, part: str) -> str:
        """Return the address of exporter, remediator, prometheus or alertmanager."""
        return f"http://{self.config[part]['listen']}"

    def api(self, path: str, **fields: str) -> Any:
        """GET below the remediator's API; raises requests.HTTPError for an error status."""
        answer = requests.get(f"{self.url('remediator')}/api/monitoring/{path}", params=fields, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Mapping[str, Any]) -> requests.Response:
        """POST JSON below the remediator's API."""
        return requests.post(f"{self.url('remediator')}/api/monitoring/{path}", json=body, timeout=10)

    def state(self, service: str) -> Any:
        """Return what the exporter knows of a service."""
        answer = requests.get(f"{self.url('exporter')}/state", params={"target": service}, timeout=5)
        answer.raise_for_status()
        return answer.json()["services"][service]

    def port(self, service: str) -> int:
        """Return the port a service listens on."""
        return int(self.config["services"][service]["process"]["port"])

    def pid(self, service: str) -> int:
        """Return the process that listens on a service's port now."""
        return wait_until(f"a process of {service}", lambda: listener(self.port(service)), 10)

    def kill(self, service: str, how: signal.Signals = signal.SIGKILL) -> float:
        """Send a signal to a service; return when, in epoch seconds."""
        os.kill(self.pid(service), how)
        return time.time()

    def switch(self, service: str, mode: str) -> float:
        """Make a service of the example platform fail in a way of its own; return when."""
        address = f"http://127.0.0.1:{self.port(service)}/switch"
        requests.post(address, json={"mode": mode}, timeout=5).raise_for_status()
        return time.time()

    def errors(self, service: str, **only: str) -> list[dict[str, Any]]:
        """Return the errors of a service, newest first; *only* filters, as ``type`` does."""
        found: list[dict[str, Any]] = self.api("errors", since="1h", service=service, **only)["errors"]
        return found

    def answers(self, service: str) -> bool:
        """Whether a service answers its health address with 200 right now, asked by us."""
        with suppress(requests.RequestException):
            url = f"http://127.0.0.1:{self.port(service)}/health"
            return bool(requests.get(url, timeout=1).ok)
        return False

    def signal_part(self, part: str, how: signal.Signals) -> None:
        """Send a signal to every process of a part."""
        for process in self.parts()[part]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(how)

    def parts(self) -> dict[str, list[psutil.Process]]:
        """Return the processes of exporter, remediator, prometheus and alertmanager by name."""
        found: dict[str, list[psutil.Process]] = {}
        if self.process is None:
            return found
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                line = " ".join(child.cmdline())
                part = next((part for part, pattern in _PARTS.items() if re.search(pattern, line)), None)
                if part is not None:
                    found.setdefault(part, []).append(child)
        return found


def listener(port: int) -> int | None:
    """Return the process that listens on a port of this machine, if there is one."""
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
            return connection.pid
    return None


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Keep a result as JSON below benchmarks/results; return where."""
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return file
