"""The commands that change something send what was meant and tell what became of it."""

import getpass
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

Soulfra = Callable[..., Result]

BEGUN = {"run": "R_0001", "url": "/api/monitoring/runs/R_0001"}


def test_recover_names_the_run_that_has_begun(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("POST /recover", BEGUN, 202)

    done = soulfra("recover", "restart_service", "ai-router", "--force")

    assert done.exit_code == 0
    assert done.stdout == "run R_0001 has begun: soulfra explain R_0001\n"
    assert remediator.asked[0][2] == {
        "action": "restart_service",
        "target": "ai-router",
        "force": True,
        "by": getpass.getuser(),
    }


def test_a_guardrail_s_reason_is_told_with_status_1(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("POST /recover", {"error": "ai-router was repaired 3 s ago", "reason": "cooldown"}, 409)

    done = soulfra("recover", "restart_service", "ai-router")

    assert done.exit_code == 1
    assert done.stderr == "ai-router was repaired 3 s ago (cooldown)\n"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_other_refusals_are_told_as_the_api_says_them(soulfra: Soulfra, remediator: Any, status: int) -> None:
    remediator.on("POST /recover", {"error": "because"}, status)

    done = soulfra("recover", "restart_service", "ai-router")

    assert (done.exit_code, done.stderr, done.stdout) == (1, "because\n", "")


def test_a_refusal_is_json_for_scripts(soulfra: Soulfra, remediator: Any) -> None:
    refusal = {"error": "not now", "reason": "budget"}
    remediator.on("POST /recover", refusal, 409)

    done = soulfra("recover", "restart_service", "ai-router", "--json")

    assert (done.exit_code, json.loads(done.stdout)) == (1, refusal)


@pytest.mark.parametrize(("outcome", "code"), [("recovered", 0), ("failed", 1), ("unverified", 1)])
def test_waiting_ends_with_the_outcome(soulfra: Soulfra, remediator: Any, outcome: str, code: int) -> None:
    run = {"id": "R_0001", "playbook": "restart_service", "service": "ai-router", "trigger": "person"}
    remediator.on("POST /recover", BEGUN, 202)
    remediator.on("GET /runs/R_0001", {**run, "outcome": None})
    remediator.on("GET /runs/R_0001", {**run, "outcome": outcome})

    done = soulfra("recover", "restart_service", "ai-router", "--wait")

    assert done.exit_code == code
    assert outcome in done.stdout.splitlines()[0]


def test_pause_holds_everything_back_in_the_name_of_who_asks(soulfra: Soulfra, remediator: Any) -> None:
    kept = {"scope": "everything", "reason": "upgrade", "owner": "kim", "since": None, "until": None}
    remediator.on("POST /pause", kept, 201)

    done = soulfra("pause", "--reason", "upgrade", "--for", "2h")

    assert done.stdout == "paused: everything by kim, until somebody resumes it: upgrade\n"
    assert remediator.asked[0][2] == {
        "scope": "everything",
        "reason": "upgrade",
        "owner": getpass.getuser(),
        "for": "2h",
    }


def test_pause_needs_a_reason(soulfra: Soulfra, remediator: Any) -> None:
    done = soulfra("pause", "ai-router")

    assert done.exit_code == 2
    assert remediator.asked == []


def test_resume_of_one_target_says_whether_it_was_paused(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("POST /resume", {"ended": 1})
    remediator.on("POST /resume", {"ended": 0})

    assert soulfra("resume", "ai-router").stdout == "ai-router: resumed\n"
    assert soulfra("resume", "ai-router").stdout == "ai-router: was not paused\n"
    assert remediator.asked[0][2] == {"scope": "ai-router"}


@pytest.mark.parametrize("word", ["approve", "reject"])
def test_an_answer_to_a_held_recovery_carries_who_gave_it(
    soulfra: Soulfra, remediator: Any, word: str
) -> None:
    remediator.on(f"POST /errors/SE_1/{word}", {"id": "SE_1"})

    assert soulfra(word, "SE_1").exit_code == 0
    assert remediator.asked[0][2] == {"by": getpass.getuser()}
