"""Time from failure to verified recovery, with its parts, beside Monit in the same run.

    python -m benchmarks.recovery [--kills 30] [--hangs 10] [--spacing 9] [--seed 1]

Three contenders live side by side on this machine, each with services of its own: Soulfra Monitor
as it comes (with the fast path), the same without the fast path (Prometheus alone), and Monit with
its usual 5 s cycle on the same example service. Each round fails one service of each contender at a
random moment. The clock starts when the signal is sent and ends

- for Soulfra Monitor, when the run is verified (three healthy probes in a row), as the API says;
- for Monit, which verifies nothing, at the first of three healthy answers in a row, asked by us
  every 50 ms. The same clock is printed for Soulfra Monitor, so that both can be compared.

Nothing is changed from the defaults but the limits (runs per hour), which 40 failures in ten
minutes would use up. Spacing keeps the failures of one service more than a minute apart.
"""

import argparse
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import requests
import yaml

from benchmarks.harness import (
    PLATFORM,
    ROOT,
    DemoStack,
    demo_config,
    free_ports,
    listener,
    wait_until,
    write_result,
)

_VICTIMS = (
    "chat-analyzer",
    "trust-engine",
    "ai-router",
    "mobile-converter",
    "orchestrator",
    "provider-a",
    "provider-b",
)
_GIVE_UP = 90.0  # seconds
_PARTS = ("detection", "alert", "webhook", "decision", "action", "verification")


@dataclass
class Sample:
    """One failure and how it was healed; times in seconds from the failure."""

    contender: str
    fault: str
    service: str
    healthy: float | None = None  # first of three good answers in a row, asked by us
    verified: float | None = None
    parts: dict[str, float] = field(default_factory=dict)


class Contender(Protocol):
    """Somebody who repairs services that we fail."""

    name: str

    def fail(self, service: str, how: signal.Signals) -> Sample:
        """Fail a service and wait until it is healed, or give up."""


@dataclass
class Soulfra:
    """A demo stack of ours."""

    name: str
    stack: DemoStack

    def fail(self, service: str, how: signal.Signals) -> Sample:
        """Fail a service; the parts come from the run's own milestones."""
        fault = "kill" if how is signal.SIGKILL else "hang"
        sample = Sample(self.name, fault, service)
        at = self.stack.kill(service, how)
        sample.healthy = seconds_to_health(self.stack.port(service), at)
        run = wait_until("a recovered run", lambda: self._run(service, at), _GIVE_UP)
        marks = {name: _epoch(value) for name, value in run["timings"].items()}
        sample.verified = marks["verified"] - at
        sample.parts = parts_of(at, marks)
        return sample

    def _run(self, service: str, at: float) -> dict[str, Any] | None:
        runs = self.stack.api("runs", since="5m", service=service, outcome="recovered")["runs"]
        return next((run for run in runs if _epoch(run["startedAt"]) > at), None)


@dataclass
class Monit:
    """Monit, with one check for each service: process by pid file, and its health address."""

    name: str
    ports: dict[str, int]

    def fail(self, service: str, how: signal.Signals) -> Sample:
        """Fail a service of Monit's."""
        fault = "kill" if how is signal.SIGKILL else "hang"
        sample = Sample(self.name, fault, service)
        pid = wait_until("a process", lambda: listener(self.ports[service]), 10)
        at = time.time()
        subprocess.run(["kill", f"-{int(how)}", str(pid)], check=True)
        sample.healthy = seconds_to_health(self.ports[service], at)
        return sample


def parts_of(at: float, marks: dict[str, float]) -> dict[str, float]:
    """Split a recovery by its milestones, in the order in which they happen."""
    down = marks.get("down", marks["signal"])
    # The alert's own time: when the exporter called the service down, or Prometheus's rule fired.
    alerted = min(max(marks.get("alert", down), down), marks["signal"])
    acting = marks.get("acting", marks["decided"])
    edges = (at, down, alerted, marks["signal"], acting, marks["acted"], marks["verified"])
    return {
        name: max(0.0, after - before) for name, before, after in zip(_PARTS, edges, edges[1:], strict=False)
    }


def seconds_to_health(port: int, at: float) -> float | None:
    """Ask every 50 ms; return when the first of three good answers in a row came."""
    url, good, first = f"http://127.0.0.1:{port}/health", 0, 0.0
    while time.time() - at < _GIVE_UP:
        try:
            fine = requests.get(url, timeout=1).ok
        except requests.RequestException:
            fine = False
        good = good + 1 if fine else 0
        if good == 1:
            first = time.time() - at
        if good == 3:
            return first
        time.sleep(0.05)
    return None


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def start_soulfra(name: str, folder: Path, *, fast_path: bool) -> Soulfra:
    """Start a stack with the limits on runs per hour raised, and nothing else."""

    def change(config: dict[str, Any]) -> None:
        playbooks = yaml.safe_load((ROOT / "remediator/shipped/playbooks.yml").read_text(encoding="utf-8"))
        for playbook in playbooks["playbooks"]:
            playbook["limits"] |= {"per_target": "1000/1h", "everywhere": "1000/1h"}
        folder.mkdir(parents=True)
        (folder / "playbooks.yml").write_text(yaml.safe_dump(playbooks), encoding="utf-8")
        config["playbooks"] = ["playbooks.yml"]
        config["exporter"]["fast_path"] = fast_path
        config["demo"]["load"] = []

    config, _ = demo_config(change)
    stack = DemoStack(folder=folder, config=config).start()
    print(f"# {name}: ready in {stack.seconds_to_ready:.1f} s", flush=True)
    return Soulfra(name, stack)


def start_monit(folder: Path) -> tuple[Monit, subprocess.Popen[bytes]]:
    """Start Monit with a 5 s cycle over as many copies of an example service as the others have services."""
    folder.mkdir(parents=True)
    ports = dict(zip(_VICTIMS, free_ports(len(_VICTIMS) + 1), strict=False))
    control = free_ports(len(_VICTIMS) + 1)[-1]
    lines = [
        "set daemon 5",
        f"set log {folder}/monit.log",
        f"set httpd port {control} and use address 127.0.0.1 allow localhost",
        f"set idfile {folder}/id",
        f"set statefile {folder}/state",
    ]
    for name, port in ports.items():
        start, stop, pid = folder / f"start-{name}", folder / f"stop-{name}", folder / f"{name}.pid"
        begin = f"{sys.executable} chat_analyzer.py --port {port} >>{folder}/{name}.log 2>&1 &"
        start.write_text(f"#!/bin/sh\ncd {PLATFORM}\n{begin}\necho $! >{pid}\n")
        stop.write_text(f"#!/bin/sh\nkill -9 $(cat {pid})\n")
        for script in (start, stop):
            script.chmod(0o700)
        lines.append(
            f"check process {name} with pidfile {pid}\n"
            f'  start program = "{start}" with timeout 10 seconds\n'
            f'  stop program = "{stop}" with timeout 10 seconds\n'
            f"  if failed host 127.0.0.1 port {port} protocol http request /health with timeout 2 seconds"
            f" for 2 cycles then restart"
        )
    config = folder / "monitrc"
    config.write_text("\n".join(lines) + "\n")
    config.chmod(0o600)
    process = subprocess.Popen(
        ["monit", "-I", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for port in ports.values():
        wait_until("monit's services", lambda port=port: listener(port), 60)  # type: ignore[misc]
    print("# monit: ready", flush=True)
    return Monit("monit", ports), process


def stop_monit(monit: Monit, process: subprocess.Popen[bytes]) -> None:
    """End Monit and its services."""
    process.terminate()
    process.wait(10)
    for port in monit.ports.values():
        pid = listener(port)
        if pid:
            subprocess.run(["kill", "-9", str(pid)], check=False)


def race(
    contenders: list[Contender], faults: list[signal.Signals], spacing: float, chance: random.Random
) -> list[Sample]:
    """Fail the same service of every contender, each at its own random moment, one fault after the other."""
    samples: list[Sample] = []
    with ThreadPoolExecutor(len(contenders)) as pool:
        for number, how in enumerate(faults):
            begun = time.monotonic()
            service = _VICTIMS[number % len(_VICTIMS)]
            delays = [chance.uniform(0, 5) for _ in contenders]
            waits = [
                pool.submit(_after, delay, contender, service, how)
                for delay, contender in zip(delays, contenders, strict=True)
            ]
            for sample in [wait.result() for wait in waits]:
                samples.append(sample)
                told = {name: round(value, 2) for name, value in sample.parts.items()}
                print(
                    f"{sample.fault} {number + 1:2} {sample.contender:<18} {service:<17}"
                    f" healthy {_told(sample.healthy)} verified {_told(sample.verified)} {told or ''}",
                    flush=True,
                )
            time.sleep(max(0.0, spacing - (time.monotonic() - begun)))
    return samples


def again(contenders: list[Soulfra], times: int) -> list[str]:
    """Fail a service a second time 20 s after its recovery; return both times as lines for people."""
    lines = ["\na second kill 20 s after the recovery from the first: verified after (seconds)"]
    for contender in contenders:
        for service in _VICTIMS[:times]:
            first = contender.fail(service, signal.SIGKILL)
            time.sleep(20)
            second = contender.fail(service, signal.SIGKILL)
            both = f"first {_told(first.verified)} second {_told(second.verified)}"
            lines.append(f"  {contender.name:<18} {service:<17} {both}")
    return lines


def _after(delay: float, contender: Contender, service: str, how: signal.Signals) -> Sample:
    threading.Event().wait(delay)
    return contender.fail(service, how)


def _told(seconds: float | None) -> str:
    return "      -" if seconds is None else f"{seconds:6.2f}s"


def summarise(samples: list[Sample]) -> list[str]:
    """Return the distributions as lines for people."""
    lines = []
    for fault in ("kill", "hang"):
        lines.append(f"\n{fault}: seconds from the failure (median / p95 / worst)")
        for contender in dict.fromkeys(sample.contender for sample in samples):
            mine = [sample for sample in samples if (sample.fault, sample.contender) == (fault, contender)]
            if not mine:
                continue
            healthy = [sample.healthy for sample in mine if sample.healthy is not None]
            verified = [sample.verified for sample in mine if sample.verified is not None]
            lines.append(f"  {contender:<18} n={len(mine):<3} healed {len(healthy)}")
            lines.append(f"    healthy {spread(healthy)}   verified {spread(verified)}")
            parts = {name: [sample.parts[name] for sample in mine if name in sample.parts] for name in _PARTS}
            told = "  ".join(
                f"{name} {statistics.median(values):.2f}" for name, values in parts.items() if values
            )
            if told:
                lines.append(f"    medians of the parts: {told}")
    return lines


def spread(values: list[float]) -> str:
    """Return median, p95 and worst."""
    if not values:
        return "-"
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.2f} / {p95:.2f} / {ordered[-1]:.2f}"


def main() -> None:
    """Run the race and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--hangs", type=int, default=10)
    parser.add_argument(
        "--spacing", type=float, default=9.0, help="seconds between faults; 7 services take turns"
    )
    parser.add_argument("--again", type=int, default=3, help="services to fail twice in a short time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-monit", action="store_true")
    asked = parser.parse_args()
    if not asked.without_monit and shutil.which("monit") is None:
        parser.error("monit is not installed: install it (Debian: apt-get install monit), or --without-monit")
    chance = random.Random(asked.seed)
    faults = [signal.SIGKILL] * asked.kills + [signal.SIGSTOP] * asked.hangs
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        folder = Path(name)
        stop: list[Callable[[], None]] = []
        try:
            contenders: list[Contender] = []
            ours: list[Soulfra] = []
            for title, fast in (("soulfra", True), ("prometheus alone", False)):
                soulfra = start_soulfra(title, folder / title.replace(" ", "-"), fast_path=fast)
                stop.append(soulfra.stack.stop)
                contenders.append(soulfra)
                ours.append(soulfra)
            if not asked.without_monit:
                monit, process = start_monit(folder / "monit")
                stop.append(partial(stop_monit, monit, process))
                contenders.append(monit)
            samples = race(contenders, faults, asked.spacing, chance)
            twice = again(ours, asked.again)
        finally:
            for end in stop:
                end()
    lines = summarise(samples) + twice
    print("\n".join(lines))
    kept = write_result(
        "recovery", {"arguments": vars(asked), "samples": [vars(sample) for sample in samples]}
    )
    print(f"\nkept in {kept.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
