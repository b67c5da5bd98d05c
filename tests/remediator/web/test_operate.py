"""What people change: recoveries, approvals, pauses."""

from dataclasses import replace
from typing import Any

import pytest

from remediator.run import Run, Trigger
from remediator.signals import Reason

RECOVER = "/api/monitoring/recover"
PAUSE = "/api/monitoring/pause"
RESUME = "/api/monitoring/resume"


def test_a_recovery_is_accepted_with_the_runs_address(world: Any, client_of: Any, until: Any) -> None:
    client = client_of(world)
    answer = client.post(RECOVER, json={"action": "restart_service", "target": "web", "force": False})
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["url"] == f"/api/monitoring/runs/{answer.json['run']}"
    until(lambda: client.get(answer.json["url"]).json["outcome"] == "recovered")
    view = client.get(answer.json["url"]).json
    assert (view["trigger"], view["requestedBy"], view["service"]) == ("person", "local", "web")
    assert world.done == [("restart", "web")]


@pytest.mark.parametrize("action", ["restart_service", "reconnect_redis"])
def test_each_action_is_offered(world: Any, client_of: Any, until: Any, action: str) -> None:
    answer = client_of(world).post(RECOVER, json={"action": action, "target": "web"})
    assert answer.status_code == 202
    until(lambda: world.store.get_run(answer.json["run"]).outcome)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "action"),
        ({"action": "restart_service"}, "target"),
        ({"target": "web"}, "action"),
        ({"action": "", "target": "web"}, "action"),
        ({"action": 7, "target": "web"}, "action"),
        ({"action": "restart_service", "target": ["web"]}, "target"),
        ({"action": "restart_service", "target": "x" * 501}, "target"),
        ({"action": "restart_service", "target": "web", "force": "yes"}, "force"),
        ({"action": "restart_service", "target": "web", "forse": True}, "forse"),
        ({"action": "reboot", "target": "web"}, "unknown action 'reboot'"),
        ([], "JSON object"),
        ("x", "JSON object"),
    ],
)
def test_a_malformed_request_is_a_400_that_says_what(client: Any, body: Any, told: str) -> None:
    answer = client.post(RECOVER, json=body)
    assert answer.status_code == 400
    assert told in answer.json["error"]


def test_a_body_that_is_not_json_is_a_400(client: Any) -> None:
    assert client.post(RECOVER, data="{", content_type="application/json").status_code == 400


def test_an_unknown_target_is_a_404(client: Any) -> None:
    answer = client.post(RECOVER, json={"action": "restart_service", "target": "stranger"})
    assert (answer.status_code, answer.json["reason"]) == (404, "unknown_target")


def test_a_target_without_a_restart_is_a_409_with_the_reason(idle_world: Any, client: Any) -> None:
    answer = client.post(RECOVER, json={"action": "restart_service", "target": "bare", "force": True})
    assert (answer.status_code, answer.json["reason"]) == (409, "template_error")
    assert "services.bare has no restart section" in answer.json["error"]


def test_a_pause_holds_a_person_back_but_not_one_who_insists(world: Any, client_of: Any, until: Any) -> None:
    client = client_of(world)
    assert client.post(PAUSE, json={"reason": "release"}).status_code == 201
    wanted = {"action": "restart_service", "target": "web"}
    answer = client.post(RECOVER, json=wanted)
    assert (answer.status_code, answer.json["reason"]) == (409, "paused")
    assert "release" in answer.json["error"]
    assert world.done == []
    assert client.post(RECOVER, json={**wanted, "force": True}).status_code == 202
    until(lambda: world.done == [("restart", "web")])


def test_force_does_not_break_the_lock_of_a_run_under_way(idle_world: Any, client: Any) -> None:
    run = Run(
        id="R_000000000001",
        target="web",
        playbook="down",
        trigger=Trigger.ALERT,
        started_at=idle_world.now(),
        owner="there",
        boot="b",
        token="t",
        lease_until=idle_world.now() + 15,
    )
    assert idle_world.store.begin_run(run, None)
    answer = client.post(RECOVER, json={"action": "restart_service", "target": "web", "force": True})
    assert (answer.status_code, answer.json["reason"]) == (409, "locked")
    assert idle_world.reasons() == ["locked"]


def test_a_spent_budget_is_a_409_and_force_passes_it(
    make_world: Any, write_playbook: Any, client_of: Any, until: Any
) -> None:
    limited = write_playbook(
        name="restart_service", match=['action="restart_service"'], limits={"per_target": "1/1h"}
    )
    world = make_world(playbooks=[limited])
    client = client_of(world)
    wanted = {"action": "restart_service", "target": "web"}
    assert client.post(RECOVER, json=wanted).status_code == 202
    until(lambda: world.runs()[0].outcome)
    world.pass_time(1)
    assert client.post(RECOVER, json=wanted).json["reason"] == "budget"
    assert client.post(RECOVER, json={**wanted, "force": True}).status_code == 202


def test_json_that_is_called_a_form_is_read_as_json(client: Any) -> None:
    """``curl -d`` says so unless told otherwise; an unread scope would mean everything."""
    form = "application/x-www-form-urlencoded"
    client.post(PAUSE, json={"scope": "web", "reason": "a"})
    client.post(PAUSE, json={"reason": "b"})
    answer = client.post(RESUME, data='{"scope": "web"}', content_type=form)
    assert answer.json == {"ended": 1}
    scopes = [pause["scope"] for pause in client.get("/api/monitoring/pauses").json["pauses"]]
    assert scopes == ["everything"]


# -- the pause switch ---------------------------------------------------------------------------------


def test_a_pause_is_kept_shown_and_ended(idle_world: Any, client: Any) -> None:
    made = client.post(PAUSE, json={"scope": "web", "reason": "release", "owner": "ann", "for": "10m"})
    assert made.status_code == 201
    assert (made.json["scope"], made.json["owner"], made.json["reason"]) == ("web", "ann", "release")
    assert client.get("/api/monitoring/pauses").json["pauses"] == [made.json]
    assert client.get("/api/monitoring/health").json["paused"] == [made.json]
    assert client.post(RESUME, json={"scope": "everything"}).json == {"ended": 0}
    assert client.post(RESUME, json={"scope": "web"}).json == {"ended": 1}
    assert client.post(RESUME, json={"scope": "web"}).json == {"ended": 0}
    assert client.get("/api/monitoring/pauses").json["pauses"] == []


def test_a_pause_ends_by_itself(idle_world: Any, client: Any) -> None:
    client.post(PAUSE, json={"reason": "release", "for": "10m"})
    idle_world.offset += 601
    assert client.get("/api/monitoring/pauses").json["pauses"] == []


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 400, "reason"),
        ({"reason": ""}, 400, "reason"),
        ({"reason": "x", "for": "soon"}, 400, "for: "),
        ({"reason": "x", "for": 10}, 400, "for: "),
        ({"reason": "x", "for": "0s"}, 400, "for: "),
        ({"reason": "x", "for": "99999999999999d"}, 400, "365d"),
        ({"reason": "x", "until": "never"}, 400, "until"),
        ({"reason": "x", "scope": "stranger"}, 404, "stranger"),
        ({"reason": "x", "scope": 3}, 400, "scope"),
    ],
)
def test_a_malformed_pause_is_refused_and_not_kept(
    idle_world: Any, client: Any, body: Any, status: int, told: str
) -> None:
    answer = client.post(PAUSE, json=body)
    assert answer.status_code == status
    assert told in answer.json["error"]
    assert idle_world.store.pauses(idle_world.now()) == []


def test_a_secret_in_a_reason_is_masked(idle_world: Any, client: Any) -> None:
    secret = "hunter" + "2" * 12
    client.post(PAUSE, json={"reason": f"rotating password={secret}"})
    (kept,) = idle_world.store.pauses(idle_world.now())
    assert kept.reason == "rotating password=***"
    assert secret not in repr(idle_world.lines)


# -- approvals ----------------------------------------------------------------------------------------


def test_what_waits_for_nobody_cannot_be_approved(idle_world: Any, client: Any) -> None:
    idle_world.fire()
    answer = client.post(f"/api/monitoring/errors/{idle_world.error().id}/approve", json={"by": "ann"})
    assert (answer.status_code, "does not wait" in answer.json["error"]) == (409, True)


@pytest.mark.parametrize(("verb", "field"), [("approve", "approved_by"), ("reject", "rejected_by")])
def test_a_persons_word_is_kept_with_their_name(idle_world: Any, client: Any, verb: str, field: str) -> None:
    idle_world.fire()
    waits = replace(idle_world.error(), held_reason=Reason.APPROVAL_PENDING)
    assert idle_world.store.update_error(waits)
    answer = client.post(f"/api/monitoring/errors/{idle_world.error().id}/{verb}", json={"by": "ann"})
    assert (answer.status_code, answer.json["id"]) == (200, idle_world.error().id)
    assert getattr(idle_world.error(), field) == "ann"


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_an_unknown_error_cannot_be_approved(client: Any, verb: str) -> None:
    answer = client.post(f"/api/monitoring/errors/SE_00000000/{verb}")
    assert (answer.status_code, answer.json["error"]) == (404, "there is no error SE_00000000")
