"""What must hold when things go wrong at the worst moment: each of these has gone wrong once."""

import threading
from typing import Any

import pytest

from remediator.actions import ActionError
from remediator.config import Channel
from remediator.notify import Notifier
from remediator.run import Pause
from remediator.signals import Status
from remediator.store import StoreError
from remediator.verify import verify
from soulfra_monitor.problems import Problem

ERROR_RATE = {
    "problem": Problem.ERROR_RATE,
    "labels": {"alertname": "Rate", "target": "web", "problem": "error_rate"},
}
HOOK = {"hook": {"service": "{{ target }}", "hook": "reconnect_redis"}}
RESTART = {"restart": {"service": "{{ target }}"}}


def useless(action: str, service: str) -> str:
    """Do something that repairs nothing."""
    return f"{action} {service} done"


def impossible(action: str, service: str) -> str:
    raise ActionError(f"{action} {service} is not possible", permanent=True)


# -- people are called --------------------------------------------------------------------------------


def test_a_line_in_the_log_tells_nobody_and_people_are_told_later_with_the_shipped_playbooks(
    make_world: Any, until: Any, http_server: Any, make_reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remediator.notify._PAUSES", ())
    http_server.answer = lambda _: make_reply(status=500)
    world = make_world(playbooks=["shipped"], remediator={"max_attempts": 1})
    channels = {"people": Channel(alertmanager=True), "log": Channel(log=True)}
    world.tools.notifier = Notifier(channels, [http_server.url], {})
    world.on_action = impossible
    world.fail()
    until(lambda: world.count("soulfra_escalations_total", result="untold") == 1)
    world.settle()
    assert not world.error().escalation_sent
    http_server.answer = lambda _: make_reply()
    world.pass_time(20)
    until(lambda: world.error().escalation_sent)
    assert world.count("soulfra_escalations_total", result="told") == 1
    assert http_server.requests[-1].json[0]["labels"]["error_id"] == world.error().id


def test_an_error_that_its_budget_holds_back_is_told_to_people_in_time(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    world = make_world(playbooks=[write_playbook(limits={"per_target": ["1/1h"]})])
    world.on_action = useless
    world.fail()
    until(lambda: world.error().held_reason == "budget")
    for _ in range(25):
        world.pass_time(15)
        world.settle()
    assert world.error().escalation_sent
    assert "budget" in world.notifier.told[0].text
    assert len(world.done) == 1


def test_the_last_failed_attempt_calls_people_without_waiting_for_the_next_try(
    make_world: Any, until: Any
) -> None:
    world = make_world(remediator={"backoff": "5m", "max_attempts": 1})
    world.on_action = useless
    world.fail()
    until(lambda: world.error().escalation_sent, within=5)
    assert (world.error().state, len(world.done)) == ("failed", 1)


# -- nothing stays locked -----------------------------------------------------------------------------


def test_a_store_that_stumbles_right_after_the_claim_neither_stops_the_run_nor_locks_its_target(
    world: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    real, failed = world.store.record, threading.Event()

    def stumble(decision: Any) -> Any:
        if decision.verdict == "run" and not failed.is_set():
            failed.set()
            raise StoreError("the disk is full")
        return real(decision)

    world.store.record = stumble
    world.fail()
    until(lambda: world.error().state == "recovered")
    assert (failed.is_set(), world.done) == (True, [("restart", "web")])
    world.settle()
    world.pass_time(61)
    world.fail()
    until(lambda: len(world.done) == 2)


# -- people's requests --------------------------------------------------------------------------------


def test_a_person_is_not_refused_because_signals_come_in_meanwhile(world: Any, until: Any) -> None:
    world.store.add_pause(Pause(scope="everything", reason="look", owner="ann", since=world.now()))
    world.fail()
    until(lambda: "paused" in world.reasons())
    real = world.exporter.check

    def check(targets: Any, **how: Any) -> Any:
        world.fire()  # the error is written between its reading and the claim
        return real(targets, **how)

    world.exporter.check = check
    run = world.engine.request("restart_service", "web", force=True, by="ann")
    world.exporter.check = real
    until(lambda: world.store.get_run(run.id).outcome == "recovered")


def test_a_restart_by_hand_does_not_end_a_problem_that_no_probe_can_disprove(world: Any, until: Any) -> None:
    world.fire(**ERROR_RATE)
    until(lambda: "no_playbook" in world.reasons())
    run = world.engine.request("restart_service", "web", force=True, by="ann")
    until(lambda: world.store.get_run(run.id).outcome)
    world.settle()
    error = world.error()
    assert (run.error_id, error.state, error.open, error.recovered_at) == (None, "pending", True, None)


@pytest.mark.parametrize("approve", [True, False])
def test_what_is_over_or_waits_for_nothing_can_be_neither_approved_nor_rejected(
    world: Any, until: Any, approve: bool
) -> None:
    world.fire(**ERROR_RATE)
    until(lambda: "no_playbook" in world.reasons())
    with pytest.raises(Exception, match="does not wait for an approval"):
        world.engine.answer_approval(world.error().id, approve=approve, by="ann")
    world.fire(**ERROR_RATE, status=Status.RESOLVED)
    until(lambda: not world.error().open)
    world.pass_time(120)
    with pytest.raises(Exception, match="it is over"):
        world.engine.answer_approval(world.error().id, approve=approve, by="ann")
    world.settle()
    assert len(world.errors()) == 1


# -- nothing is touched that must not be --------------------------------------------------------------


def test_a_playbook_that_would_restart_another_service_than_the_target_is_refused(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [{"restart": {"service": "redis"}}]}])])
    world.fail()
    until(lambda: "template_error" in world.reasons())
    (decision,) = [one for one in world.store.decisions() if one.reason == "template_error"]
    assert "may touch 'web' only, not 'redis'" in decision.detail
    assert world.done == []


def test_a_pause_between_two_rungs_stops_the_second(make_world: Any, write_playbook: Any, until: Any) -> None:
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [HOOK]}, {"steps": [RESTART]}])])

    def pausing(action: str, service: str) -> str:
        world.store.add_pause(Pause(scope="web", reason="look", owner="ann", since=world.now()))
        return "done"

    world.on_action = pausing
    world.fail()
    until(lambda: world.runs() and world.runs()[0].outcome)
    world.settle()
    assert world.done == [("hook", "web")]
    assert "paused by ann" in world.runs()[0].detail


def test_an_action_that_worked_though_it_said_no_is_not_followed_by_the_next_rung(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [HOOK]}, {"steps": [RESTART]}])])

    def late(action: str, service: str) -> str:
        world.repair(action, service)
        raise ActionError("no answer in time")

    world.on_action = late
    world.fail()
    until(lambda: world.error().state == "recovered")
    assert world.done == [("hook", "web")]


# -- a crash in the middle of a step ------------------------------------------------------------------


def crash_in_a_step(make_world: Any, write_playbook: Any, on_crash: str) -> Any:
    """Return a world in which an earlier life went away inside a step that declares *on_crash*."""
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [{**RESTART, "on_crash": on_crash}]}])])
    entered, go_on = threading.Event(), threading.Event()

    def killed(action: str, service: str) -> str:
        entered.set()
        assert go_on.wait(5)
        raise SystemExit  # nothing after it is written

    world.on_action = killed
    world.fail()
    assert entered.wait(5)
    world.engine.stop(grace=0.1)
    go_on.set()
    return world


@pytest.mark.parametrize("on_crash", ["verify", "rerun", "fail"])
def test_whatever_a_step_declares_a_repair_that_worked_is_a_recovery(
    make_world: Any, write_playbook: Any, until: Any, on_crash: str
) -> None:
    world = crash_in_a_step(make_world, write_playbook, on_crash)
    world.exporter.set("web", up=True)
    world.begin(start=True)
    until(lambda: world.error().state == "recovered")
    assert [run.outcome for run in world.runs()] == ["recovered"]
    assert len(world.done) == 1


def test_a_step_that_must_not_be_repeated_is_not_and_people_are_called(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    world = crash_in_a_step(make_world, write_playbook, "fail")
    world.on_action = world.repair
    world.begin(start=True)
    until(lambda: world.error().escalation_sent)
    world.pass_time(60)
    world.settle()
    assert (world.error().state, [run.outcome for run in world.runs()]) == ("failed", ["failed"])
    assert len(world.done) == 1


# -- the end of an error ------------------------------------------------------------------------------


def test_a_service_that_fails_again_within_the_proof_is_looked_at_soon(world: Any, until: Any) -> None:
    real, looks = world.exporter.check, []

    def check(targets: Any, **how: Any) -> Any:
        looks.append(targets)
        world.exporter.set("web", up=len(looks) == 1)  # healthy in the first look only
        return real(targets, **how)

    world.exporter.check = check
    world.fire()
    until(lambda: len(looks) > 1 and not world.busy(world.engine))
    assert "already_healthy" not in world.reasons()
    world.exporter.check = real
    until(lambda: world.error().state == "recovered", within=3)
    assert world.done == [("restart", "web")]


def test_an_alert_that_fires_again_within_the_proof_keeps_its_error_open(
    world: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fire(**ERROR_RATE)
    until(lambda: "no_playbook" in world.reasons())
    again = threading.Event()

    def proof(*given: Any, **how: Any) -> Any:
        world.fire(**ERROR_RATE)
        again.set()
        return verify(*given, **how)

    monkeypatch.setattr("remediator.engine.verify", proof)
    world.fire(**ERROR_RATE, status=Status.RESOLVED)
    until(again.is_set)
    world.settle()
    assert world.error().open


# -- what cannot be known -----------------------------------------------------------------------------


def warm_up(world: Any) -> None:
    world.exporter.ready = False


def set_the_clock_wrong(world: Any) -> None:
    world.exporter.skew = -60.0


@pytest.mark.parametrize(("hinder", "reason"), [(warm_up, "warming_up"), (set_the_clock_wrong, "stale")])
def test_an_exporter_that_says_nothing_about_now_is_told_to_people_and_starts_nothing(
    world: Any, until: Any, hinder: Any, reason: str
) -> None:
    hinder(world)
    world.fail()
    until(lambda: reason in world.reasons())
    world.settle()
    for _ in range(25):
        world.pass_time(15)
        world.settle()
    error = world.error()
    assert (error.escalation_sent, error.open, error.recovered_at, world.done) == (True, True, None, [])


def test_one_run_at_a_time_that_never_comes_to_its_turn_is_told_to_people(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    world = make_world(playbooks=[write_playbook(limits={"at_once": 1})], remediator={"lease": "1h"})
    entered, go_on = threading.Event(), threading.Event()

    def hang(action: str, service: str) -> str:
        entered.set()
        assert go_on.wait(10)
        return str(world.repair(action, service))

    world.on_action = hang
    world.fail("mail")
    assert entered.wait(5)
    world.fail("web")
    until(lambda: world.error("web").held_reason == "at_once")
    for _ in range(21):
        world.pass_time(15)
        until(lambda: not world.store.due_errors(world.now(), 1))
    until(lambda: world.error("web").escalation_sent)
    go_on.set()


def test_of_a_target_that_is_not_configured_the_exporter_is_not_asked(world: Any, until: Any) -> None:
    world.fire("stranger")
    until(lambda: "unknown_target" in world.reasons())
    world.settle()
    wait = world.error("stranger").check_at - world.now()
    world.pass_time(601)
    until(lambda: world.store.decisions()[0].times == 2)
    assert (world.exporter.asked, 590 < wait <= 600) == (0, True)
