"""What happens now and then, each chore by itself."""

import logging
from typing import Any

import pytest

from remediator.alertmanager import AlertmanagerUnreachable
from remediator.chores import health_minutes
from remediator.signals import Status
from soulfra_monitor.problems import Problem

ALERT = {
    "status": "firing",
    "labels": {"alertname": "SoulfraServiceDown", "target": "web", "problem": "service_down"},
    "annotations": {},
    "fingerprint": "f1",
}


@pytest.fixture
def idle(make_world: Any) -> Any:
    return make_world(start=False)


def active(monkeypatch: pytest.MonkeyPatch, *alerts: dict[str, Any]) -> None:
    monkeypatch.setattr("remediator.alertmanager.active_alerts", lambda *_, **__: list(alerts))


def test_what_alertmanager_never_told_is_fetched_and_repaired(
    world: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    active(monkeypatch, ALERT)
    world.exporter.set("web", up=False)
    world.chores.reconcile()
    until(lambda: world.error().state == "recovered")
    assert world.done == [("restart", "web")]


def test_what_was_told_already_is_only_counted(idle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    active(monkeypatch, ALERT)
    for _ in range(3):
        idle.chores.reconcile()
    assert (idle.error().signals, len(idle.store.members(idle.error().id))) == (3, 1)


def test_an_absent_alertmanager_is_a_metric_and_ends_nothing(
    idle: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise AlertmanagerUnreachable("refused")

    active(monkeypatch, ALERT)
    idle.chores.reconcile()
    assert idle.count("soulfra_alertmanager_reachable") == 1
    monkeypatch.setattr("remediator.alertmanager.active_alerts", away)
    idle.chores.reconcile()
    assert idle.count("soulfra_alertmanager_reachable") == 0
    assert idle.error().open
    assert "nothing to reconcile with" in caplog.text


def test_an_empty_answer_of_alertmanager_resolves_nothing(idle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    idle.fire()
    active(monkeypatch)
    idle.chores.reconcile()
    assert idle.store.members(idle.error().id) == {"f-web": Status.FIRING}


@pytest.mark.parametrize(("enabled", "asks"), [(True, True), (False, False)])
def test_with_monitoring_disabled_nothing_is_fetched(
    make_world: Any, monkeypatch: pytest.MonkeyPatch, enabled: bool, asks: bool
) -> None:
    world = make_world(start=False, remediator={"enabled": enabled})
    active(monkeypatch, ALERT)
    for chore in world.chores._chores:
        world.chores._do_safely(chore)
    assert bool(world.errors()) is asks


def test_one_chore_that_fails_is_counted_and_hinders_no_other(
    idle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    idle.store.broken.set()
    for chore in idle.chores._chores:
        idle.chores._do_safely(chore)
    assert idle.count("soulfra_remediator_internal_errors_total", place="chores") >= 3
    idle.store.broken.clear()
    idle.chores.sample_health()
    assert idle.store.uptime(0)["web"] == 1.0


def test_uptime_counts_looks_with_a_verdict_only(idle: Any) -> None:
    idle.exporter.set("web", up=False)
    idle.exporter.set("mail", status="unknown")
    idle.chores.sample_health()
    idle.exporter.set("web", up=True)
    idle.chores.sample_health()
    idle.exporter.reachable = False
    idle.chores.sample_health()
    assert idle.store.uptime(0) == {"web": 0.5, "redis": 1.0, "bare": 1.0}
    assert idle.count("soulfra_exporter_reachable") == 0


def test_a_look_falls_into_its_minute() -> None:
    (minute,) = health_minutes({"services": {"a": {"status": "down"}, "b": {}}}, 119.9)
    assert (minute.target, minute.minute, minute.looks, minute.up) == ("a", 1, 1, 0)


def test_what_is_old_and_over_is_forgotten_and_what_is_open_stays(idle: Any) -> None:
    idle.fire("web")
    idle.fire("stranger")
    idle.offset += 40 * 86400
    idle.fire("mail")
    idle.chores.prune()
    assert {error.target for error in idle.errors()} == {"web", "stranger", "mail"}


def test_people_are_told_once_when_the_watchdog_falls_silent_and_once_when_it_is_back(idle: Any) -> None:
    idle.tools.watchdog.hear(idle.now())
    idle.chores.watch_pipeline()
    assert not idle.notifier.told

    idle.pass_time(181)
    idle.chores.watch_pipeline()
    idle.chores.watch_pipeline()
    assert [note.subject for note in idle.notifier.told] == ["Soulfra Monitor: the Watchdog is silent"]

    idle.tools.watchdog.hear(idle.now())
    idle.chores.watch_pipeline()
    assert [note.subject for note in idle.notifier.told][1:] == ["Soulfra Monitor: the Watchdog is back"]


def test_a_watchdog_that_was_never_heard_is_silent_after_the_same_time(idle: Any) -> None:
    assert not idle.tools.watchdog.silent(idle.now())
    idle.pass_time(181)
    assert idle.tools.watchdog.silent(idle.now())


def test_what_is_fetched_again_is_neither_told_nor_counted_as_a_notification(
    world: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    active(monkeypatch, ALERT)
    world.exporter.set("web", up=False)
    for _ in range(3):
        world.chores.reconcile()
    until(lambda: world.error().state == "recovered")
    world.chores.reconcile()  # it is over here, but not in Alertmanager yet
    world.settle()
    assert [kind for kind, _ in world.lines].count("alert") == 1
    assert world.count("soulfra_webhook_alerts_total", status="firing") == 0
    world.fire(fingerprint="f1")
    assert world.count("soulfra_webhook_alerts_total", status="firing") == 1


RATE = {
    "problem": Problem.ERROR_RATE,
    "labels": {"alertname": "Rate", "target": "web", "problem": "error_rate"},
}


def held(monkeypatch: pytest.MonkeyPatch, *fingerprints: str) -> None:
    monkeypatch.setattr("remediator.alertmanager.held_fingerprints", lambda *_, **__: frozenset(fingerprints))


def reconcile_for(world: Any, seconds: int) -> None:
    for _ in range(seconds // 15):
        world.chores.reconcile()
        world.pass_time(15)
    world.chores.reconcile()
    world.settle()


def test_an_alert_whose_end_was_never_told_ends_when_no_alertmanager_has_it_any_more(
    world: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    active(monkeypatch)
    held(monkeypatch)
    world.fire(**RATE)
    reconcile_for(world, 75)
    assert world.error().open
    reconcile_for(world, 30)
    until(lambda: not world.error().open)
    assert (world.error().state, world.error().recovered_by) == ("recovered", "itself")


def test_a_silenced_alert_and_one_that_is_forgotten_for_a_minute_have_not_ended(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    active(monkeypatch)
    world.fire(**RATE)
    for _ in range(3):
        held(monkeypatch, "f-web")
        reconcile_for(world, 60)
        held(monkeypatch)
        reconcile_for(world, 60)
    assert world.store.members(world.error().id) == {"f-web": Status.FIRING}


def test_nothing_ends_while_one_alertmanager_does_not_answer(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise AlertmanagerUnreachable("1 of 2 do not answer")

    active(monkeypatch)
    monkeypatch.setattr("remediator.alertmanager.held_fingerprints", away)
    world.fire(**RATE)
    reconcile_for(world, 300)
    assert world.store.members(world.error().id) == {"f-web": Status.FIRING}
    assert "no alert is taken to be over: 1 of 2" in caplog.text


def test_what_a_probe_can_disprove_does_not_end_by_silence(
    idle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    active(monkeypatch)
    held(monkeypatch)
    idle.fire()
    for _ in range(20):
        idle.chores.reconcile()
        idle.pass_time(15)
    assert idle.store.members(idle.error().id) == {"f-web": Status.FIRING}
