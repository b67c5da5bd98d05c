"""What the APIs say, to the letter."""

from dataclasses import replace
from typing import Any

import pytest

from remediator import report
from remediator.run import Outcome, PastRun, Pause, Run, Trigger
from remediator.signals import Decision, Error, ErrorState, Member, Reason, Status, Verdict
from soulfra_monitor.problems import Problem, Severity

UP = {"status": "up", "since": 100.0, "slow": False, "response_time": 0.0894, "failing": None}
DOWN = {**UP, "status": "down", "response_time": None, "failing": {"reason": "timeout"}}


def error(**changes: Any) -> Error:
    made = Error(
        id="SE_a1b2c3d4",
        target="web",
        problem=Problem.SERVICE_TIMEOUT,
        severity=Severity.MEDIUM,
        message="slow",
        first_seen=1000.0,
        last_seen=1010.0,
    )
    return replace(made, **changes)


def health(state: dict[str, Any] | None, *errors: Error, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "names": ["web", "redis"],
        "state": state,
        "open_errors": errors,
        "uptime": {},
        "recent_errors": 2,
        "auto_recoveries": 5,
        "now": 2000.0,
    }
    return report.health(**{**fields, **changes})


def seen(web: dict[str, Any] = UP, redis: dict[str, Any] | None = UP, **more: Any) -> dict[str, Any]:
    services = {"web": web} if redis is None else {"web": web, "redis": redis}
    return {"services": services, "integrations": [], **more}


def edge(**changes: Any) -> dict[str, Any]:
    return {"source": "web", "destination": "redis", "healthy": False, "reason": "timeout", **changes}


@pytest.mark.parametrize(
    ("state", "errors", "web", "whole"),
    [
        (seen(), (), "healthy", "healthy"),
        (seen(DOWN), (), "critical", "critical"),
        (seen({**UP, "slow": True}), (), "degraded", "degraded"),
        (seen(integrations=[edge()]), (), "degraded", "degraded"),
        (seen(integrations=[edge(healthy=True)]), (), "healthy", "healthy"),
        (seen(integrations=[edge(healthy=None)]), (), "healthy", "healthy"),
        (seen(), (error(),), "degraded", "degraded"),
        (seen(), (error(severity=Severity.CRITICAL),), "critical", "critical"),
        (seen(), (error(target="elsewhere"),), "healthy", "healthy"),
        (seen({**UP, "status": "unknown"}), (), "unknown", "degraded"),
        (seen(redis=None), (), "healthy", "degraded"),
        (seen(DOWN, redis=None), (), "critical", "critical"),
        (None, (), "unknown", "degraded"),
        (None, (error(severity=Severity.CRITICAL),), "unknown", "degraded"),
    ],
)
def test_the_status_is_what_is_known(
    state: dict[str, Any] | None, errors: tuple[Error, ...], web: str, whole: str
) -> None:
    found = health(state, *errors)
    assert (found["services"]["web"]["status"], found["status"]) == (web, whole)


def test_a_failing_edge_degrades_its_source_only() -> None:
    services = health(seen(integrations=[edge()]))["services"]
    assert [services[name]["status"] for name in ("web", "redis")] == ["degraded", "healthy"]


def test_without_the_exporter_nothing_is_healthy_not_even_nothing() -> None:
    found = health(None, names=[])
    assert (found["status"], found["exporter"]) == ("degraded", {"reachable": False, "blind": False})
    assert health(seen(), names=[])["status"] == "healthy"


def test_the_health_api_has_the_keys_of_its_contract() -> None:
    found = health(seen(), uptime={"web": 1.0, "redis": 0.984, "gone": 0.0})
    assert {key: found[key] for key in ("status", "recentErrors", "autoRecoveries", "uptime")} == {
        "status": "healthy",
        "recentErrors": 2,
        "autoRecoveries": 5,
        "uptime": "99.2%",
    }
    assert found["services"]["web"] == {
        "status": "healthy",
        "responseTime": 89,
        "since": "1970-01-01T00:01:40.000Z",
        "reason": None,
        "openErrors": [],
        "uptime": "100.0%",
    }
    assert set(found) == {
        "status",
        "services",
        "recentErrors",
        "autoRecoveries",
        "uptime",
        "generatedAt",
        "exporter",
        "integrations",
        "paused",
        "watchdog",
    }


def test_a_service_that_is_down_says_why_and_has_no_response_time() -> None:
    web = health(seen(DOWN), error())["services"]["web"]
    assert (web["reason"], web["responseTime"], web["openErrors"]) == ("timeout", None, ["SE_a1b2c3d4"])


def test_an_uptime_nobody_knows_is_null() -> None:
    assert health(seen())["uptime"] is None


def test_an_open_error_has_no_recovery_time() -> None:
    view = report.error_view(error())
    assert (view["recovered"], view["recoveryTime"], view["recoveredAt"]) == (False, None, None)


def test_a_recovered_error_has_its_time_in_milliseconds() -> None:
    view = report.error_view(
        error(state=ErrorState.RECOVERED, open=False, recovered_at=1015.0, closed_at=1015.5)
    )
    wanted = {
        "id": "SE_a1b2c3d4",
        "type": "service_timeout",
        "severity": "medium",
        "service": "web",
        "message": "slow",
        "recovered": True,
        "recoveryTime": 15000,
    }
    assert {key: view[key] for key in wanted} == wanted
    assert view["nextLook"] is None


def test_a_recovery_before_the_first_sight_took_no_time() -> None:
    assert report.error_view(error(recovered_at=999.0))["recoveryTime"] == 0


def test_a_held_error_says_why_and_since_when() -> None:
    held = error(held_reason=Reason.BUDGET, held_since=1000.0, check_at=1060.0)
    view = report.error_view(held)
    assert view["held"] == {"reason": "budget", "since": "1970-01-01T00:16:40.000Z"}
    assert view["nextLook"] == "1970-01-01T00:17:40.000Z"


def test_the_summary_adds_up_and_has_every_state() -> None:
    view = report.errors_view([], {"recovered": 10, "failed": 1}, None)
    assert view["summary"] == {"total": 11, "recovered": 10, "pending": 0, "failed": 1}
    assert (view["errors"], view["next"]) == ([], None)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, None),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1767323045.6789, "2026-01-02T03:04:05.678Z"),
        (1e18, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_times_are_utc_to_the_millisecond_and_never_out_of_range(at: float | None, text: str | None) -> None:
    assert report.iso(at) == text


def test_a_run_is_running_until_it_has_an_outcome() -> None:
    run = Run(
        id="R_000000000001",
        target="web",
        playbook="down",
        trigger=Trigger.ALERT,
        started_at=1000.0,
        owner="a",
        boot="b",
        token="fencing-token",
        lease_until=1015.0,
    )
    view = report.run_view(run)
    assert (view["state"], view["outcome"], view["duration"]) == ("running", None, None)
    assert "fencing-token" not in repr(report.run_view(run, []))


def test_decisions_and_pauses_say_who_why_and_until_when() -> None:
    decision = Decision(
        at=0.0,
        error_id="SE_a1b2c3d4",
        target="web",
        cause="timer",
        verdict=Verdict.DEFERRED,
        reason=Reason.COOLDOWN,
        detail="3 s left",
        until=3.0,
    )
    view = report.decision_view(decision)
    assert (view["verdict"], view["reason"], view["until"]) == (
        "deferred",
        "cooldown",
        "1970-01-01T00:00:03.000Z",
    )
    pause = report.pause_view(Pause(scope="web", reason="release", owner="ann", since=0.0))
    assert pause == {
        "scope": "web",
        "reason": "release",
        "owner": "ann",
        "since": "1970-01-01T00:00:00.000Z",
        "until": None,
    }


# -- what is known of an error ------------------------------------------------------------------------

SAMPLE = {
    "id": "e1",
    "kind": "redis",
    "message": "refused",
    "raised": [{"type": "redis.exceptions.ConnectionError"}],
    "context": {"user": 7},
    "system": {"handles": 12},
    "reasons": ["Redis does not serve."],
}


def member(**changes: Any) -> Member:
    made = Member(
        fingerprint="v1.0123456789abcdef",
        status=Status.FIRING,
        first_seen=1000.0,
        last_seen=1010.0,
        times=7,
        labels={"kind": "redis"},
        detail=SAMPLE,
    )
    return replace(made, **changes)


def past(action: str, outcome: Outcome, seconds: float = 4.0) -> PastRun:
    plan = ({"steps": [{"action": action}, {"action": "notify"}]},)
    return PastRun(
        playbook="p", outcome=outcome, started_at=100.0, ended_at=100.0 + seconds, rung=0, plan=plan
    )


def detail(*members: Member, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"observations": None, "fix": None, **changes}
    found = error(subject="/srv/out", fingerprint="v1.0123456789abcdef")
    return report.error_detail(found, members, **given)


def test_an_error_tells_its_subject_and_the_fingerprint_that_came_last() -> None:
    view = report.error_view(error(subject="/srv/out", fingerprint="v1.0123456789abcdef"))

    assert (view["subject"], view["fingerprint"]) == ("/srv/out", "v1.0123456789abcdef")
    assert (report.error_view(error())["subject"], report.error_view(error())["fingerprint"]) == (None, None)


def test_the_detail_tells_the_newest_event_and_all_that_there_are() -> None:
    older = member(fingerprint="v1.00000000000000bb", detail={"message": "older"}, last_seen=1005.0)
    view = detail(member(), older, member(fingerprint="alert", detail={}), observations={"services": {}})

    assert view["reasons"] == ["Redis does not serve."]
    assert (view["context"], view["system"]) == ({"user": 7}, {"handles": 12})
    assert view["observations"] == {"services": {}}
    assert [event["fingerprint"] for event in view["events"]] == [
        "v1.0123456789abcdef",
        "v1.00000000000000bb",
    ]
    assert view["events"][0] == {
        **SAMPLE,
        "fingerprint": "v1.0123456789abcdef",
        "status": "firing",
        "count": 7,
        "firstSeen": "1970-01-01T00:16:40.000Z",
        "lastSeen": "1970-01-01T00:16:50.000Z",
    }


def test_the_detail_of_an_alert_has_no_events_and_no_fix() -> None:
    view = detail(member(detail={}))

    assert (view["events"], view["reasons"], view["suggestedFix"]) == ([], [], None)


def test_a_fix_tells_how_often_its_action_helped() -> None:
    runs = [
        past("restart", Outcome.RECOVERED, 3.0),
        past("restart", Outcome.FAILED),
        past("restart", Outcome.RECOVERED, 5.0),
        past("hook", Outcome.RECOVERED),
    ]

    view = detail(fix={"cause": "c", "fix": "f", "action": "restart"}, past=runs)["suggestedFix"]

    assert (view["cause"], view["fix"], view["knob"], view["link"]) == ("c", "f", None, None)
    assert view["seenBefore"] == {
        "action": "restart",
        "recovered": 2,
        "of": 3,
        "medianTime": 4000,
        "text": "restart recovered it 2 of 3 times, median 4.0 s",
    }


def test_without_a_known_fix_what_helped_before_is_suggested() -> None:
    runs = [past("restart", Outcome.FAILED), past("hook", Outcome.RECOVERED)]

    view = detail(past=runs)["suggestedFix"]

    assert (view["action"], view["reason"]) == ("hook", "it helped before")
    assert view["seenBefore"]["of"] == 1
    assert detail(past=runs[:1])["suggestedFix"] is None


def test_a_fix_that_never_ran_tells_what_else_was_tried() -> None:
    view = detail(fix={"action": "file"}, past=[past("restart", Outcome.FAILED)])["suggestedFix"]

    assert view["seenBefore"]["text"] == "restart recovered it 0 of 1 times"
    assert detail(fix={"action": "file"})["suggestedFix"]["seenBefore"] is None
