"""The main job, on real parts: a service fails, and is healthy again without a hand being laid on it."""

import signal
import time
from datetime import datetime
from typing import Any

import pytest

from benchmarks.harness import DemoStack, wait_until

_SERVICES = (
    "chat-analyzer",
    "trust-engine",
    "ai-router",
    "mobile-converter",
    "orchestrator",
    "provider-a",
    "redis",
)


def _recovered(stack: DemoStack, service: str, since: float, within: float, **only: str) -> dict[str, Any]:
    """Wait for an error of a service to be recovered after *since*; return it. *only* filters them."""

    def look() -> dict[str, Any] | None:
        return next(
            (error for error in stack.errors(service, **only) if _is_after(error["recoveredAt"], since)), None
        )

    return wait_until(f"{service} recovered\n{stack.output()}", look, within)


def _is_after(iso: str | None, since: float) -> bool:
    return iso is not None and _seconds(iso) > since


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


@pytest.mark.parametrize("service", _SERVICES)
def test_a_killed_service_is_healthy_again(stack: DemoStack, service: str) -> None:
    before = stack.pid(service)
    at = stack.kill(service)

    # What its library says of the death, at its next start, is an error beside it.
    error = _recovered(stack, service, at, within=30, type="service_down")

    assert error["recoveryTime"] > 0
    assert error["attempts"] >= 1
    assert stack.pid(service) != before


def test_a_hung_service_is_healthy_again(stack: DemoStack) -> None:
    at = stack.kill("chat-analyzer", signal.SIGSTOP)

    error = _recovered(stack, "chat-analyzer", at, within=45)

    assert error["recovered"] is True
    assert stack.answers("chat-analyzer")


def test_a_service_that_answers_500_until_restarted_is_healthy_again(stack: DemoStack) -> None:
    at = stack.switch("mobile-converter", "errors")

    error = _recovered(stack, "mobile-converter", at, within=45)

    assert error["recovered"] is True
    assert stack.answers("mobile-converter")


def test_a_dependant_is_not_restarted_while_its_dependency_is_repaired(stack: DemoStack) -> None:
    dependant = stack.pid("trust-engine")
    at = stack.kill("redis")

    _recovered(stack, "redis", at, within=30)
    wait_until("trust-engine answers", lambda: stack.answers("trust-engine"), 20)

    assert stack.pid("trust-engine") == dependant


@pytest.mark.parametrize("later", [0.0, 0.15, 0.35, 0.6])
def test_a_run_is_taken_up_after_the_remediator_was_killed_in_the_middle(
    stack: DemoStack, later: float
) -> None:
    at = stack.kill("ai-router")
    run = wait_until("a run", lambda: _running(stack), 15, every=0.01)
    time.sleep(later)  # a moment of its own: before the step, in it, after it, in the verification
    stack.signal_part("remediator", signal.SIGKILL)

    error = _recovered(stack, "ai-router", at, within=60)

    first = stack.api(f"runs/{run}")
    assert first["outcome"] in ("recovered", "interrupted")
    assert error["recovered"] is True


def _running(stack: DemoStack) -> str | None:
    runs = stack.api("runs", since="1m")["runs"]
    return next((str(run["id"]) for run in runs if run["state"] == "running"), None)


def test_an_open_failure_is_repaired_after_the_remediator_was_away(stack: DemoStack) -> None:
    stack.signal_part("remediator", signal.SIGSTOP)
    at = stack.kill("orchestrator")
    time.sleep(60)  # the absence itself is the matter of this test

    stack.signal_part("remediator", signal.SIGKILL)

    _recovered(stack, "orchestrator", at, within=60)


def test_without_the_exporter_nothing_is_called_healthy_or_recovered(stack: DemoStack) -> None:
    stack.signal_part("exporter", signal.SIGSTOP)
    at = stack.kill("chat-analyzer")
    try:
        health = wait_until("unknown", lambda: _all_unknown(stack), 20)
        time.sleep(5)  # long enough for a wrong verdict
        errors = [error for error in stack.errors("chat-analyzer") if _seconds(error["lastSeen"]) > at]
    finally:
        stack.signal_part("exporter", signal.SIGCONT)

    assert health["status"] == "degraded"
    assert not any(error["recovered"] for error in errors)
    _recovered(stack, "chat-analyzer", at, within=60)


def _all_unknown(stack: DemoStack) -> dict[str, Any] | None:
    health: dict[str, Any] = stack.api("health")
    statuses = {service["status"] for service in health["services"].values()}
    return health if statuses == {"unknown"} else None
