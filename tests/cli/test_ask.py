"""The client commands: tables for people, the API's JSON for scripts, exit statuses for both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Soulfra = Callable[..., Result]

HEALTH: dict[str, Any] = {
    "status": "degraded",
    "services": {
        "ai-router": {"status": "degraded", "responseTime": 890, "uptime": "99.9%", "reason": None},
        "trust-engine": {"status": "healthy", "responseTime": 12, "uptime": None, "reason": None},
    },
    "recentErrors": 2,
    "autoRecoveries": 5,
    "uptime": "99.2%",
    "exporter": {"reachable": True, "blind": False},
    "integrations": [{"from": "a", "to": "b", "healthy": False, "reason": "timeout"}],
    "paused": [{"scope": "everything", "reason": "upgrade", "owner": "kim", "since": None, "until": None}],
}
ERROR: dict[str, Any] = {
    "id": "SE_a1b2c3d4",
    "type": "service_down",
    "severity": "critical",
    "service": "ai-router",
    "message": "OpenAI API timeout",
    "recovered": True,
    "recoveryTime": 2900,
    "state": "recovered",
    "open": False,
    "firstSeen": "2026-01-02T03:04:05.000Z",
    "lastSeen": "2026-01-02T03:04:06.000Z",
    "recoveredBy": "run",
    "attempts": 1,
    "relapses": 0,
    "held": None,
}
RUN: dict[str, Any] = {
    "id": "R_0001",
    "error": "SE_a1b2c3d4",
    "service": "ai-router",
    "playbook": "service-down",
    "trigger": "alert",
    "requestedBy": None,
    "outcome": "recovered",
    "startedAt": "2026-01-02T03:04:05.200Z",
    "endedAt": "2026-01-02T03:04:07.900Z",
    "duration": 2700,
    "detail": "3 healthy probes in a row",
    "timings": {"decided": "2026-01-02T03:04:05.200Z", "verified": "2026-01-02T03:04:07.900Z"},
    "evidence": {"rung 1": {"log app.log": {"lines": ["one", "the last line"]}, "host": {"cpus": 2}}},
    "steps": [
        {
            "action": "restart",
            "args": {"service": "ai-router"},
            "state": "done",
            "attempt": 1,
            "result": "started process 4711",
            "startedAt": "2026-01-02T03:04:05.300Z",
            "endedAt": "2026-01-02T03:04:05.900Z",
        }
    ],
}
STORY: dict[str, Any] = {
    "error": ERROR,
    "signals": [{"fingerprint": "8f2b", "status": "resolved"}],
    "decisions": [
        {
            "at": "2026-01-02T03:04:05.100Z",
            "times": 7,
            "verdict": "deferred",
            "reason": "cooldown",
            "detail": "3 s left",
            "playbook": "service-down",
            "run": None,
        }
    ],
    "runs": [RUN],
}


def test_health_is_a_table_for_people(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /health", HEALTH)

    done = soulfra("health")

    lines = done.stdout.splitlines()
    told = "2 errors in the last hour, 5 recoveries without a person in the last day, uptime 99.2%"
    assert lines[0] == f"degraded: {told}"
    assert "paused: everything by kim, until somebody resumes it: upgrade" in lines
    assert [line.split() for line in lines if line.startswith(("ai-router", "trust-engine"))] == [
        ["ai-router", "degraded", "890", "ms", "99.9%", "-"],
        ["trust-engine", "healthy", "12", "ms", "-", "-"],
    ]
    assert "a cannot reach b: timeout" in lines


@pytest.mark.parametrize(("status", "code"), [("healthy", 0), ("degraded", 3), ("critical", 4)])
def test_health_s_exit_status_says_how_it_is(
    soulfra: Soulfra, remediator: Any, status: str, code: int
) -> None:
    remediator.on("GET /health", {**HEALTH, "status": status})

    assert soulfra("health").exit_code == code
    assert soulfra("health", "--json").exit_code == code


def test_an_unreachable_remediator_is_one_clear_line_and_status_1(soulfra: Soulfra) -> None:
    done = soulfra("health", "--url", "http://127.0.0.1:1")

    assert done.exit_code == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "http://127.0.0.1:1 cannot be asked: the connection was refused" in done.stderr


def test_an_answer_that_is_not_json_is_one_clear_line(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /health", "<html>a proxy</html>", 502)

    done = soulfra("health")

    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


def test_json_is_the_api_s_answer_and_nothing_else(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /errors", {"errors": [ERROR], "summary": {"total": 1}, "next": None})

    done = soulfra("errors", "--json")

    assert json.loads(done.stdout) == {"errors": [ERROR], "summary": {"total": 1}, "next": None}
    assert done.stderr == ""


def test_errors_are_a_table_with_the_summary_above(soulfra: Soulfra, remediator: Any) -> None:
    summary = {"total": 12, "recovered": 10, "pending": 1, "failed": 1}
    held = {**ERROR, "state": "pending", "recoveryTime": None, "held": {"reason": "cooldown", "since": None}}
    remediator.on("GET /errors", {"errors": [ERROR, held], "summary": summary, "next": "17.5_SE_1"})

    lines = soulfra("errors").stdout.splitlines()

    assert lines[0] == "12 errors: 10 recovered, 1 pending, 1 failed"
    assert lines[2].startswith("ID ")
    assert lines[2].endswith("RECOVERY  TRIES  MESSAGE")
    assert "recovered  " in lines[3]
    assert "2.9 s" in lines[3]
    assert "pending (cooldown)" in lines[4]
    assert lines[5] == "There are more: --after 17.5_SE_1"


def test_filters_reach_the_api_and_absent_ones_do_not(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /errors", {"errors": [], "summary": dict.fromkeys(STATES, 0), "next": None})

    soulfra("errors", "--since", "1h", "--service", "ai-router", "--state", "pending", "--limit", "5")

    _, query, _, _ = remediator.asked[0]
    assert query == {"since": "1h", "service": "ai-router", "state": "pending", "limit": "5"}


STATES = ("total", "recovered", "pending", "failed")


def test_runs_are_a_table(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on(
        "GET /runs", {"runs": [RUN, {**RUN, "outcome": None, "state": "running", "duration": None}]}
    )

    lines = soulfra("recoveries").stdout.splitlines()

    assert "recovered  2.7 s" in lines[1]
    assert "running    -" in lines[2]


def test_explain_tells_the_story_of_an_error(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /errors/SE_a1b2c3d4", STORY)

    told = soulfra("explain", "SE_a1b2c3d4").stdout

    for fact in (
        "service_down of ai-router, critical: OpenAI API timeout",
        "recovered by run after 2.9 s",
        "8f2b  resolved",
        "deferred  cooldown",
        "started process 4711",
        "3 healthy probes in a row",
        "verified 03:04:07.900",
        "      the last line",
        "host: cpus=2",
        "service=ai-router",
        "Nothing: it is over.",
    ):
        assert fact in told, fact


def test_explain_says_what_a_person_can_do_about_a_held_recovery(soulfra: Soulfra, remediator: Any) -> None:
    held = {**ERROR, "open": True, "state": "pending", "held": {"reason": "approval_pending", "since": None}}
    remediator.on("GET /errors/SE_a1b2c3d4", {**STORY, "error": held})

    assert "soulfra approve SE_a1b2c3d4" in soulfra("explain", "SE_a1b2c3d4").stdout


def test_explain_tells_a_run_by_its_id(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /runs/R_0001", RUN)

    assert soulfra("explain", "R_0001").stdout.startswith("Run R_0001  service-down for ai-router")


def test_what_is_not_there_is_told_as_the_api_says_it(soulfra: Soulfra, remediator: Any) -> None:
    remediator.on("GET /errors/SE_00000000", {"error": "there is no error SE_00000000"}, 404)

    done = soulfra("explain", "SE_00000000")

    assert (done.exit_code, done.stderr) == (1, "there is no error SE_00000000\n")


def test_messages_cannot_steer_the_terminal(soulfra: Soulfra, remediator: Any) -> None:
    hostile = {**ERROR, "message": "\x1b[2Jgone\x07\nand a line of its own"}
    remediator.on("GET /errors", {"errors": [hostile], "summary": dict.fromkeys(STATES, 1), "next": None})

    told = soulfra("errors").stdout

    assert "\x1b" not in told
    assert "\x07" not in told
    assert len(told.splitlines()) == 4


def test_the_token_comes_from_the_environment_or_a_file(
    soulfra: Soulfra, remediator: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remediator.on("GET /health", {**HEALTH, "status": "healthy"})
    file = tmp_path / "token"
    file.write_text("from-the-file\n", encoding="utf-8")

    soulfra("health")
    monkeypatch.setenv("SOULFRA_TOKEN", "from-the-environment")
    soulfra("health")
    soulfra("health", "--token-file", str(file))

    assert [asked[3] for asked in remediator.asked] == [
        None,
        "Bearer from-the-environment",
        "Bearer from-the-file",
    ]
