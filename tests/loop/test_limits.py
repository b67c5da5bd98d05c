"""What cannot be repaired is tried a few times, told once, and never made worse."""

import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import DemoStack, demo_config, free_ports, listener, wait_until

_SERVER = """
import http.server, os, sys, threading
if len(sys.argv) > 2:
    threading.Timer(float(sys.argv[2]), lambda: os._exit(3)).start()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """Run the demo as it comes, limits included, and two services more that cannot be repaired."""
    folder = tmp_path_factory.mktemp("limits")

    def add_hopeless(config: dict[str, Any]) -> None:
        cramped, crasher, broken = free_ports(30)[-3:]
        (folder / "server.py").write_text(_SERVER, encoding="utf-8")
        config["services"]["crasher"] = _service(crasher, [sys.executable, "server.py", str(crasher), "2"])
        # Started once, this command is not there any more.
        once = folder / "once"
        once.write_text(f'#!/bin/sh\nrm "$0"\nexec {sys.executable} server.py {broken}\n', encoding="utf-8")
        once.chmod(0o755)
        config["services"]["broken"] = _service(broken, [str(once)])
        # It answers, and its disk will always be too full.
        config["services"]["cramped"] = _service(cramped, [sys.executable, "server.py", str(cramped)])
        disk = {"filesystem": str(folder), "name": "disk", "min_free": "100%"}
        config["services"]["cramped"]["probes"].append(disk)
        config["demo"]["load"] = []

    config, _ = demo_config(add_hopeless)
    with DemoStack(
        folder=folder, config=config, healthy={*config["services"]} - {"crasher", "broken"}
    ) as running:
        yield running


def _service(port: int, command: list[str]) -> dict[str, Any]:
    return {
        "probes": [{"http": f"http://127.0.0.1:{port}/"}],
        "process": {"port": port},
        "restart": {"command": command, "cwd": "."},
    }


def _failed(stack: DemoStack, service: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        return next((error for error in stack.errors(service) if error["state"] == "failed"), None)

    return wait_until(f"{service} given up", look, 100)


def test_a_service_whose_command_does_not_exist_is_escalated_once_with_evidence(stack: DemoStack) -> None:
    stack.kill("broken")

    error = _failed(stack, "broken")

    # Another try cannot find it either, so a person is called after the first.
    story = stack.api(f"errors/{error['id']}")
    assert error["attempts"] == 1
    (run,) = story["runs"]
    assert "was not found" in run["detail"]
    assert run["evidence"]
    assert _escalations(stack, "broken") == 1


def test_a_service_that_crashes_after_every_start_is_one_error_and_escalated_once(stack: DemoStack) -> None:
    error = _failed(stack, "crasher")

    story = stack.api(f"errors/{error['id']}")
    assert len(stack.errors("crasher")) == 1
    assert error["attempts"] == 3
    assert error["relapses"] >= 2
    assert _escalations(stack, "crasher") == 1
    starts = [datetime.fromisoformat(run["startedAt"]).timestamp() for run in story["runs"]]
    assert all(later - earlier >= 10 for earlier, later in pairwise(starts))


def _escalations(stack: DemoStack, service: str) -> int:
    return stack.output().count(f"escalate  {service} ")


def test_nothing_is_restarted_while_most_targets_fail_at_once(stack: DemoStack) -> None:
    victims = [name for name in stack.config["services"] if name not in ("redis", "crasher", "broken")]
    before = {name: stack.pid(name) for name in victims}
    at = time.time()
    for name in victims:
        stack.kill(name, signal.SIGSTOP)
    try:
        wait_until("a decision", lambda: _blind_decisions(stack, victims, at), 40)
        time.sleep(5)  # long enough for a wrong restart
        after = {name: listener(stack.port(name)) for name in victims}
        runs = [run for run in stack.api("runs", since="1m")["runs"] if run["service"] in victims]
    finally:
        for name in victims:
            stack.kill(name, signal.SIGCONT)

    assert after == before
    assert not runs
    wait_until("all healthy", lambda: all(stack.answers(name) for name in victims), 20)
    wait_until("errors over", lambda: not _pending(stack, victims), 40)


def _blind_decisions(stack: DemoStack, services: list[str], since: float) -> list[dict[str, Any]]:
    return [
        decision
        for decision in stack.api("decisions", since="5m")["decisions"]
        if decision["reason"] == "prober_blind"
        and decision["service"] in services
        and datetime.fromisoformat(decision["at"]).timestamp() > since
    ]


def _pending(stack: DemoStack, services: list[str]) -> list[str]:
    errors = stack.api("errors", since="1h", state="pending")["errors"]
    return [error["service"] for error in errors if error["service"] in services]


def test_a_paused_service_is_repaired_after_the_pause_only(stack: DemoStack) -> None:
    answer = stack.post("pause", {"scope": "ai-router", "reason": "a test", "owner": "tests"})
    assert answer.status_code == 201
    stack.kill("ai-router")
    wait_until("held", lambda: _held(stack, "ai-router", "paused"), 20)
    assert listener(stack.port("ai-router")) is None

    stack.post("resume", {"scope": "ai-router"})

    wait_until("ai-router answers", lambda: stack.answers("ai-router"), 30)


def _held(stack: DemoStack, service: str, reason: str) -> bool:
    return any((error["held"] or {}).get("reason") == reason for error in stack.errors(service))


def test_a_person_may_restart_a_paused_service_by_force(stack: DemoStack) -> None:
    stack.post("pause", {"scope": "orchestrator", "reason": "a test", "owner": "tests"})
    before = stack.pid("orchestrator")
    request = {"action": "restart_service", "target": "orchestrator"}

    refused = stack.post("recover", request)
    accepted = stack.post("recover", {**request, "force": True})

    assert (refused.status_code, refused.json()["reason"]) == (409, "paused")
    assert accepted.status_code == 202
    run = accepted.json()["run"]
    wait_until("the run", lambda: stack.api(f"runs/{run}")["outcome"] == "recovered", 30)
    assert stack.pid("orchestrator") != before


def test_everything_ends_with_the_stack(tmp_path: Path) -> None:
    config, _ = demo_config()
    ports = [int(service["process"]["port"]) for service in config["services"].values()]
    stack = DemoStack(folder=tmp_path, config=config).start()
    stack.kill("chat-analyzer")
    wait_until("a repair", lambda: stack.answers("chat-analyzer"), 20)

    stack.stop(signal.SIGINT)

    assert not [port for port in ports if listener(port)]
    assert "no process is left" in stack.output()


def test_a_full_disk_is_told_to_people_and_restarts_nothing(stack: DemoStack) -> None:
    def look() -> dict[str, Any] | None:
        found = stack.errors("cramped")
        return next((error for error in found if error["type"] == "disk_full"), None)

    error = wait_until("a full disk told", look, 120)

    assert error["attempts"] == 0
    assert not [run for run in stack.api("runs", since="1h")["runs"] if run["service"] == "cramped"]


def test_a_killed_service_recovers_though_its_disk_is_full(stack: DemoStack) -> None:
    at = stack.kill("cramped")

    def look() -> dict[str, Any] | None:
        found = [one for one in stack.errors("cramped") if one["recoveredAt"] is not None]
        return next(
            (one for one in found if datetime.fromisoformat(one["recoveredAt"]).timestamp() > at), None
        )

    error = wait_until("cramped recovered", look, 40)

    assert (error["type"], error["attempts"]) == ("service_down", 1)
