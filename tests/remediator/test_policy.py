"""Every reason to hold back, their order, and the arithmetic of limits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config import Service
from remediator.playbook import Budget, Playbook
from remediator.policy import (
    Answer,
    Health,
    Settings,
    Situation,
    attempts_allowed,
    backoff_seconds,
    budget_free_at,
    decide,
    disproved,
)
from remediator.run import Pause, Start
from remediator.signals import Error, Reason, Verdict
from soulfra_monitor.problems import Problem, Severity

NOW = 1_000_000.0

SICK = Health(reachable=True, ready=True, known=True, services_up=4, services_total=5)


def playbook(**changes: Any) -> Playbook:
    restart = {"restart": {"service": "{{ target }}"}}
    fields = {"name": "down", "match": ['target=~".+"'], "cooldown": "10s", "rungs": [{"steps": [restart]}]}
    return Playbook.model_validate({**fields, **changes})


def error(**changes: Any) -> Error:
    made = Error(
        id="SE_00000001",
        target="redis",
        problem=Problem.SERVICE_DOWN,
        severity=Severity.CRITICAL,
        message="down",
        first_seen=NOW - 5,
        last_seen=NOW,
    )
    return replace(made, **changes)


def start(**changes: Any) -> Start:
    made = Start(target="redis", playbook="down", started_at=NOW - 100, ended_at=NOW - 90)
    return replace(made, **changes)


def situation(**changes: Any) -> Situation:
    made = Situation(
        error=error(), now=NOW, health=SICK, playbook=playbook(), service=Service(), settings=Settings()
    )
    return replace(made, **changes)


def pause(**changes: Any) -> Pause:
    made = Pause(scope="everything", reason="release", owner="ann", since=NOW - 10)
    return replace(made, **changes)


def limits(**given_limits: Any) -> dict[str, Playbook]:
    return {"playbook": playbook(limits=given_limits)}


# In the order of asking. Each makes exactly one objection.
OBJECTIONS: dict[Reason, Mapping[str, Any]] = {
    Reason.MODE_OFF: {"settings": Settings(auto_recovery=False)},
    Reason.NO_PLAYBOOK: {"playbook": None},
    Reason.UNKNOWN_TARGET: {"service": None},
    Reason.STALE: {"health": Health(reachable=False, detail="refused")},
    Reason.WARMING_UP: {"health": replace(SICK, ready=False)},
    Reason.ALREADY_HEALTHY: {"health": replace(SICK, healthy=True)},
    Reason.TEMPLATE_ERROR: {"template_error": "rungs[0]: no such label"},
    Reason.ATTEMPTS: {"error": error(attempts=3)},
    Reason.PROBER_BLIND: {"health": replace(SICK, blind=True)},
    Reason.PAUSED: {"pauses": [pause()]},
    Reason.SILENCED: {"silenced": "ann: release"},
    Reason.DEPENDENCY_DOWN: {"health": replace(SICK, sick_dependencies=("postgres",))},
    Reason.LOCKED: {"history": [start(ended_at=None)]},
    Reason.COOLDOWN: {"history": [start(ended_at=NOW - 9.9)]},
    Reason.BUDGET: {"history": [start()], **limits(everywhere="1/1h")},
    Reason.AT_ONCE: {"history": [start(target="web", ended_at=None)], **limits(at_once=1)},
    Reason.MIN_HEALTHY: limits(min_healthy=5),
    Reason.SHADOW: {"playbook": playbook(mode="shadow")},
    Reason.APPROVAL_PENDING: {"playbook": playbook(mode="approve")},
    Reason.APPROVAL_REJECTED: {"playbook": playbook(mode="approve"), "error": error(rejected_by="ann")},
}
REFUSALS = {
    Reason.MODE_OFF,
    Reason.NO_PLAYBOOK,
    Reason.UNKNOWN_TARGET,
    Reason.ALREADY_HEALTHY,
    Reason.TEMPLATE_ERROR,
    Reason.ATTEMPTS,
    Reason.SHADOW,
    Reason.APPROVAL_REJECTED,
}
GIVEN_ELSEWHERE = {Reason.DUPLICATE, Reason.RESOLVED}  # by admit, not by the policy


def test_nothing_against_it_means_run() -> None:
    assert decide(situation()) == Answer(verdict=Verdict.RUN)


def test_the_table_has_every_reason_of_the_policy() -> None:
    assert set(OBJECTIONS) | GIVEN_ELSEWHERE == set(Reason)


@pytest.mark.parametrize("reason", OBJECTIONS)
def test_each_objection_is_named_and_says_when_to_look_again(reason: Reason) -> None:
    answer = decide(situation(**OBJECTIONS[reason]))
    assert answer.reason is reason
    assert answer.detail
    if reason in REFUSALS:
        assert (answer.verdict, answer.until) == (Verdict.REFUSED, None)
    else:
        assert answer.verdict is Verdict.DEFERRED
        assert answer.until is not None
        assert answer.until > NOW


PAIRS = [  # that change different inputs, so that they can be put together
    (first, second)
    for first, second in combinations(OBJECTIONS, 2)
    if not set(OBJECTIONS[first]) & set(OBJECTIONS[second])
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_objections_the_one_that_is_asked_first_is_given(first: Reason, second: Reason) -> None:
    assert decide(situation(**OBJECTIONS[first], **OBJECTIONS[second])).reason is first


# -- who insists --------------------------------------------------------------------------------------

BY_PERSON = {Reason.LOCKED, Reason.AT_ONCE, Reason.COOLDOWN, Reason.BUDGET, Reason.PAUSED, Reason.SHADOW}
BY_FORCE = {Reason.LOCKED, Reason.AT_ONCE}
ALWAYS = {Reason.NO_PLAYBOOK, Reason.UNKNOWN_TARGET, Reason.TEMPLATE_ERROR}


@pytest.mark.parametrize("reason", OBJECTIONS)
def test_a_person_skips_what_asks_for_a_person_and_nothing_that_limits(reason: Reason) -> None:
    held = decide(situation(by_person=True, **OBJECTIONS[reason])).reason is reason
    assert held is (reason in BY_PERSON | ALWAYS)


@pytest.mark.parametrize("reason", OBJECTIONS)
def test_force_skips_cooldown_budget_and_pause_but_never_locks_or_the_inventory(reason: Reason) -> None:
    held = decide(situation(by_person=True, forced=True, **OBJECTIONS[reason])).reason is reason
    assert held is (reason in BY_FORCE | ALWAYS)


def test_a_playbook_that_is_off_runs_by_force_only() -> None:
    off = {"playbook": playbook(mode=False)}
    assert decide(situation(**off)).reason is Reason.MODE_OFF
    assert decide(situation(by_person=True, **off)).reason is Reason.MODE_OFF
    assert decide(situation(by_person=True, forced=True, **off)).verdict is Verdict.RUN


# -- what a probe proves ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "healthy", "slow", "is_disproved"),
    [
        (Problem.SERVICE_DOWN, True, False, True),
        (Problem.SERVICE_DOWN, True, True, True),
        (Problem.SERVICE_DOWN, False, False, False),
        (Problem.SERVICE_TIMEOUT, True, False, True),
        (Problem.SERVICE_TIMEOUT, True, True, False),
        (Problem.SERVICE_TIMEOUT, False, False, False),
        (Problem.ERROR_RATE, True, False, False),
        (Problem.OTHER, True, False, False),
    ],
)
def test_a_healthy_probe_disproves_only_what_it_can_see(
    problem: Problem, healthy: bool, slow: bool, is_disproved: bool
) -> None:
    found = error(problem=problem)

    assert disproved(found, replace(SICK, healthy=healthy, slow=slow)) is is_disproved


def test_a_target_the_exporter_does_not_watch_is_not_down() -> None:
    answer = decide(situation(health=replace(SICK, known=False)))
    assert (answer.verdict, answer.reason) == (Verdict.DEFERRED, Reason.STALE)


# -- cooldown and backoff -----------------------------------------------------------------------------


def test_the_cooldown_counts_from_the_end_of_a_run() -> None:
    long_run = [start(started_at=NOW - 500, ended_at=NOW - 4)]
    assert decide(situation(history=long_run)).until == NOW + 6
    assert decide(situation(history=[start(ended_at=NOW - 10)])).verdict is Verdict.RUN


def test_the_cooldown_counts_from_the_last_end_on_this_target_by_any_playbook() -> None:
    history = [start(ended_at=NOW - 50), start(ended_at=NOW - 2, playbook="other"), start(ended_at=NOW - 30)]
    assert decide(situation(history=history)).until == NOW + 8
    assert decide(situation(history=[start(target="web", ended_at=NOW)])).verdict is Verdict.RUN


def test_a_mend_delays_no_restart_and_makes_another_one_worth_trying() -> None:
    mend = playbook(name="mend", rungs=[{"steps": [{"file": {"service": "web", "path": "/a"}}]}])
    known = {"down": playbook(), "mend": mend, "slow": playbook(name="slow")}
    mended = start(playbook="mend", ended_at=NOW - 1)
    restarted = start(playbook="slow", ended_at=NOW - 3)

    def verdict(history: list[Start], **changes: Any) -> Verdict:
        return decide(situation(history=history, playbooks=known, **changes)).verdict

    assert verdict([mended]) is Verdict.RUN
    assert verdict([restarted]) is Verdict.DEFERRED
    assert verdict([restarted, mended]) is Verdict.RUN
    assert verdict([mended, start(ended_at=NOW - 0.5)]) is Verdict.DEFERRED
    assert verdict([restarted], playbook=mend) is Verdict.RUN
    assert verdict([mended], playbook=mend) is Verdict.DEFERRED


def test_while_a_service_is_down_only_what_mends_files_goes_before_its_restart() -> None:
    mend = playbook(name="mend", rungs=[{"steps": [{"file": {"service": "web", "path": "/a"}}]}])

    held = decide(situation(outage="SE_00000002"))

    assert (held.verdict, held.reason) == (Verdict.DEFERRED, Reason.LOCKED)
    assert decide(situation(outage="SE_00000002", playbook=mend)).verdict is Verdict.RUN
    assert decide(situation(outage="SE_00000002", by_person=True)).verdict is Verdict.RUN


def test_backoff_and_cooldown_wait_for_the_later_of_the_two() -> None:
    recent = [start(ended_at=NOW - 4)]
    assert decide(situation(history=recent, error=error(not_before=NOW + 30))).until == NOW + 30
    assert decide(situation(history=recent, error=error(not_before=NOW + 1))).until == NOW + 6


def test_backoff_grows_by_its_factor_up_to_its_limit() -> None:
    rule = Settings(backoff=2, backoff_multiplier=3, backoff_limit=50)
    assert [backoff_seconds(rule, attempts) for attempts in range(6)] == [0, 2, 6, 18, 50, 50]


def test_backoff_has_its_limit_however_many_attempts_there_were() -> None:
    assert backoff_seconds(Settings(backoff_multiplier=10.0), 100_000) == 300.0


def test_a_playbooks_own_number_of_attempts_beats_the_global_one() -> None:
    assert attempts_allowed(playbook(), Settings(max_attempts=7)) == 7
    assert attempts_allowed(playbook(attempts=2), Settings(max_attempts=7)) == 2
    assert decide(situation(error=error(attempts=2), playbook=playbook(attempts=2))).reason is Reason.ATTEMPTS


# -- pauses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "changes"),
    [
        (True, {}),
        (True, {"scope": "redis"}),
        (False, {"scope": "web"}),
        (True, {"until": NOW + 0.1}),
        (False, {"until": NOW}),
    ],
)
def test_a_pause_holds_its_scope_for_its_time(held: bool, changes: dict[str, Any]) -> None:
    answer = decide(situation(pauses=[pause(**changes)]))
    assert (answer.reason is Reason.PAUSED) is held
    if held:
        assert "ann" in answer.detail
        assert "release" in answer.detail


# -- who else is up -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "up", "total", "runs"),
    [
        ("50%", 2, 4, True),
        ("50%", 1, 4, False),
        ("14%", 7, 50, True),
        ("7%", 7, 100, True),
        ("57%", 57, 100, True),
        ("57%", 56, 100, False),
        (0.5, 2, 4, True),
        (1, 1, 40, True),
        (1, 0, 40, False),
        (3, 3, 40, True),
        (3, 2, 40, False),
        ("50%", 0, 0, False),
        (0, 0, 4, True),
    ],
)
def test_enough_services_must_be_up(limit: object, up: int, total: int, runs: bool) -> None:
    health = replace(SICK, services_up=up, services_total=total)
    answer = decide(situation(health=health, **limits(min_healthy=limit)))
    assert (answer.verdict is Verdict.RUN) is runs


@given(st.integers(1, 99), st.integers(1, 400), st.data())
def test_a_share_is_met_exactly_from_that_share_on(percent: int, total: int, data: st.DataObject) -> None:
    up = data.draw(st.integers(0, total))
    health = replace(SICK, services_up=up, services_total=total)
    answer = decide(situation(health=health, **limits(min_healthy=f"{percent}%")))
    assert (answer.verdict is Verdict.RUN) is (100 * up >= percent * total)


# -- approval -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, Reason.APPROVAL_PENDING),
        ({"approved_until": NOW + 1}, None),
        ({"approved_until": NOW}, Reason.APPROVAL_PENDING),
        ({"approved_until": NOW - 1, "rejected_by": "bob"}, Reason.APPROVAL_REJECTED),
        ({"approved_until": NOW + 1, "rejected_by": "bob"}, None),
    ],
)
def test_an_approval_holds_for_its_time(changes: dict[str, Any], reason: Reason | None) -> None:
    answer = decide(situation(playbook=playbook(mode="approve"), error=error(**changes)))
    assert answer.reason is reason


def test_a_service_may_ask_before_its_restart_and_before_nothing_else() -> None:
    asks = Service(auto_restart=False)
    telling = playbook(rungs=[{"steps": [{"notify": {"channels": ["log"], "message": "hi"}}]}])
    assert decide(situation(service=asks)).reason is Reason.APPROVAL_PENDING
    assert decide(situation(service=asks, playbook=telling)).verdict is Verdict.RUN
    assert decide(situation(service=asks, by_person=True)).verdict is Verdict.RUN


# -- budgets ------------------------------------------------------------------------------------------


def test_each_budget_counts_its_own_runs() -> None:
    history = [start(), start(target="web"), start(target="web", playbook="other")]
    counts = {"per_target": 1, "per_playbook": 2, "everywhere": 3}
    for name, count in counts.items():
        full, free = limits(**{name: f"{count}/1h"}), limits(**{name: f"{count + 1}/1h"})
        assert decide(situation(history=history, **full)).reason is Reason.BUDGET
        assert decide(situation(history=history, **free)).verdict is Verdict.RUN


def test_a_budget_says_when_there_is_room_again() -> None:
    history = [start(started_at=NOW - 3000), start(started_at=NOW - 1000), start(started_at=NOW - 500)]
    two_an_hour = limits(per_target="2/1h")
    answer = decide(situation(history=history, **two_an_hour))
    assert answer.until == NOW - 1000 + 3600  # the oldest leaves first, and one more must


def test_of_several_windows_the_one_that_frees_last_decides() -> None:
    history = [start(started_at=NOW - 50), start(started_at=NOW - 100)]
    answer = decide(situation(history=history, **limits(per_target=["2/10m", "2/1d"])))
    assert answer.until == NOW - 100 + 86400


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50)), min_size=1, max_size=3),
    st.lists(st.integers(0, 12), max_size=60),
)
def test_never_more_runs_than_the_budget_in_any_window(
    rules: Sequence[tuple[int, int]], waits: Sequence[int]
) -> None:
    """Brute force: asked at every moment, run whenever allowed; then look at every window there is."""
    budgets = [Budget(count=count, window=float(window)) for count, window in rules]
    starts: list[float] = []
    now = 0.0
    for wait in waits:
        now += wait
        until = budget_free_at(budgets, starts, now)
        allowed = all(
            sum(now - budget.window < begun for begun in starts) < budget.count for budget in budgets
        )
        assert (until is None) is allowed
        if until is None:
            starts.append(now)
        else:
            assert until > now
            if all(budget.count for budget in budgets):
                assert budget_free_at(budgets, starts, until) is None
                assert budget_free_at(budgets, starts, until - 0.5) is not None
    for budget in budgets:
        for begun in starts:
            assert sum(begun <= other < begun + budget.window for other in starts) <= budget.count
