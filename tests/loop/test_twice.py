"""Alerts come twice, late, shifted and after their end; what is done about them is done once."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.harness import DemoStack, demo_config, free_ports, wait_until

_LABELS = {
    "alertname": "SoulfraServiceDown",
    "problem": "service_down",
    "severity": "critical",
    "target": "mobile-converter",
}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of the second Alertmanager; the stack below starts it."""
    return f"http://127.0.0.1:{free_ports(40)[-1]}"  # type: ignore[return-value]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, second: str) -> Iterator[DemoStack]:
    """Run the demo with two Alertmanagers that know nothing of each other."""
    folder = tmp_path_factory.mktemp("twice")

    def two(config: dict[str, Any]) -> None:
        both = [f"http://{config['alertmanager']['listen']}", second]
        config["exporter"]["alertmanagers"] = both
        config["remediator"]["alertmanagers"] = both
        config["demo"]["load"] = []

    config, _ = demo_config(two)
    with DemoStack(folder=folder, config=config) as running:
        other = _start_twin(folder, second)
        try:
            wait_until("the second Alertmanager", lambda: _is_ready(second), 20)
            yield running
        finally:
            other.kill()
            other.wait()


def _start_twin(folder: Path, address: str) -> subprocess.Popen[bytes]:
    program = shutil.which("prometheus-alertmanager") or "alertmanager"
    config = next((folder / "data" / "alertmanager").glob("*.yml"))
    return subprocess.Popen(
        [
            program,
            f"--config.file={config}",
            f"--storage.path={folder / 'twin'}",
            f"--web.listen-address={address.removeprefix('http://')}",
            "--cluster.listen-address=",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _is_ready(address: str) -> bool:
    with suppress(requests.RequestException):
        return bool(requests.get(f"{address}/-/ready", timeout=1).ok)
    return False


def _post(address: str, *, starts: datetime, ends: datetime | None = None, **labels: str) -> None:
    alert: dict[str, Any] = {"labels": {**_LABELS, **labels}, "startsAt": starts.isoformat()}
    if ends is not None:
        alert["endsAt"] = ends.isoformat()
    requests.post(f"{address}/api/v2/alerts", json=[alert], timeout=5).raise_for_status()


def _runs(stack: DemoStack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.api("runs", since="1h", service="mobile-converter")["runs"]
    return found


def _outages(stack: DemoStack) -> list[dict[str, Any]]:
    return stack.errors("mobile-converter", type="service_down")


def test_two_alertmanagers_and_prometheus_tell_of_one_failure_and_it_is_repaired_once(
    stack: DemoStack, second: str
) -> None:
    stack.kill("mobile-converter")
    wait_until(
        "recovered",
        lambda: any(error["recovered"] for error in _outages(stack)),
        20,
    )
    now = datetime.now(UTC)

    for address in (stack.url("alertmanager"), second):
        _post(address, starts=now, origin="exporter")
        _post(address, starts=now - timedelta(minutes=3), origin="prometheus")  # shifted, as after a restart
        _post(address, starts=now - timedelta(minutes=9), origin="another")  # a third source, joining late
    wait_until("all of them", lambda: _fingerprints(stack) >= 3, 20)
    for address in (stack.url("alertmanager"), second):
        _post(address, starts=now, ends=now + timedelta(milliseconds=1), origin="exporter")
    time.sleep(8)  # re-sends and flushes of both; nothing may come of them

    assert len(_runs(stack)) == 1
    assert len(_outages(stack)) == 1
    assert _outages(stack)[0]["recovered"] is True


def _fingerprints(stack: DemoStack) -> int:
    error = _outages(stack)[0]
    return len(stack.api(f"errors/{error['id']}")["signals"])


def test_every_signal_has_its_decision(stack: DemoStack) -> None:
    error = _outages(stack)[0]

    story = stack.api(f"errors/{error['id']}")

    reasons = {decision["reason"] for decision in story["decisions"]}
    assert [decision["verdict"] for decision in story["decisions"]].count("run") == 1
    assert reasons <= {None, "duplicate", "already_healthy", "resolved", "cooldown"}
    assert "already_healthy" in reasons
