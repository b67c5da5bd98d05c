"""The shipped Alertmanager config on a real Alertmanager; only its addresses are replaced."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import loads
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import requests
import yaml

ROOT = Path(__file__).parents[2]
Labels = dict[str, str]


def wait_until(reached: Callable[[], bool], *, within: float, what: str) -> float:
    """Return the seconds that it took until *reached*; fail after *within*."""
    started = time.monotonic()
    while not reached():
        if time.monotonic() - started > within:
            pytest.fail(f"not within {within}s: {what}")
        time.sleep(0.02)
    return time.monotonic() - started


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(kw_only=True)
class Receiver:
    """What one webhook address was told: the alerts of all posts, in their order."""

    alerts: list[dict[str, Any]] = field(default_factory=list)

    def heard(self, status: str, **labels: str) -> int:
        """How often an alert with these labels was told with this status."""
        return sum(
            alert["status"] == status and labels.items() <= alert["labels"].items()
            for alert in list(self.alerts)
        )


@dataclass(kw_only=True)
class Stack:
    """A running Alertmanager with the shipped config, and the receivers that it posts to."""

    url: str
    remediator: Receiver
    people: Receiver

    def post(self, labels: Labels, *, ended: bool = False) -> None:
        """Tell Alertmanager that an alert fires, or has ended now."""
        now = datetime.now(UTC)
        alert = {
            "labels": labels,
            "startsAt": (now - timedelta(seconds=1)).isoformat(),
            "endsAt": (now if ended else now + timedelta(minutes=5)).isoformat(),
        }
        requests.post(f"{self.url}/api/v2/alerts", json=[alert], timeout=5).raise_for_status()

    def is_inhibited(self, **labels: str) -> bool:
        alerts = requests.get(f"{self.url}/api/v2/alerts", timeout=5).json()
        return any(
            labels.items() <= alert["labels"].items() and alert["status"]["inhibitedBy"] for alert in alerts
        )


@pytest.fixture
def receivers() -> Iterator[tuple[int, dict[str, Receiver]]]:
    """Serve one webhook address for each receiver; yields the port and the receivers by path."""
    by_path = {"/remediator": Receiver(), "/people": Receiver()}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = loads(self.rfile.read(int(self.headers["Content-Length"])))
            by_path[self.path].alerts.extend(body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port, by_path
    server.shutdown()
    thread.join()
    server.server_close()


def shipped_config(port: int) -> str:
    """Return the shipped config with its addresses replaced, and with an integration for people."""
    config = yaml.safe_load((ROOT / "rules/alertmanager/alertmanager.yml").read_text())
    for receiver in config["receivers"]:
        for webhook in receiver.get("webhook_configs", []):
            webhook["url"] = f"http://127.0.0.1:{port}/remediator"
        if receiver["name"] == "people":
            receiver["webhook_configs"] = [{"url": f"http://127.0.0.1:{port}/people"}]
    return yaml.safe_dump(config)


def is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=1).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def stack(alertmanager: str, tmp_path: Path, receivers: tuple[int, dict[str, Receiver]]) -> Iterator[Stack]:
    """Run a real Alertmanager with the shipped config on a free port."""
    receiver_port, by_path = receivers
    config = tmp_path / "alertmanager.yml"
    config.write_text(shipped_config(receiver_port))
    address = f"127.0.0.1:{free_port()}"
    command = [
        alertmanager,
        f"--config.file={config}",
        f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            url = f"http://{address}"
            wait_until(lambda: is_ready(url), within=30, what="Alertmanager is ready")
            yield Stack(url=url, remediator=by_path["/remediator"], people=by_path["/people"])
        finally:
            process.terminate()
            process.wait(timeout=20)


def down(target: str, origin: str) -> Labels:
    return {
        "alertname": "SoulfraServiceDown",
        "target": target,
        "problem": "service_down",
        "severity": "critical",
        "origin": origin,
    }


def hear(stack: Stack, *, status: str = "firing", times: int = 1, within: float = 10, **labels: str) -> None:
    """Wait until the remediator was told of an alert."""
    wait_until(
        lambda: stack.remediator.heard(status, **labels) >= times,
        within=within,
        what=f"the remediator hears {labels} as {status}",
    )


def test_the_twin_of_an_outage_is_silent_while_the_exporter_tells_of_it(stack: Stack) -> None:
    stack.post(down("trust-engine", "exporter"))
    hear(stack, target="trust-engine", origin="exporter")

    stack.post(down("trust-engine", "prometheus"))
    stack.post(down("ai-router", "prometheus"))  # another service: its twin says nothing of this one
    hear(stack, target="ai-router", origin="prometheus")
    wait_until(
        lambda: stack.is_inhibited(target="trust-engine", origin="prometheus"),
        within=5,
        what="the twin is inhibited",
    )

    assert stack.remediator.heard("firing", target="trust-engine", origin="prometheus") == 0


def test_the_twin_takes_over_when_the_exporter_falls_silent(stack: Stack) -> None:
    stack.post(down("trust-engine", "exporter"))
    hear(stack, target="trust-engine", origin="exporter")
    stack.post(down("trust-engine", "prometheus"))

    stack.post(down("trust-engine", "exporter"), ended=True)

    hear(stack, target="trust-engine", origin="prometheus")


def test_a_second_failure_soon_after_a_recovery_is_told_within_two_seconds(stack: Stack) -> None:
    outage = down("trust-engine", "exporter")
    stack.post(outage)
    hear(stack, target="trust-engine")
    stack.post(outage, ended=True)
    hear(stack, target="trust-engine", status="resolved")
    before = stack.remediator.heard("firing", target="trust-engine")

    stack.post(outage)

    hear(stack, target="trust-engine", times=before + 1, within=2)


def test_an_outage_is_told_to_the_remediator_at_once_and_not_yet_to_people(stack: Stack) -> None:
    stack.post(down("trust-engine", "exporter"))

    hear(stack, target="trust-engine", within=2)
    assert stack.people.alerts == []


def test_an_escalation_reaches_people_at_once_and_never_the_remediator(stack: Stack) -> None:
    escalation = {**down("trust-engine", "remediator"), "alertname": "SoulfraEscalation"}

    stack.post(escalation)

    wait_until(
        lambda: stack.people.heard("firing", alertname="SoulfraEscalation") == 1,
        within=2,
        what="people hear of it",
    )
    stack.post(down("ai-router", "exporter"))
    hear(stack, target="ai-router")
    assert stack.remediator.heard("firing", alertname="SoulfraEscalation") == 0


def test_a_blind_exporter_hides_no_outage_from_the_remediator(stack: Stack) -> None:
    stack.post(
        {
            "alertname": "SoulfraProberBlind",
            "target": "soulfra-exporter",
            "problem": "prober_blind",
            "severity": "critical",
        }
    )
    hear(stack, alertname="SoulfraProberBlind")

    stack.post(down("trust-engine", "prometheus"))

    hear(stack, target="trust-engine", origin="prometheus")


def test_the_watchdog_reaches_the_remediator_and_no_person(stack: Stack) -> None:
    stack.post({"alertname": "Watchdog", "severity": "none"})

    hear(stack, alertname="Watchdog", within=2)
    assert stack.people.alerts == []
