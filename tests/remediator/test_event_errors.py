"""What becomes of events of applications: errors, repairs, people, and an end that nobody tells."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from remediator.actions.stop import Ended
from remediator.call_limit import WINDOW, CallLimit
from remediator.escalation import escalate, recall_calls
from remediator.signals import Error, ErrorState, Signal, Source, Status
from soulfra_monitor.events import Event, Kind
from soulfra_monitor.problems import Problem, Severity

PRINT = "v1.0123456789abcdef"
QUIET = 301.0


def event(world: Any, target: str = "web", **changes: Any) -> Signal:
    """Make the signal of an event, as remediator.events does."""
    kind = changes.pop("kind", "task")
    labels = {"target": target, "kind": kind, "origin": "event", **changes.pop("labels", {})}
    made: Signal = world.signal(
        target,
        source=Source.EVENT,
        fingerprint=PRINT,
        problem=Problem.UNCAUGHT_EXCEPTION,
        severity=Severity.MEDIUM,
        message="ValueError: no",
        labels=labels,
        detail={"id": "e1", "kind": kind, "message": "no", "reasons": ["A task died."]},
    )
    return replace(made, **changes)


def send(world: Any, target: str = "web", **changes: Any) -> None:
    world.engine.accept([event(world, target, **changes)])


def died(world: Any, target: str = "web") -> None:
    send(world, target, kind="exit", problem=Problem.PROCESS_DIED, severity=Severity.CRITICAL)


@pytest.fixture
def shipped(make_world: Any) -> Any:
    return make_world(playbooks=["shipped"])


def problems(world: Any, target: str = "web") -> dict[str, Error]:
    return {error.problem.value: error for error in world.errors(target)}


def look_again(world: Any, until: Callable[..., None], seconds: float = 16.0) -> None:
    """Let time pass until every open error has been looked at once more."""
    looks = {error.id: error.check_at for error in world.errors() if error.open and error.check_at}
    world.pass_time(seconds)
    until(lambda: all((world.store.get_error(one).check_at or 0) != at for one, at in looks.items()))
    world.settle()


# -- whether people hear of it ----------------------------------------------------------------------


def test_an_error_that_nothing_handles_stays_and_wakes_nobody(world: Any, until: Any) -> None:
    send(world)
    until(lambda: world.error().held_reason == "no_playbook")
    look_again(world, until, 400)

    assert (world.error().state, world.error().open, world.notifier.told) == (ErrorState.PENDING, True, [])


@pytest.mark.parametrize("target", ["web", "nobody-knows-it"])
def test_a_critical_one_calls_people_at_once_and_once_with_what_was_seen(
    world: Any, until: Any, target: str
) -> None:
    send(world, target, severity=Severity.CRITICAL)
    until(lambda: world.notifier.told)
    look_again(world, until, 601)
    send(world, target, severity=Severity.CRITICAL)
    look_again(world, until, 601)

    (told,) = world.notifier.told
    assert told.severity is Severity.CRITICAL
    assert told.evidence["event"]["reasons"] == ["A task died."]
    assert "host" in told.evidence["now"]
    assert world.error(target).state is ErrorState.FAILED


def test_one_that_becomes_critical_calls_people_then(world: Any, until: Any) -> None:
    send(world)
    until(lambda: world.error().held_reason == "no_playbook")
    assert world.notifier.told == []

    send(world, severity=Severity.CRITICAL)

    until(lambda: len(world.notifier.told) == 1)


def test_a_hundred_critical_errors_of_one_service_call_people_three_times(world: Any, until: Any) -> None:
    world.engine.accept(
        [
            event(world, subject=f"v1.{n:016x}", fingerprint=f"v1.{n:016x}", severity=Severity.CRITICAL)
            for n in range(20)
        ]
    )
    until(lambda: all(error.held_reason for error in world.errors()))

    assert len(world.notifier.told) == 3


def test_a_storm_of_unknown_services_calls_three_times_and_then_once_for_all(world: Any, until: Any) -> None:
    world.engine.accept([event(world, f"ghost-{n}", severity=Severity.CRITICAL) for n in range(40)])
    until(lambda: all(error.escalation_sent for error in world.errors()), within=30)
    assert len(world.notifier.told) == 3
    send(world, severity=Severity.CRITICAL)
    until(lambda: len(world.notifier.told) == 4)

    world.chores.tell_withheld()
    assert len(world.notifier.told) == 4
    world.pass_time(31)
    for _ in range(2):
        world.chores.tell_withheld()

    assert world.notifier.told[4:] == [world.notifier.told[-1]]
    assert "37 more errors" in world.notifier.told[-1].text
    assert world.count("soulfra_escalations_total", result="summarised") == 37


def test_a_restart_in_a_storm_makes_no_room_for_more_calls(world: Any, until: Any) -> None:
    def storm(numbers: range) -> None:
        world.engine.accept([event(world, f"ghost-{n}", severity=Severity.CRITICAL) for n in numbers])
        until(lambda: all(error.escalation_sent for error in world.errors()), within=30)

    storm(range(40))
    world.engine.stop()
    world.begin(start=True)
    storm(range(40, 60))
    assert len(world.notifier.told) == 3

    world.pass_time(31)
    world.chores.tell_withheld()

    assert len(world.notifier.told) == 4
    assert "57 more errors" in world.notifier.told[-1].text  # those of the last life were told by nobody


def test_a_restart_after_the_storm_leaves_all_calls_free(world: Any, until: Any) -> None:
    world.engine.accept([event(world, f"ghost-{n}", severity=Severity.CRITICAL) for n in range(10)])
    until(lambda: all(error.escalation_sent for error in world.errors()), within=30)
    world.engine.stop()

    again = CallLimit()
    world.tools.call_limit = again
    recall_calls(world.tools, world.now() + WINDOW + 1)

    assert again.take(world.now() + WINDOW + 1, configured=False, critical=True)
    assert again.withheld(world.now() + WINDOW + 100) == 0


def test_errors_of_unknown_services_are_bounded_in_number_all_together(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remediator.engine.STRANGERS_LIMIT", 5)
    world = make_world(start=False)

    def post(*services: str) -> list[str]:
        told = [
            Event(id=uuid4().hex, at=1.0, kind=Kind.EXIT, service=name, message="gone") for name in services
        ]
        return [one.error.target for one in world.engine.accept_events(told).admissions]

    assert post(*(f"ghost-{n}" for n in range(4))) == [f"ghost-{n}" for n in range(4)]
    assert post("ghost-1", "a", "b", "c", "web", "ghost-2") == [
        "ghost-1",
        "a",
        "(other)",
        "(other)",
        "web",
        "ghost-2",
    ]
    assert post("d", "web") == ["(other)", "web"]
    (other,) = world.errors("(other)")
    assert (other.signals, other.labels["reported_target"]) == (3, "d")


def test_configured_services_are_looked_at_before_all_others(make_world: Any) -> None:
    world = make_world(start=False)
    world.engine.accept([event(world, f"ghost-{n}") for n in range(30)])
    world.offset += 5
    send(world, problem=Problem.REDIS_UNAVAILABLE)
    died(world)

    due = world.store.due_errors(world.now(), 10, first=world.tools.services)

    assert [error.problem for error in due[:2]] == [Problem.PROCESS_DIED, Problem.REDIS_UNAVAILABLE]
    assert len(due) == 10


@pytest.mark.parametrize(
    "told",
    [
        {"kind": Kind.REPORTED, "problem": Problem.SERVICE_TIMEOUT},
        {"kind": Kind.REPORTED, "problem": Problem.SERVICE_DOWN},
        {"kind": Kind.HUNG},
    ],
    ids=["a timeout inside", "an opinion", "a hung call"],
)
def test_a_healthy_probe_ends_nothing_that_it_does_not_see(
    world: Any, until: Any, told: dict[str, Any]
) -> None:
    world.engine.accept_events([Event(id=uuid4().hex, at=1.0, service="web", message="late", **told)])
    until(lambda: world.error().held_reason is not None)
    world.fail()
    until(lambda: any(error.state == "recovered" for error in world.errors()), within=20)
    look_again(world, until)

    inside = next(error for error in world.errors() if error.subject)
    assert (inside.state, inside.open) == (ErrorState.PENDING, True)


def test_a_death_that_somebody_else_mends_wakes_nobody(shipped: Any, until: Any) -> None:
    shipped.exporter.set("bare", up=False)
    died(shipped, "bare")
    until(lambda: shipped.error("bare").held_reason == "no_playbook")
    look_again(shipped, until, 20)
    assert shipped.notifier.told == []

    shipped.exporter.set("bare", up=True)
    look_again(shipped, until, 20)

    until(lambda: shipped.error("bare").state == "recovered")
    assert shipped.notifier.told == []


def test_a_death_that_nobody_mends_calls_people_soon(shipped: Any, until: Any) -> None:
    shipped.exporter.set("bare", up=False)
    died(shipped, "bare")
    until(lambda: shipped.error("bare").held_reason == "no_playbook")

    shipped.pass_time(46)

    until(lambda: len(shipped.notifier.told) == 1)


def test_a_critical_alert_without_a_playbook_is_left_to_alertmanager(world: Any, until: Any) -> None:
    world.fire(problem=Problem.DISK_FULL, severity=Severity.CRITICAL)
    until(lambda: world.error().held_reason == "no_playbook")

    assert world.notifier.told == []


# -- their end --------------------------------------------------------------------------------------


def test_events_that_came_no_more_are_over_when_the_service_is_healthy(world: Any, until: Any) -> None:
    send(world)
    until(lambda: world.error().held_reason == "no_playbook")
    world.pass_time(QUIET - 10)
    world.chores.end_quiet_events()
    world.settle()
    assert world.error().open

    world.pass_time(20)
    world.chores.end_quiet_events()

    until(lambda: not world.error().open)
    assert (world.error().state, world.error().recovered_by) == (ErrorState.RECOVERED, "itself")


def test_silence_of_a_service_that_is_down_ends_nothing(world: Any, until: Any) -> None:
    world.exporter.set("web", up=False)
    send(world)
    until(lambda: world.error().held_reason is not None)
    world.pass_time(QUIET)
    world.chores.end_quiet_events()
    world.settle()

    assert world.error().open
    world.exporter.set("web", up=True)
    look_again(world, until)
    until(lambda: not world.error().open)


def test_silence_says_nothing_to_a_remediator_that_was_away_itself(world: Any, until: Any) -> None:
    send(world)
    world.settle()
    world.engine.stop()
    world.offset += 2 * QUIET
    world.begin(start=True)
    world.chores._began = world.now()
    world.chores.end_quiet_events()
    assert world.store.members(world.error().id) == {PRINT: Status.FIRING}

    world.pass_time(QUIET)
    world.chores.end_quiet_events()
    until(lambda: not world.error().open)


def test_an_event_in_the_last_moment_keeps_it_open(world: Any, until: Any) -> None:
    send(world)
    world.pass_time(QUIET)
    send(world)
    world.chores.end_quiet_events()
    world.settle()

    assert world.error().open
    assert world.store.members(world.error().id) == {PRINT: Status.FIRING}


def test_silence_ends_no_alert(world: Any, until: Any) -> None:
    world.fire(problem=Problem.ERROR_RATE)
    until(lambda: world.error().held_reason is not None)
    world.pass_time(QUIET)
    world.chores.end_quiet_events()
    world.settle()

    assert world.error().open


def test_the_end_of_events_is_not_asked_of_alertmanager(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remediator.alertmanager.active_alerts", lambda *_, **__: [])
    monkeypatch.setattr("remediator.alertmanager.held_fingerprints", lambda *_, **__: set())
    send(world)
    for _ in range(3):
        world.chores.reconcile()
        world.pass_time(100)

    assert world.store.members(world.error().id) == {PRINT: Status.FIRING}


@pytest.mark.parametrize(
    ("severity", "how"),
    [(Severity.MEDIUM, "silence"), (Severity.CRITICAL, "given_up")],
    ids=["nobody was called", "people were called"],
)
def test_the_silence_of_an_unknown_service_ends_it_without_a_recovery(
    world: Any, until: Any, severity: Severity, how: str
) -> None:
    send(world, "elsewhere", severity=severity)
    until(lambda: world.error("elsewhere").held_reason is not None)
    world.settle()
    world.pass_time(QUIET)
    world.chores.end_quiet_events()

    until(lambda: not world.error("elsewhere").open)
    ended = world.error("elsewhere")
    assert (ended.state, ended.ended) == (ErrorState.FAILED, how)
    assert (ended.recovered_at, ended.attempts) == (None, 0)
    assert ended.closed_at is not None


@pytest.mark.parametrize("by", ["escalate", "watch"])
def test_a_look_that_is_asked_for_meanwhile_is_not_put_off(make_world: Any, by: str) -> None:
    world = make_world(start=False)
    send(world)
    seen = replace(world.error(), escalation_sent=True)
    world.offset += 5
    send(world, status=Status.RESOLVED)
    asked = world.error().check_at

    if by == "escalate":
        escalate(world.tools, seen, None, "it could not be repaired", give_up=True)
    else:
        world.engine._watch_failed(seen)

    assert asked > seen.check_at
    assert world.error().check_at == asked


def test_an_event_soon_after_the_recovery_is_a_relapse_and_later_a_new_error(world: Any, until: Any) -> None:
    def end() -> None:
        world.pass_time(QUIET)
        world.chores.end_quiet_events()
        until(lambda: not any(error.open for error in world.errors()))

    send(world)
    end()
    world.pass_time(30)
    send(world)
    assert (world.error().open, world.error().relapses, world.error().recovered_at) == (True, 1, None)
    end()
    world.pass_time(100)
    send(world)

    assert len(world.errors()) == 2
    assert world.count("soulfra_relapses_total") == 1


def test_what_the_exporter_had_seen_is_kept_from_the_first_look(world: Any, until: Any) -> None:
    send(world)
    until(lambda: world.error().held_reason is not None)
    world.exporter.set("redis", up=False)
    look_again(world, until)

    sight = world.store.sight(world.error().id)
    assert set(sight["services"]) == {"web", "redis"}
    assert sight["services"]["redis"]["status"] == "up"


def test_an_exporter_that_cannot_be_asked_is_said_in_its_place(world: Any, until: Any) -> None:
    world.exporter.reachable = False
    send(world)
    until(lambda: world.error().held_reason is not None)

    assert "cannot be asked" in world.store.sight(world.error().id)["missing"]


# -- deaths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["event", "alert", "together"])
def test_the_same_death_told_twice_is_one_restart(make_world: Any, until: Any, first: str) -> None:
    world = make_world(playbooks=["shipped"], start=False)
    world.exporter.set("web", up=False)
    signals = [
        event(world, kind="exit", problem=Problem.PROCESS_DIED, severity=Severity.CRITICAL),
        world.signal(),
    ]
    ordered = signals if first != "alert" else signals[::-1]
    if first == "together":
        world.engine.accept(ordered)
        world.engine.start()
    else:
        world.engine.start()
        world.engine.accept(ordered[:1])
        until(lambda: world.done)
        world.engine.accept(ordered[1:])

    until(lambda: len(world.errors()) == 2 and all(error.state == "recovered" for error in world.errors()))
    world.settle()
    look_again(world, until)
    assert world.done == [("restart", "web")]
    assert {error.recovered_by for error in world.errors()} == {"run"}
    assert world.notifier.told == []


def test_a_death_told_after_the_restart_restarts_nothing(shipped: Any, until: Any) -> None:
    shipped.fail()
    until(lambda: shipped.error().state == "recovered")
    died(shipped)
    until(lambda: problems(shipped)["process_died"].state == "recovered")

    assert shipped.done == [("restart", "web")]


def test_a_death_that_comes_again_while_healthy_is_no_new_error(shipped: Any, until: Any) -> None:
    died(shipped)
    until(lambda: not shipped.error().open)
    died(shipped)
    until(lambda: shipped.error().check_at is None)

    assert (shipped.error().open, shipped.error().signals, shipped.done) == (False, 2, [])


def test_a_late_death_of_a_sick_service_is_a_relapse_that_is_repaired(shipped: Any, until: Any) -> None:
    died(shipped)
    until(lambda: not shipped.error().open)
    shipped.exporter.set("web", up=False)
    died(shipped)

    until(lambda: shipped.done == [("restart", "web")])
    until(lambda: shipped.error().state == "recovered")
    assert shipped.error().relapses == 1


def test_a_late_death_long_after_keeps_its_events(shipped: Any, until: Any) -> None:
    died(shipped)
    until(lambda: not shipped.error().open)
    shipped.pass_time(300)
    shipped.exporter.set("web", up=False)
    shipped.on_action = lambda *_: "nothing"
    died(shipped)

    until(lambda: len(shipped.errors()) == 2)
    newest = max(shipped.errors(), key=lambda error: error.first_seen)
    assert [member.detail["id"] for member in shipped.store.membership(newest.id)] == ["e1"]
    shipped.exporter.set("web", up=True)
    until(lambda: not any(error.open for error in shipped.errors()))


def test_a_child_that_failed_is_not_disproved_by_its_healthy_parent(shipped: Any, until: Any) -> None:
    send(shipped, kind="child", problem=Problem.PROCESS_DIED)
    until(lambda: shipped.error().held_reason is not None)

    assert (shipped.error().open, shipped.error().held_reason, shipped.done) == (True, "no_playbook", [])


def death(pid: int, started: float, crash: str = "") -> Event:
    """Make what a service tells at its start of an earlier process of its own."""
    return Event(
        id=uuid4().hex,
        at=started,
        kind=Kind.EXIT,
        service="web",
        message="an earlier process ended without saying goodbye: killed, or left by os._exit",
        context={"pid": pid, "started": started, "crash": crash},
    )


def test_a_death_by_our_own_hand_is_a_part_of_that_run_and_no_error(
    make_world: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, process = Ended(), psutil.Process()
    monkeypatch.setattr("remediator.running.ENDED", ended)
    world = make_world(playbooks=["shipped"])

    def restart(_: str, service: str) -> str:
        ended.add(service, [process], world.now())
        return str(world.repair("restart", service))

    world.on_action = restart
    world.fail()
    until(lambda: world.error().state == "recovered")
    (run,) = world.runs()

    receipt = world.engine.accept_events([death(process.pid, process.create_time() + 0.5)])
    world.settle()

    (admission,) = receipt.admissions
    assert admission.error is None
    (kept,) = [one for one in world.store.decisions(error_id=run.error_id) if one.reason == "duplicate"]
    assert (kept.run_id, kept.cause) == (run.id, admission.signal.fingerprint)
    assert set(problems(world)) == {"service_down"}
    assert any(run.id in text and "ended by our own repair" in text for _, text in world.lines)


@pytest.mark.parametrize("other", [{"pid": 1}, {"started": 0.0}, {"crash": "Fatal Python error: Aborted"}])
def test_the_death_of_another_process_or_by_a_crash_is_an_error(
    make_world: Any, until: Any, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    ended, process = Ended(), psutil.Process()
    monkeypatch.setattr("remediator.running.ENDED", ended)
    world = make_world(playbooks=["shipped"])
    world.fail()
    until(lambda: world.error().state == "recovered")
    ended.add("web", [process], world.now())

    world.engine.accept_events(
        [death(**{"pid": process.pid, "started": process.create_time() + 0.5, **other})]
    )

    until(lambda: "process_died" in problems(world))


# -- what hangs, leaks and runs out -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("handles", Problem.HANDLE_EXHAUSTION),
        ("memory", Problem.MEMORY_LEAK),
        ("loop_blocked", Problem.LOOP_BLOCKED),
        ("hung", Problem.SERVICE_TIMEOUT),
    ],
)
def test_a_service_that_still_answers_is_restarted_when_a_person_says_yes(
    shipped: Any, until: Any, kind: str, problem: Problem
) -> None:
    send(shipped, kind=kind, problem=problem)
    until(lambda: shipped.error().held_reason == "approval_pending")
    until(lambda: shipped.notifier.told)
    assert (shipped.notifier.told[0].kind, shipped.done) == ("approval", [])
    assert shipped.notifier.told[0].evidence["event"]["reasons"] == ["A task died."]

    shipped.engine.answer_approval(shipped.error().id, approve=True, by="somebody")

    until(lambda: shipped.runs() and shipped.runs()[0].outcome == "recovered")
    assert shipped.done == [("restart", "web")]


def test_after_a_repair_only_another_event_makes_a_second_one(make_world: Any, until: Any) -> None:
    world = make_world(playbooks=["shipped"], remediator={"events": {"quiet": "1h"}})
    send(world, problem=Problem.REDIS_UNAVAILABLE, kind="redis")
    until(lambda: world.done == [("hook", "web")] and world.error().recovered_by == "run")
    for _ in range(3):
        look_again(world, until, 400)
    assert world.done == [("hook", "web")]

    send(world, problem=Problem.REDIS_UNAVAILABLE, kind="redis")
    until(lambda: len(world.done) == 2)


# -- Redis ------------------------------------------------------------------------------------------


def test_a_service_is_told_to_reconnect_when_its_redis_is_back(shipped: Any, until: Any) -> None:
    shipped.exporter.set("redis", up=False)
    send(shipped, problem=Problem.REDIS_UNAVAILABLE, kind="redis")
    until(lambda: shipped.error().held_reason == "dependency_down")
    assert shipped.done == []

    shipped.exporter.set("redis", up=True)
    shipped.pass_time(2)

    until(lambda: shipped.done == [("hook", "web")])


def test_without_the_hook_nothing_runs_and_nobody_is_called(shipped: Any, until: Any) -> None:
    send(shipped, "mail", problem=Problem.REDIS_UNAVAILABLE, kind="redis", severity=Severity.HIGH)
    until(lambda: shipped.error("mail").held_reason == "no_playbook")
    look_again(shipped, until, 400)

    assert (shipped.done, shipped.notifier.told, shipped.runs()) == ([], [], [])


# -- files ------------------------------------------------------------------------------------------


def denied(world: Any, path: Path, problem: Problem = Problem.PERMISSION_DENIED) -> None:
    send(world, problem=problem, kind="file", subject=str(path), labels={"path": str(path), "errno": "13"})


def with_paths(make_world: Any, *paths: dict[str, Any]) -> Any:
    return make_world(playbooks=["shipped"], services={"web": {"paths": list(paths)}})


def test_a_permission_that_was_refused_is_mended_and_recovered_at_once(
    make_world: Any, until: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    world = with_paths(make_world, {"path": str(out), "mode": "0750"})

    denied(world, out)

    until(lambda: world.error().state == "recovered")
    assert out.stat().st_mode & 0o7777 == 0o750
    (run,) = world.runs()
    assert (run.playbook, run.outcome) == ("file-repair", "recovered")
    assert world.error().recovery_seconds < 10
    assert "set" in world.store.steps(run.id)[0].result


def test_two_paths_of_one_service_are_two_errors_that_are_both_mended(
    make_world: Any, until: Any, tmp_path: Path
) -> None:
    world = with_paths(
        make_world, *({"path": str(tmp_path / name), "mode": "0700", "create": True} for name in "ab")
    )

    for name in "ab":
        denied(world, tmp_path / name, Problem.MISSING_FILE)

    until(lambda: [error.state for error in world.errors()] == ["recovered"] * 2, within=20)
    assert (tmp_path / "a").is_dir()
    assert (tmp_path / "b").is_dir()


def test_a_path_that_is_not_declared_is_left_alone_and_wakes_nobody(
    make_world: Any, until: Any, tmp_path: Path
) -> None:
    world = with_paths(make_world, {"path": str(tmp_path / "out"), "create": True})

    denied(world, Path("/etc/shadow"))

    until(lambda: world.error().held_reason == "no_playbook")
    assert (world.runs(), world.notifier.told) == ([], [])


def test_files_of_a_folder_that_is_missing_wake_nobody(make_world: Any, until: Any, tmp_path: Path) -> None:
    world = with_paths(make_world, {"path": str(tmp_path / "out"), "mode": "0700", "create": True})

    for name in "ab":
        denied(world, tmp_path / "out" / f"{name}.md", Problem.MISSING_FILE)

    until(lambda: [error.state for error in world.errors()] == ["recovered"] * 2, within=20)
    assert [error.attempts for error in world.errors()] == [1, 1]
    assert {run.trigger for run in world.runs()} == {"event"}
    assert world.notifier.told == []


def test_a_mend_that_does_not_help_ends_with_a_person_at_once(
    make_world: Any, until: Any, tmp_path: Path
) -> None:
    world = with_paths(make_world, {"path": str(tmp_path / "out"), "create": True})
    (tmp_path / "out").mkdir()

    denied(world, tmp_path / "out" / "input.csv", Problem.MISSING_FILE)

    until(lambda: world.error().escalation_sent)
    world.pass_time(60)
    world.settle()
    assert (world.error().state, world.error().attempts) == ("failed", 1)
    assert len([told for told in world.notifier.told if told.kind == "escalation"]) == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_mend_holds_up_no_restart_and_is_over_when_the_service_is_up(
    make_world: Any, until: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    restart = {"command": ["restart-web"]}
    world = make_world(
        playbooks=["shipped"],
        services={"web": {"restart": restart, "paths": [{"path": str(out), "mode": "0700", "create": True}]}},
    )
    world.exporter.set("web", up=False)
    denied(world, out, Problem.MISSING_FILE)
    until(lambda: world.error().mended_at is not None)
    (mend,) = world.runs()
    assert (mend.outcome, mend.ended_at - mend.started_at < 2) == ("unverified", True)
    assert out.is_dir()

    world.fire()
    until(lambda: world.done == [("restart", "web")], within=3)

    until(lambda: [error.state for error in world.errors()] == ["recovered"] * 2)
    file_error = problems(world)["missing_file"]
    assert (file_error.recovered_by, file_error.attempts, world.notifier.told) == ("run", 1, [])


def test_a_run_that_had_nothing_to_do_with_it_made_no_end_of_it(
    make_world: Any, until: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    world = with_paths(make_world, {"path": str(out), "mode": "0750"})
    send(world, problem=Problem.NETWORK_TIMEOUT)
    denied(world, out)
    until(lambda: problems(world)["permission_denied"].state == "recovered")

    world.pass_time(QUIET)
    world.chores.end_quiet_events()

    until(lambda: problems(world)["network_timeout"].state == "recovered")
    assert problems(world)["network_timeout"].recovered_by == "itself"
    assert problems(world)["permission_denied"].recovered_by == "run"
