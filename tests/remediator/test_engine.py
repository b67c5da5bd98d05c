"""From signals to decisions, runs and outcomes: the engine on a real store, around a scripted exporter."""

import logging
import threading
from dataclasses import replace
from typing import Any

import pytest

from remediator.actions import ActionError
from remediator.run import Outcome, Pause, Run, Step, StepState, Trigger
from remediator.signals import Source, Status
from soulfra_monitor.problems import Problem

RECONCILED = {"source": Source.RECONCILE}
STALE_WAIT = 3.0  # longer than the engine defers when the exporter cannot be asked


def broken(action: str, service: str) -> str:
    """Do something that repairs nothing."""
    return f"{action} {service} done"


# -- the main job -------------------------------------------------------------------------------------


def test_an_alert_becomes_a_run_that_ends_as_recovered(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    (run,) = world.runs()
    error = world.error()
    assert world.done == [("restart", "web")]
    assert (run.outcome, run.trigger, run.playbook, run.error_id) == ("recovered", "alert", "down", error.id)
    assert (error.open, error.recovered_by, error.attempts) == (False, "run", 1)
    assert error.recovery_seconds == pytest.approx(run.timings["verified"] - error.first_seen)
    (step,) = world.store.steps(run.id)
    assert (step.action, step.state, step.result) == ("restart", "done", "restart done")
    assert "rung 1" in run.evidence
    assert world.notifier.told == []
    until(lambda: world.count("soulfra_runs_total", playbook="down", outcome="recovered") == 1)


def test_an_exit_code_alone_is_no_recovery(make_world: Any, until: Any) -> None:
    world = make_world(remediator={"max_attempts": 1})
    world.on_action = broken
    world.fail()
    until(lambda: world.error().state == "failed")
    (run,) = world.runs()
    assert (run.outcome, world.error().recovered_at) == ("failed", None)


def test_what_arrives_again_runs_nothing_again(world: Any, until: Any) -> None:
    held = threading.Event()

    def slow(action: str, service: str) -> str:
        assert held.wait(5)
        return str(world.repair(action, service))

    world.on_action = slow
    world.fail()
    until(lambda: world.done)
    world.fire()
    world.fire(fingerprint="twin", labels={"origin": "exporter"})
    world.fire(starts_at=1.0)
    world.fire(status=Status.RESOLVED)
    held.set()
    until(lambda: world.error().state == "recovered")
    world.fire()
    world.settle()
    assert world.done == [("restart", "web")]
    assert len(world.runs()) == 1
    error = world.error()
    assert (error.state, error.relapses, error.signals) == ("recovered", 0, 5)
    assert set(world.store.members(error.id)) == {"f-web", "twin"}


def test_eight_senders_at_once_make_one_error_and_one_run(world: Any, until: Any) -> None:
    world.exporter.set("web", up=False)
    ready = threading.Barrier(8)

    def send(number: int) -> None:
        ready.wait(5)
        world.fire(fingerprint=f"f{number % 2}", starts_at=float(number))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(10)
    until(lambda: world.error().state == "recovered")
    world.settle()
    assert world.error().signals == 8
    assert len(world.runs()) == 1
    assert world.done == [("restart", "web")]


def test_ten_targets_fail_and_each_is_repaired_once(make_world: Any, until: Any) -> None:
    names = [f"s{number}" for number in range(10)]
    world = make_world(services={name: {"restart": {"command": ["x"]}} for name in names})
    for name in names:
        world.fail(name)
    until(lambda: {error.state for error in world.errors()} == {"recovered"}, 20)
    assert sorted(world.done) == sorted(("restart", name) for name in names)


# -- late, again, over --------------------------------------------------------------------------------


def test_firing_after_the_recovery_while_healthy_runs_nothing(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    world.fire()
    until(lambda: "already_healthy" in world.reasons(world.error()))
    world.settle()
    assert (world.error().state, world.error().relapses, len(world.runs())) == ("recovered", 0, 1)


def test_sick_again_soon_after_the_recovery_is_one_error_that_relapsed(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    first = world.error()
    world.pass_time(50)
    world.fail()
    until(lambda: len(world.runs()) == 2 and world.error().state == "recovered")
    error = world.error()
    assert (error.id, error.relapses, error.attempts) == (first.id, 1, 2)
    assert error.first_seen == first.first_seen
    assert error.recovered_at > first.recovered_at
    assert world.count("soulfra_relapses_total") == 1


def test_a_relapsed_error_is_not_recovered_while_it_lasts(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    world.store.add_pause(Pause(scope="web", reason="look", owner="ann", since=world.now()))
    world.fail()
    until(lambda: world.error().relapses == 1)
    error = world.error()
    assert (error.state, error.open, error.recovered_at, error.recovered_by) == ("pending", True, None, None)


def test_sick_again_later_is_a_new_error(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    world.pass_time(61)
    world.fail()
    until(lambda: len(world.errors()) == 2 and {error.state for error in world.errors()} == {"recovered"})
    newest, oldest = world.errors()
    assert newest.id != oldest.id
    assert (newest.attempts, newest.relapses, oldest.relapses) == (1, 0, 0)


def test_what_recovers_by_itself_is_recorded_so(world: Any, until: Any) -> None:
    world.fire()  # healthy already when it is looked at
    until(lambda: world.error().state == "recovered")
    assert (world.error().recovered_by, world.runs()) == ("itself", [])


def test_resolved_while_still_sick_does_not_end_the_error(world: Any, until: Any) -> None:
    world.store.add_pause(Pause(scope="everything", reason="look", owner="ann", since=world.now()))
    world.fail()
    until(lambda: "paused" in world.reasons())
    world.fire(status=Status.RESOLVED)
    world.settle()
    assert (world.error().open, world.error().state) == (True, "pending")


def test_an_error_no_probe_can_prove_ends_when_its_alert_ends(world: Any, until: Any) -> None:
    world.fire(problem=Problem.ERROR_RATE)
    until(lambda: "no_playbook" in world.reasons())
    assert world.error().open
    world.fire(problem=Problem.ERROR_RATE, status=Status.RESOLVED)
    until(lambda: not world.error().open)
    assert (world.error().state, world.error().recovered_by) == ("recovered", "itself")


def test_an_error_of_an_unknown_target_is_kept_and_never_called_recovered(world: Any, until: Any) -> None:
    world.fire("stranger")
    until(lambda: "unknown_target" in world.reasons())
    world.fire("stranger", status=Status.RESOLVED)
    until(lambda: not world.error("stranger").open)
    ended = world.error("stranger")
    assert (ended.state, ended.ended, ended.recovered_at, world.done) == ("failed", "silence", None, [])


def test_a_blind_prober_makes_no_relapse_of_a_recovered_error(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    world.exporter.blind = True
    world.fail()
    until(lambda: "prober_blind" in world.reasons())
    world.settle()
    assert (world.error().state, world.error().relapses, len(world.done)) == ("recovered", 0, 1)
    world.exporter.blind = False
    world.pass_time(3)
    until(lambda: len(world.done) == 2)


def test_a_target_the_exporter_has_lost_makes_no_relapse(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    world.exporter.set("web", known=False)
    world.fire()
    until(lambda: "stale" in world.reasons())
    world.settle()
    assert (world.error().state, world.error().relapses, len(world.done)) == ("recovered", 0, 1)


def fail_once_before(world: Any, call: str, moment: Any) -> None:
    """Let web fail again, and its alert come in, right before the store is called at that moment."""
    real, failed = getattr(world.store, call), threading.Event()

    def called(*given: Any) -> Any:
        if moment(given[0]) and not failed.is_set():
            failed.set()
            world.fail()
        return real(*given)

    setattr(world.store, call, called)


def test_a_failure_between_the_proof_and_the_end_of_the_run_is_repaired(world: Any, until: Any) -> None:
    fail_once_before(world, "end_run", lambda run: run.outcome == "recovered")
    world.fail()
    until(lambda: len(world.done) == 2 and world.error().state == "recovered")
    assert world.error().relapses == 1


def test_a_failure_between_the_proof_and_the_close_is_repaired(world: Any, until: Any) -> None:
    fail_once_before(world, "record", lambda decision: decision.reason == "already_healthy")
    world.fire()
    until(lambda: world.done == [("restart", "web")] and world.error().state == "recovered")


def test_a_failure_while_a_late_signal_is_looked_at_is_repaired(world: Any, until: Any) -> None:
    world.fail()
    until(lambda: world.error().state == "recovered")
    fail_once_before(world, "record", lambda decision: decision.reason == "already_healthy")
    world.fire()
    until(lambda: len(world.done) == 2 and world.error().state == "recovered")


# -- attempts, backoff, escalation --------------------------------------------------------------------


def test_attempts_end_and_people_are_called_once_with_evidence(world: Any, until: Any) -> None:
    world.on_action = broken
    world.fail()
    until(lambda: world.error().escalation_sent)
    world.fire()
    world.pass_time(60)
    world.settle()
    error = world.error()
    assert (error.state, error.open, error.attempts, error.recovered_at) == ("failed", True, 3, None)
    assert world.done == [("restart", "web")] * 3
    assert {run.outcome for run in world.runs()} == {"failed"}
    (told,) = world.notifier.told
    assert (told.target, told.error_id, told.run_id) == ("web", error.id, world.runs()[-1].id)
    assert "observations" in told.evidence["rung 1"]
    assert "3 of 3 attempts" in told.text


def test_attempts_wait_longer_each_time(make_world: Any, until: Any) -> None:
    world = make_world(remediator={"backoff": "40ms", "backoff_multiplier": 3, "max_attempts": 3})
    world.on_action = broken
    world.fail()
    until(lambda: world.error().state == "failed")
    first, second, third = world.runs()
    assert second.started_at - first.ended_at >= 0.04
    assert third.started_at - second.ended_at >= 0.12


def test_a_given_up_error_that_comes_back_to_health_stays_failed_and_closes(world: Any, until: Any) -> None:
    world.on_action = broken
    world.fail()
    until(lambda: world.error().escalation_sent)
    world.exporter.set("web", up=True)
    world.pass_time(20)
    until(lambda: not world.error().open)
    assert (world.error().state, world.error().recovered_at) == ("failed", None)


def test_people_who_could_not_be_told_are_told_later(world: Any, until: Any) -> None:
    world.notifier.works = False
    world.on_action = broken
    world.fail()
    until(lambda: world.error().state == "failed")
    until(lambda: world.count("soulfra_escalations_total", result="untold") == 1)
    assert not world.error().escalation_sent
    world.notifier.works = True
    world.pass_time(20)
    until(lambda: world.error().escalation_sent)
    assert len(world.notifier.told) == 1


def test_the_ladder_goes_up_a_rung_when_the_proof_fails(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    hook = {"hook": {"service": "{{ target }}", "hook": "reconnect_redis"}}
    rungs = [{"steps": [hook]}, {"steps": [{"restart": {"service": "{{ target }}"}}]}]
    world = make_world(playbooks=[write_playbook(rungs=rungs)])
    world.on_action = lambda action, service: (
        world.repair(action, service) if action == "restart" else "nothing"
    )
    world.fail()
    until(lambda: world.error().state == "recovered")
    assert world.done == [("hook", "web"), ("restart", "web")]
    assert (world.error().attempts, world.runs()[-1].rungs_tried) == (2, 2)


# -- nothing is known ---------------------------------------------------------------------------------


def test_without_the_exporter_nothing_runs_and_it_runs_when_it_is_back(world: Any, until: Any) -> None:
    world.exporter.reachable = False
    world.fail()
    until(lambda: "stale" in world.reasons())
    world.settle()
    assert (world.done, world.error().state) == ([], "pending")
    world.exporter.reachable = True
    world.pass_time(STALE_WAIT)
    until(lambda: world.error().state == "recovered")
    assert world.done == [("restart", "web")]


def test_an_exporter_that_is_lost_in_the_proof_leaves_the_run_unverified(world: Any, until: Any) -> None:
    def lose(action: str, service: str) -> str:
        world.exporter.reachable = False
        return str(world.repair(action, service))

    world.on_action = lose
    world.fail()
    until(lambda: world.runs() and world.runs()[0].outcome)
    assert world.runs()[0].outcome == "unverified"
    assert world.error().state == "pending"
    world.exporter.reachable = True
    world.pass_time(STALE_WAIT)
    until(lambda: world.error().state == "recovered")
    assert (world.error().recovered_by, len(world.done)) == ("itself", 1)


@pytest.mark.parametrize(("limits", "counts"), [({}, False), ({"min_healthy": "10%"}, True)])
def test_services_are_counted_only_where_their_number_matters(
    make_world: Any, until: Any, write_playbook: Any, limits: dict[str, Any], counts: bool
) -> None:
    world = make_world(playbooks=[write_playbook(limits=limits)])
    world.fail()
    until(lambda: world.error().state == "recovered")

    assert bool(world.exporter.told_all) is counts


def test_a_blind_prober_stops_everything_with_the_reason(world: Any, until: Any) -> None:
    world.exporter.blind = True
    for name in ("web", "mail", "redis"):
        world.fail(name)
    until(lambda: world.reasons().count("prober_blind") >= 3)
    world.settle()
    assert world.done == []


def test_an_exporter_that_has_not_looked_yet_is_waited_for(world: Any, until: Any) -> None:
    world.exporter.ready = False
    world.fail()
    until(lambda: "warming_up" in world.reasons())
    assert world.done == []
    world.exporter.ready = True
    world.pass_time(2)
    until(lambda: world.error().state == "recovered")


def test_a_long_held_error_is_told_to_people_once_and_stays_pending(world: Any, until: Any) -> None:
    world.exporter.reachable = False
    world.fail()
    until(lambda: "stale" in world.reasons())
    world.pass_time(301)
    until(lambda: world.error().escalation_sent)
    world.pass_time(10)
    world.settle()
    assert (world.error().state, len(world.notifier.told), world.done) == ("pending", 1, [])


# -- held back ----------------------------------------------------------------------------------------


def test_the_root_is_repaired_before_what_depends_on_it(world: Any, until: Any) -> None:
    held = threading.Event()

    def root_first(action: str, service: str) -> str:
        assert service != "redis" or held.wait(5)
        world.exporter.set("web", up=service in ("redis", "web"))  # web needs redis, nothing else
        return str(world.repair(action, service))

    world.on_action = root_first
    world.exporter.set("redis", up=False)
    world.fail("web")
    until(lambda: "dependency_down" in world.reasons(world.error("web")))
    world.fire("redis")
    until(lambda: world.done)
    held.set()
    until(lambda: world.error("redis").state == "recovered")
    world.pass_time(2)
    until(lambda: world.error("web").state == "recovered")
    assert world.done == [("restart", "redis")]
    assert world.error("web").recovered_by == "itself"


def test_a_pause_holds_and_its_end_releases(world: Any, until: Any) -> None:
    world.store.add_pause(Pause(scope="web", reason="release", owner="ann", since=world.now()))
    world.fail()
    until(lambda: "paused" in world.reasons())
    assert world.done == []
    world.store.end_pauses("web", world.now())
    world.pass_time(6)
    until(lambda: world.error().state == "recovered")
    assert world.done == [("restart", "web")]


def test_shadow_records_the_plan_and_does_nothing(make_world: Any, write_playbook: Any, until: Any) -> None:
    world = make_world(playbooks=[write_playbook(mode="shadow")])
    world.fail()
    until(lambda: "shadow" in world.reasons())
    world.pass_time(60)
    world.settle()
    (run,) = world.runs()
    assert (run.outcome, world.done, world.error().state) == ("shadowed", [], "pending")
    assert run.plan[0]["steps"][0] == {"action": "restart", "args": {"service": "web"}, "timeout": 30.0}
    assert world.store.starts(0) == []


def test_a_playbook_that_asks_runs_after_the_yes(make_world: Any, write_playbook: Any, until: Any) -> None:
    world = make_world(playbooks=[write_playbook(mode="approve")])
    world.fail()
    until(lambda: world.notifier.told)
    assert "soulfra approve" in world.notifier.told[0].text
    assert world.done == []
    world.engine.answer_approval(world.error().id, approve=True, by="ann")
    until(lambda: world.error().state == "recovered")
    assert (world.done, world.error().approved_by) == ([("restart", "web")], "ann")


def test_a_no_keeps_it_from_running(make_world: Any, write_playbook: Any, until: Any) -> None:
    world = make_world(playbooks=[write_playbook(mode="approve")])
    world.fail()
    until(lambda: world.error().held_reason == "approval_pending")
    world.engine.answer_approval(world.error().id, approve=False, by="bob")
    until(lambda: world.reasons()[-1] == "approval_rejected")
    world.pass_time(60)
    world.settle()
    assert world.done == []


def test_a_silence_in_alertmanager_is_kept(world: Any, until: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remediator.alertmanager.silence_for", lambda *_, **__: "release (by ann)")
    world.fail()
    until(lambda: "silenced" in world.reasons())
    assert world.done == []


def test_a_template_that_names_an_absent_label_refuses_the_run(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    rungs = [{"steps": [{"restart": {"service": "{{ labels.nowhere }}"}}]}]
    world = make_world(playbooks=[write_playbook(rungs=rungs)])
    world.fail()
    until(lambda: "template_error" in world.reasons())
    (decision,) = [one for one in world.store.decisions() if one.reason == "template_error"]
    assert "nowhere" in decision.detail
    assert (decision.verdict, world.done, world.runs()) == ("refused", [], [])


def test_an_alert_cannot_pretend_to_be_a_person(world: Any, until: Any) -> None:
    labels = {"action": "restart_service", "alertname": "Trick"}
    world.exporter.set("web", up=False)
    world.fire(problem=Problem.OTHER, labels=labels)
    until(lambda: "no_playbook" in world.reasons())
    assert world.done == []


# -- actions that fail --------------------------------------------------------------------------------


def test_an_action_that_raises_what_it_may_not_fails_its_step_and_nothing_else(
    make_world: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    world = make_world(remediator={"max_attempts": 1})
    secret = "hunter" + "2" * 12

    def breaks(action: str, service: str) -> str:
        raise KeyError(f"password={secret}")

    world.on_action = breaks
    world.fail()
    until(lambda: world.error().escalation_sent)
    (run,) = world.runs()
    (step,) = world.store.steps(run.id)
    assert (run.outcome, step.state) == ("failed", "failed")
    assert "KeyError" in step.result
    assert secret not in repr((run, step, world.notifier.told))
    world.on_action = world.repair
    world.fail("mail")
    until(lambda: world.error("mail").state == "recovered")


def test_a_failing_step_is_tried_again_inside_its_rung(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    step = {"restart": {"service": "{{ target }}"}, "retry": {"attempts": 3, "backoff": 0.01}}
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [step]}])])

    def third_time(action: str, service: str) -> str:
        if len(world.done) < 3:
            raise ActionError("not yet")
        return str(world.repair(action, service))

    world.on_action = third_time
    world.fail()
    until(lambda: world.error().state == "recovered")
    (kept,) = world.store.steps(world.runs()[0].id)
    assert (kept.attempt, kept.state, world.error().attempts) == (3, "done", 1)


def test_a_permanent_failure_is_not_tried_again_inside_its_rung(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    step = {"restart": {"service": "{{ target }}"}, "retry": {"attempts": 5, "backoff": 0}}
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [step]}], attempts=1)])

    def never(action: str, service: str) -> str:
        raise ActionError("there is no such program", permanent=True)

    world.on_action = never
    world.fail()
    until(lambda: world.error().escalation_sent)
    assert len(world.done) == 1
    assert "there is no such program" in world.notifier.told[0].text


def refuse(world: Any, action: str) -> None:
    """Let an action be refused for good, and every other one repair."""

    def act(name: str, service: str) -> str:
        if name == action:
            raise ActionError("there is no such program", permanent=True)
        return str(world.repair(name, service))

    world.on_action = act


def test_what_was_refused_for_good_is_not_tried_again_and_a_person_is_called_once(
    world: Any, until: Any
) -> None:
    refuse(world, "restart")
    world.fail()
    until(lambda: world.error().escalation_sent)
    for _ in range(3):
        world.pass_time(60)
        world.settle()

    (told,) = world.notifier.told
    assert (len(world.done), len(world.runs())) == (1, 1)
    assert (world.error().state, world.error().held_reason) == ("failed", "attempts")
    assert "refused for good, so it is not tried again: there is no such program" in told.text


def test_after_a_rung_that_was_refused_for_good_comes_the_next(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    hook = {"hook": {"service": "{{ target }}", "hook": "reconnect_redis"}}
    restart = {"restart": {"service": "{{ target }}"}}
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [hook]}, {"steps": [restart]}])])
    refuse(world, "hook")
    world.fail()

    until(lambda: world.error().state == "recovered")
    assert (world.done, world.notifier.told) == ([("hook", "web"), ("restart", "web")], [])


def test_a_person_who_is_refused_gives_no_error_up(world: Any, until: Any) -> None:
    refuse(world, "hook")
    world.engine._tools.store.add_pause(Pause(scope="web", reason="work", owner="ann", since=world.now()))
    world.fail()
    until(lambda: world.error().held_reason == "paused")

    world.engine.request("reconnect_redis", "web", force=True, by="ann")
    until(lambda: world.runs() and world.runs()[0].outcome == "failed")
    world.store.end_pauses("web", world.now())
    world.pass_time(10)

    until(lambda: world.error().state == "recovered")
    assert world.done == [("hook", "web"), ("restart", "web")]


def test_it_is_told_since_when_an_error_is_held_for_one_reason(world: Any, until: Any) -> None:
    world.fire(problem=Problem.DISK_FULL)
    until(lambda: world.error().held_reason == "no_playbook")
    since, look = world.error().held_since, world.error().check_at

    world.pass_time(60)
    until(lambda: world.error().check_at != look)
    world.settle()

    assert (world.error().held_reason, world.error().held_since) == ("no_playbook", since)


# -- the remediator itself fails ----------------------------------------------------------------------


def left_behind(world: Any, *, on_crash: str = "verify", state: StepState = StepState.STARTED) -> Run:
    """Write what a remediator leaves that is killed in the middle of a step."""
    world.exporter.set("web", up=False)
    world.fire()
    error = world.error()
    run = Run(
        id="R_00000000dead",
        target="web",
        playbook="down",
        trigger=Trigger.ALERT,
        started_at=world.now(),
        owner="here",
        boot="earlier",
        token="t",
        lease_until=world.now() + 15,
        error_id=error.id,
        rungs_tried=1,
        plan=({"steps": [], "verify": {"healthy": 2, "every": 0.005, "within": 0.05}},),
    )
    assert world.store.begin_run(run, replace(error, attempts=1, check_at=None))
    world.store.journal(
        Step(
            run_id=run.id,
            number=1,
            rung=0,
            action="restart",
            args={},
            state=state,
            started_at=world.now(),
            on_crash=on_crash,
        )
    )
    return run


def test_a_run_left_behind_ends_as_recovered_when_it_had_worked(make_world: Any, until: Any) -> None:
    world = make_world(start=False)
    run = left_behind(world)
    world.exporter.set("web", up=True)
    world.begin(start=True)
    until(lambda: world.error().state == "recovered")
    assert world.store.get_run(run.id).outcome == "recovered"
    assert world.done == []


@pytest.mark.parametrize("state", [StepState.STARTED, StepState.DONE])
def test_a_run_left_behind_is_done_again_when_the_probe_says_sick(
    make_world: Any, until: Any, state: StepState
) -> None:
    world = make_world(start=False)
    run = left_behind(world, state=state)
    world.begin(start=True)
    until(lambda: world.error().state == "recovered")
    assert world.store.get_run(run.id).outcome == "interrupted"
    assert [one.outcome for one in world.runs()] == ["interrupted", "recovered"]
    assert (world.done, world.error().attempts) == ([("restart", "web")], 2)


def test_a_step_that_must_not_be_repeated_fails_its_run(make_world: Any, until: Any) -> None:
    world = make_world(start=False, remediator={"max_attempts": 1})
    run = left_behind(world, on_crash="fail")
    world.begin(start=True)
    until(lambda: world.error().escalation_sent)
    assert world.store.get_run(run.id).outcome == "failed"
    assert world.done == []


def test_a_run_left_behind_is_not_judged_while_the_exporter_is_away(make_world: Any, until: Any) -> None:
    world = make_world(start=False)
    run = left_behind(world)
    world.exporter.reachable = False
    world.begin(start=True)
    until(lambda: world.store.get_run(run.id).outcome)
    assert world.store.get_run(run.id).outcome == "interrupted"
    assert (world.error().state, world.done) == ("pending", [])
    world.exporter.reachable = True
    world.pass_time(STALE_WAIT)
    until(lambda: world.error().state == "recovered")


def test_the_run_of_another_remediator_is_left_alone_while_its_lease_lasts(
    make_world: Any, until: Any
) -> None:
    world = make_world(start=False)
    world.exporter.set("web", up=False)
    run = replace(left_behind(world), id="R_00000000beef", owner="there", target="mail", error_id=None)
    assert world.store.begin_run(run, None)
    world.begin(start=True)
    until(lambda: world.error().state == "recovered")
    assert world.store.get_run(run.id).outcome is None
    world.pass_time(16)
    until(lambda: world.store.get_run(run.id).outcome)


def test_a_lost_lease_stops_the_run_before_its_next_effect(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    restart = {"restart": {"service": "{{ target }}"}}
    world = make_world(playbooks=[write_playbook(rungs=[{"steps": [restart, restart]}])])
    entered, go_on = threading.Event(), threading.Event()

    def slow(action: str, service: str) -> str:
        entered.set()
        assert go_on.wait(5)
        return "done"

    world.on_action = slow
    world.fail()
    assert entered.wait(5)
    (run,) = world.runs()
    assert world.store.adopt(world.store.get_run(run.id), "other", "b", world.now() + 60, "there")
    go_on.set()
    until(lambda: not world.busy(world.engine))
    assert len(world.done) == 1
    assert world.store.get_run(run.id).outcome is None
    assert world.error().state == "pending"


def test_a_store_that_fails_for_a_while_is_survived(
    world: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)

    def fail_store(action: str, service: str) -> str:
        world.store.broken.set()
        return str(world.repair(action, service))

    world.on_action = fail_store
    world.fail()
    until(lambda: world.done and not world.busy(world.engine))
    until(lambda: world.count("soulfra_remediator_internal_errors_total", place="timer") > 0)
    assert world.engine.alive
    world.store.broken.clear()
    (run,) = world.runs()
    assert run.outcome is None  # its end could not be written
    world.on_action = world.repair
    world.pass_time(16)  # its lease is over
    until(lambda: world.error().state == "recovered")
    assert world.store.get_run(run.id).outcome == Outcome.RECOVERED
    world.fail("mail")
    until(lambda: world.error("mail").state == "recovered")


def test_the_engine_ends_while_a_run_is_under_way_and_the_next_life_settles_it(
    world: Any, until: Any
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(action: str, service: str) -> str:
        entered.set()
        assert go_on.wait(5)
        return str(world.repair(action, service))

    world.on_action = slow
    world.fail()
    assert entered.wait(5)
    old = world.engine
    old.stop(grace=0.1)
    go_on.set()
    until(lambda: not world.busy(old))
    (run,) = world.runs()
    assert run.outcome in (None, "recovered")
    world.begin(start=True)
    until(lambda: world.error().state == "recovered")
    assert world.store.get_run(run.id).outcome == "recovered"
    assert len(world.done) == 1


# -- people -------------------------------------------------------------------------------------------


def test_a_persons_run_recovers_the_open_error_as_theirs(world: Any, until: Any) -> None:
    world.store.add_pause(Pause(scope="everything", reason="look", owner="ann", since=world.now()))
    world.fail()
    until(lambda: "paused" in world.reasons())
    run = world.engine.request("restart_service", "web", force=True, by="ann")
    until(lambda: world.error().state == "recovered")
    ended = world.store.get_run(run.id)
    assert (ended.trigger, ended.requested_by, ended.outcome) == ("person", "ann", "recovered")
    assert (world.error().recovered_by, world.error().attempts) == ("person", 0)


def test_a_playbook_for_alerts_does_not_stand_in_the_way_of_people(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    broad = write_playbook(name="broad", match=['severity!="low"'])
    own = write_playbook(name="restart_service", match=['action="restart_service"'])
    world = make_world(playbooks=[broad, own])
    run = world.engine.request("restart_service", "web", force=False, by="ann")
    assert run.playbook == "restart_service"
    until(lambda: world.store.get_run(run.id).outcome == "recovered")


def test_a_fault_of_the_exporter_itself_restarts_nothing(world: Any, until: Any) -> None:
    world.exporter.set("web", up=False, reason="internal")
    world.fire()
    until(lambda: world.error().held_reason == "stale")
    assert not world.done


def test_another_rule_of_the_same_problem_does_not_take_the_playbook_away(
    make_world: Any, write_playbook: Any, until: Any
) -> None:
    by_name = write_playbook(match=['alertname="SoulfraServiceDown"'])
    world = make_world(playbooks=[by_name], start=False)
    world.fail()
    world.fire(fingerprint="f-other", labels={"alertname": "HttpDown", "target": "web"})
    world.engine.start()
    until(lambda: world.error().state == "recovered")
    assert world.done == [("restart", "web")]
