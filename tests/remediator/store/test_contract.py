"""What every store promises, verb by verb."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from remediator.run import Outcome, Pause, Run, Start, Step, StepState, Trigger
from remediator.signals import (
    MEMBERS_LIMIT,
    OTHERS,
    OTHERS_FINGERPRINT,
    SUBJECTS_LIMIT,
    Admission,
    Decision,
    Error,
    ErrorState,
    Reason,
    Signal,
    Source,
    Status,
    Verdict,
    admit,
)
from remediator.store import (
    SENDERS_KEPT,
    SINGLES_KEPT,
    BeatKind,
    DailySummary,
    ErrorQuery,
    HealthMinute,
    RunQuery,
    Store,
    StoreError,
    open_store,
)
from soulfra_monitor.problems import Problem, Severity

DAY = 86400.0

Result = TypeVar("Result")


def signal(**changes: Any) -> Signal:
    made = Signal(
        source=Source.ALERTMANAGER,
        fingerprint="f1",
        status=Status.FIRING,
        target="trust-engine",
        problem=Problem.SERVICE_DOWN,
        severity=Severity.HIGH,
        message="down",
        received_at=1000.0,
        labels={"alertname": "SoulfraServiceDown"},
        annotations={"summary": "it is down"},
    )
    return replace(made, **changes)


def error(**changes: Any) -> Error:
    made = Error(
        id="SE_00000001",
        target="trust-engine",
        problem=Problem.SERVICE_DOWN,
        severity=Severity.HIGH,
        message="down",
        first_seen=1000.0,
        last_seen=1000.0,
    )
    return replace(made, **changes)


def closed(**changes: Any) -> Error:
    return error(open=False, state=ErrorState.RECOVERED, recovered_at=1010.0, closed_at=1010.0, **changes)


def run(**changes: Any) -> Run:
    made = Run(
        id="R_000000000001",
        target="trust-engine",
        playbook="service-down",
        trigger=Trigger.ALERT,
        started_at=1000.0,
        owner="a",
        boot="a1",
        token="t1",
        lease_until=1030.0,
    )
    return replace(made, **changes)


def decision(**changes: Any) -> Decision:
    made = Decision(
        at=1000.0,
        error_id=None,
        target="trust-engine",
        cause="timer",
        verdict=Verdict.DEFERRED,
        reason=Reason.COOLDOWN,
    )
    return replace(made, **changes)


def accept_one(store: Store, **changes: Any) -> Admission:
    (admission,) = store.accept([signal(**changes)], admit)
    return admission


def accepted_error(store: Store, **changes: Any) -> Error:
    found = accept_one(store, **changes).error
    assert found is not None
    return found


def begun(store: Store, **changes: Any) -> Run:
    made = run(**changes)
    assert store.begin_run(made, None)
    return made


# accept


def test_a_first_signal_opens_an_error(store: Store) -> None:
    admission = accept_one(store)

    assert admission.new
    assert admission.error is not None
    assert store.get_error(admission.error.id) == admission.error
    assert admission.error.labels == {"alertname": "SoulfraServiceDown"}
    assert store.members(admission.error.id) == {"f1": Status.FIRING}


def test_the_labels_of_firing_members_are_kept_apart(store: Store) -> None:
    error = accepted_error(store)
    store.accept([signal(fingerprint="f2", labels={"alertname": "Other"}, received_at=1001.0)], admit)
    store.accept([signal(fingerprint="f3", labels={"alertname": "Third"}, received_at=1002.0)], admit)
    store.accept([signal(fingerprint="f3", status=Status.RESOLVED, received_at=1003.0)], admit)

    assert store.member_labels(error.id) == [{"alertname": "SoulfraServiceDown"}, {"alertname": "Other"}]


def test_the_same_signal_again_is_counted_not_opened(store: Store) -> None:
    first = accepted_error(store)

    again = accept_one(store, received_at=1001.0)

    assert again.error is not None
    assert (again.new, again.error.id, again.error.signals) == (False, first.id, 2)
    assert again.error.version == first.version + 1
    assert again.decision is not None
    assert again.decision.reason is Reason.DUPLICATE


def test_signals_of_one_call_see_each_other(store: Store) -> None:
    signals = [signal(), signal(fingerprint="f2"), signal(), signal(target="ai-router")]

    admissions = store.accept(signals, admit)

    assert [a.new for a in admissions] == [True, False, False, True]
    found = store.find_errors(ErrorQuery(target="trust-engine"))
    assert [e.signals for e in found] == [3]
    assert found[0] == admissions[2].error
    assert set(store.members(found[0].id)) == {"f1", "f2"}


def test_ten_thousand_signals_are_taken_whole(store: Store) -> None:
    signals = [signal(target=f"t{n % 7000}", fingerprint=f"f{n}") for n in range(10_000)]

    admissions = store.accept(signals, admit)

    assert [a.signal for a in admissions] == signals
    errors = store.find_errors(ErrorQuery(limit=20_000))
    assert len(errors) == 7000
    assert sum(e.signals for e in errors) == 10_000
    assert len(store.decisions(limit=20_000)) == 3000


def test_admit_is_told_the_members_last_status(store: Store) -> None:
    told: list[Status | None] = []

    def watch(signal: Signal, latest: Error | None, member: Status | None, new_id: str) -> Admission:
        told.append(member)
        return admit(signal, latest, member, new_id)

    store.accept([signal(), signal(status=Status.RESOLVED)], watch)
    store.accept([signal()], watch)

    assert told == [None, Status.FIRING, Status.RESOLVED]


def test_a_resolved_signal_without_an_error_is_kept_as_a_decision(store: Store) -> None:
    admission = accept_one(store, status=Status.RESOLVED)

    assert admission.error is None
    (kept,) = store.decisions()
    assert kept == admission.decision
    assert (kept.reason, kept.error_id) == (Reason.STALE, None)


def test_a_signal_for_a_closed_error_leaves_the_version_alone_when_nothing_changes(store: Store) -> None:
    store.add_error(closed())

    accept_one(store, status=Status.RESOLVED, received_at=1011.0)

    stored = store.get_error("SE_00000001")
    assert stored is not None
    assert stored.version == 0
    assert store.members(stored.id) == {"f1": Status.RESOLVED}


def test_ids_are_of_the_promised_form(store: Store) -> None:
    found = accepted_error(store)

    assert len(found.id) == 11
    assert int(found.id.removeprefix("SE_"), 16) >= 0


def test_a_taken_id_is_drawn_again(store: Store) -> None:
    taken = accepted_error(store).id
    offered: list[str] = []

    def unlucky(signal: Signal, latest: Error | None, member: Status | None, new_id: str) -> Admission:
        offered.append(taken if not offered else new_id)
        return admit(signal, latest, member, offered[-1])

    (admission,) = store.accept([signal(target="ai-router")], unlucky)

    assert len(offered) == 2
    assert admission.error is not None
    assert admission.error.id == offered[1] != taken


def test_when_one_signal_fails_none_is_taken(store: Store) -> None:
    def broken(signal: Signal, latest: Error | None, member: Status | None, new_id: str) -> Admission:
        if signal.target == "broken":
            raise RuntimeError("no")
        return admit(signal, latest, member, new_id)

    with pytest.raises(RuntimeError):
        store.accept([signal(), signal(target="broken")], broken)

    assert store.find_errors(ErrorQuery()) == []
    assert store.accept([signal()], admit)[0].new


def test_text_that_cannot_be_encoded_is_a_store_error(store: Store) -> None:
    with pytest.raises(StoreError):
        accept_one(store, target="half \ud800 a character")

    assert store.count_errors(ErrorQuery())["pending"] == 0


def test_hostile_text_comes_back_as_it_went_in(store: Store) -> None:
    text = "'; DROP TABLE errors; -- {{ 7*7 }} $(reboot) \x00 \u202e ü"

    found = accepted_error(store, target=text, message=text, labels={text: text})

    assert store.latest_error(text, Problem.SERVICE_DOWN) == found
    assert (found.target, found.message, found.labels) == (text, text, {text: text})


# errors


def test_an_error_comes_back_whole(store: Store) -> None:
    full = error(
        state=ErrorState.FAILED,
        open=False,
        signals=7,
        attempts=3,
        relapses=1,
        subject="/srv/out",
        fingerprint="v1.0011223344556677",
        recovered_at=1.5,
        recovered_by="run",
        closed_at=2.5,
        escalated_at=3.5,
        escalation_sent=True,
        held_reason=Reason.BUDGET,
        held_since=4.5,
        not_before=5.5,
        check_at=6.5,
        approved_by="somebody",
        approved_until=7.5,
        rejected_by="another",
        labels={"a": "b"},
        annotations={"c": "d"},
        version=4,
    )

    store.add_error(full)

    assert store.get_error(full.id) == full


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.get_error("SE_ffffffff") is None
    assert store.latest_error("nobody", Problem.OTHER) is None
    assert store.get_run("R_none") is None
    assert store.next_check() is None
    assert store.members("SE_ffffffff") == {}


def test_a_stale_version_is_refused(store: Store) -> None:
    store.add_error(error())

    assert store.update_error(error(attempts=1))
    assert not store.update_error(error(attempts=2))

    stored = store.get_error("SE_00000001")
    assert stored is not None
    assert (stored.attempts, stored.version) == (1, 1)


def test_of_two_writers_of_one_version_one_wins(address: str, store: Store) -> None:
    store.add_error(error())
    won = _together(8, lambda n: open_and(address, lambda own: own.update_error(error(attempts=n))))

    assert sorted(won) == [False] * 7 + [True]


def test_a_second_open_error_of_target_and_problem_is_refused(store: Store) -> None:
    store.add_error(error())
    store.add_error(closed(id="SE_00000002"))

    with pytest.raises(StoreError):
        store.add_error(error(id="SE_00000003"))

    assert not store.update_error(error(id="SE_00000002"))
    assert store.count_errors(ErrorQuery(open=True))["pending"] == 1


def test_an_id_is_used_once(store: Store) -> None:
    store.add_error(error())

    with pytest.raises(StoreError):
        store.add_error(error(target="ai-router"))


def test_the_latest_error_is_the_open_one_else_the_last_begun(store: Store) -> None:
    store.add_error(closed(id="SE_00000001"))
    store.add_error(closed(id="SE_00000002", first_seen=1.0))
    latest = store.latest_error("trust-engine", Problem.SERVICE_DOWN)
    assert latest is not None
    assert latest.id == "SE_00000002"

    assert store.update_error(error(id="SE_00000001"))

    latest = store.latest_error("trust-engine", Problem.SERVICE_DOWN)
    assert latest is not None
    assert latest.id == "SE_00000001"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (ErrorQuery(), "dcba"),
        (ErrorQuery(since=3.0), "dc"),
        (ErrorQuery(target="t1"), "ca"),
        (ErrorQuery(problem="disk_full"), "b"),
        (ErrorQuery(severity="low"), "d"),
        (ErrorQuery(state="recovered"), "c"),
        (ErrorQuery(open=True), "dba"),
        (ErrorQuery(open=False), "c"),
        (ErrorQuery(limit=2), "dc"),
        (ErrorQuery(limit=0), ""),
        (ErrorQuery(before=(3.0, "c")), "ba"),
        (ErrorQuery(target="t2", before=(4.0, "d")), "b"),
    ],
)
def test_errors_are_found_by_what_is_asked(store: Store, query: ErrorQuery, ids: str) -> None:
    store.add_error(error(id="a", target="t1", last_seen=1.0))
    store.add_error(error(id="b", target="t2", last_seen=2.0, problem=Problem.DISK_FULL))
    store.add_error(closed(id="c", target="t1", last_seen=3.0))
    store.add_error(error(id="d", target="t2", last_seen=4.0, severity=Severity.LOW))

    assert [e.id for e in store.find_errors(query)] == list(ids)


def test_pages_meet_without_gap_or_repeat_at_equal_times(store: Store) -> None:
    for n in range(7):
        store.add_error(error(id=f"SE_{n:08x}", target=f"t{n}", last_seen=5.0))
    seen: list[str] = []
    before = None

    while page := store.find_errors(ErrorQuery(limit=3, before=before)):
        seen += [e.id for e in page]
        before = (page[-1].last_seen, page[-1].id)

    assert seen == [f"SE_{n:08x}" for n in reversed(range(7))]


def test_counts_ignore_page_and_limit_and_name_every_state(store: Store) -> None:
    store.add_error(error(id="a", target="t1"))
    store.add_error(error(id="b", target="t2"))
    store.add_error(closed(id="c", target="t3"))

    counted = store.count_errors(ErrorQuery(limit=1, before=(0.0, "")))

    assert counted == {"pending": 2, "recovered": 1, "failed": 0}
    assert store.count_errors(ErrorQuery(target="t3"))["pending"] == 0


def test_due_errors_come_earliest_first_open_or_closed(store: Store) -> None:
    store.add_error(error(id="a", target="t1", check_at=30.0))
    store.add_error(closed(id="b", target="t2", check_at=10.0))
    store.add_error(error(id="c", target="t3", check_at=20.0))
    store.add_error(error(id="d", target="t4"))

    assert [e.id for e in store.due_errors(20.0, 10)] == ["b", "c"]
    assert [e.id for e in store.due_errors(99.0, 1)] == ["b"]
    assert store.next_check() == 10.0


# decisions


def test_a_decision_comes_back_whole(store: Store) -> None:
    store.add_error(error())

    kept = store.record(
        decision(
            error_id="SE_00000001", detail="soon", playbook="service-down", run_id="R_1", until=9.0, times=2
        )
    )

    assert kept.id is not None
    assert kept.last_at == 1000.0
    assert store.decisions() == [kept]


def test_the_same_answer_again_raises_its_count(store: Store) -> None:
    first = store.record(decision(until=1010.0, detail="10 s"))

    second = store.record(decision(at=1005.0, until=1020.0, detail="15 s"))

    assert second == replace(first, times=2, last_at=1005.0, until=1020.0, detail="15 s")
    assert store.decisions() == [second]


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": Reason.BUDGET},
        {"verdict": Verdict.RUN, "reason": None},
        {"run_id": "R_2"},
        {"cause": "person"},
        {"target": "ai-router"},
        {"error_id": "SE_00000001"},
    ],
)
def test_another_answer_is_a_row_of_its_own(store: Store, changes: dict[str, Any]) -> None:
    store.add_error(error())
    store.record(decision())

    store.record(decision(**changes))

    assert [d.times for d in store.decisions()] == [1, 1]


def test_an_answer_that_came_between_ends_the_count(store: Store) -> None:
    for reason in (Reason.COOLDOWN, Reason.BUDGET, Reason.COOLDOWN):
        store.record(decision(reason=reason))

    assert [d.reason for d in store.decisions()] == [Reason.COOLDOWN, Reason.BUDGET, Reason.COOLDOWN]


def test_decisions_are_found_newest_first(store: Store) -> None:
    store.add_error(error())
    store.record(decision(at=1.0, cause="a"))
    store.record(decision(at=2.0, cause="b", error_id="SE_00000001"))
    store.record(decision(at=3.0, cause="c"))
    store.record(decision(at=4.0, cause="a"))

    assert [d.cause for d in store.decisions()] == ["a", "c", "b"]
    assert [d.cause for d in store.decisions(since=3.0)] == ["a", "c"]
    assert [d.cause for d in store.decisions(error_id="SE_00000001")] == ["b"]
    assert [d.cause for d in store.decisions(limit=1)] == ["a"]


# runs and leases


def test_a_run_comes_back_whole(store: Store) -> None:
    store.add_error(error())
    full = run(
        error_id="SE_00000001",
        trigger=Trigger.PERSON,
        requested_by="somebody",
        rung=1,
        rungs_tried=2,
        detail="why",
        evidence={"log": ["a", {"b": 1}]},
        timings={"decided": 1.25},
        plan=({"steps": [{"restart": {"service": "x"}}]}, {"steps": []}),
    )

    assert store.begin_run(full, None)

    assert store.get_run(full.id) == full


def test_a_run_claims_its_target_and_writes_its_error(store: Store) -> None:
    store.add_error(error())

    assert store.begin_run(run(error_id="SE_00000001"), error(attempts=1))

    stored = store.get_error("SE_00000001")
    assert stored is not None
    assert (stored.attempts, stored.version) == (1, 1)


def test_a_second_run_on_a_target_is_refused_and_writes_nothing(store: Store) -> None:
    store.add_error(error())
    begun(store)

    assert not store.begin_run(run(id="R_2", token="t2", started_at=1030.0), error(attempts=1))

    assert store.get_run("R_2") is None
    stored = store.get_error("SE_00000001")
    assert stored is not None
    assert stored.version == 0


def test_targets_do_not_hold_each_other(store: Store) -> None:
    begun(store)

    begun(store, id="R_2", target="ai-router")


def test_a_run_for_a_stale_error_is_refused_and_claims_nothing(store: Store) -> None:
    stale = accepted_error(store)
    accept_one(store)

    assert not store.begin_run(run(), stale)

    assert store.find_runs(RunQuery()) == []
    begun(store)


def test_of_two_claimers_of_a_target_exactly_one_wins(address: str, store: Store) -> None:
    won = _together(
        8,
        lambda n: open_and(address, lambda own: own.begin_run(run(id=f"R_{n}", token=f"t{n}"), None)),
    )

    assert sorted(won) == [False] * 7 + [True]
    assert len(store.find_runs(RunQuery())) == 1


def test_a_lease_that_is_over_is_taken_and_the_old_run_is_interrupted(store: Store) -> None:
    store.add_error(error())
    old = begun(store, error_id="SE_00000001")

    assert store.begin_run(run(id="R_2", token="t2", started_at=1031.0, lease_until=1061.0), None)

    stored = store.get_run(old.id)
    assert stored is not None
    assert (stored.outcome, stored.ended_at) == (Outcome.INTERRUPTED, 1031.0)
    assert [e.id for e in store.due_errors(1031.0, 10)] == ["SE_00000001"]
    assert not store.renew(old, 2000.0)
    assert not store.save_run(old)
    assert not store.end_run(replace(old, outcome=Outcome.RECOVERED, ended_at=1032.0), None)
    assert [r.id for r in store.find_runs(RunQuery(running=True))] == ["R_2"]


def test_taking_over_leaves_the_callers_error_to_the_caller(store: Store) -> None:
    store.add_error(error())
    begun(store, error_id="SE_00000001")

    assert store.begin_run(run(id="R_2", token="t2", started_at=1031.0), error(attempts=2))

    stored = store.get_error("SE_00000001")
    assert stored is not None
    assert (stored.attempts, stored.version, stored.check_at) == (2, 1, None)


def test_a_renewed_lease_holds_longer(store: Store) -> None:
    mine = begun(store)

    assert store.renew(mine, 1060.0)

    assert not store.begin_run(run(id="R_2", token="t2", started_at=1031.0), None)
    stored = store.get_run(mine.id)
    assert stored is not None
    assert stored.lease_until == 1060.0
    assert not store.renew(replace(mine, token="other"), 1090.0)


def test_progress_is_saved_without_shortening_the_lease(store: Store) -> None:
    mine = begun(store)
    store.renew(mine, 1060.0)

    assert store.save_run(replace(mine, rung=1, rungs_tried=1, evidence={"a": 1}, timings={"acted": 2.0}))

    stored = store.get_run(mine.id)
    assert stored is not None
    assert (stored.rung, stored.evidence, stored.timings) == (1, {"a": 1}, {"acted": 2.0})
    assert (stored.lease_until, stored.outcome) == (1060.0, None)
    assert not store.save_run(replace(mine, token="other"))


def test_an_ended_run_frees_its_target(store: Store) -> None:
    store.add_error(error())
    mine = begun(store, error_id="SE_00000001")
    ended = replace(mine, outcome=Outcome.RECOVERED, ended_at=1005.0, rungs_tried=1)

    assert store.end_run(ended, closed())

    assert store.get_run(mine.id) == ended
    stored = store.get_error("SE_00000001")
    assert stored is not None
    assert stored.state is ErrorState.RECOVERED
    begun(store, id="R_2", token="t2", started_at=1006.0)


def test_an_end_with_a_stale_error_is_refused_and_keeps_the_lease(store: Store) -> None:
    stale = accepted_error(store)
    mine = begun(store, error_id=stale.id)
    accept_one(store)
    ended = replace(mine, outcome=Outcome.RECOVERED, ended_at=1005.0)

    assert not store.end_run(ended, replace(stale, open=False))

    assert store.renew(mine, 1060.0)
    fresh = store.get_error(stale.id)
    assert fresh is not None
    assert fresh.open
    assert store.end_run(ended, replace(fresh, open=False))


def test_a_run_ends_once(store: Store) -> None:
    ended = replace(begun(store), outcome=Outcome.FAILED, ended_at=1005.0)
    assert store.end_run(ended, None)

    assert not store.end_run(replace(ended, outcome=Outcome.RECOVERED), None)
    assert not store.renew(ended, 2000.0)

    assert store.get_run(ended.id) == ended


def test_a_run_without_outcome_does_not_end(store: Store) -> None:
    mine = begun(store)

    with pytest.raises(ValueError, match="outcome"):
        store.end_run(mine, None)


def test_a_shadow_claims_nothing_and_counts_nowhere(store: Store) -> None:
    store.add_shadow(run(id="R_shadow"))

    stored = store.get_run("R_shadow")
    assert stored is not None
    assert stored.outcome is Outcome.SHADOWED
    assert store.starts(0.0) == []
    assert store.orphans("a", "a2", 9999.0) == []
    begun(store)


def test_steps_are_written_and_overwritten_in_order(store: Store) -> None:
    mine = begun(store)
    second = Step(
        run_id=mine.id,
        number=2,
        rung=0,
        action="http",
        args={"url": "x"},
        state=StepState.STARTED,
        started_at=2.0,
    )
    first = replace(second, number=1, action="restart", args={"service": ["a"]})

    store.journal(second)
    store.journal(first)
    done = replace(second, state=StepState.DONE, ended_at=3.0, attempt=2, result="status 200")
    store.journal(done)

    assert store.steps(mine.id) == [first, done]


def test_a_step_of_no_run_is_a_store_error(store: Store) -> None:
    step = Step(
        run_id="R_none",
        number=1,
        rung=0,
        action="http",
        args={},
        state=StepState.STARTED,
        started_at=1.0,
    )
    with pytest.raises(StoreError):
        store.journal(step)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (RunQuery(), "cba"),
        (RunQuery(since=2.0), "cb"),
        (RunQuery(target="t1"), "a"),
        (RunQuery(error_id="SE_00000001"), "b"),
        (RunQuery(outcome="failed"), "a"),
        (RunQuery(trigger="alert"), "cba"),
        (RunQuery(trigger="person"), ""),
        (RunQuery(running=True), "cb"),
        (RunQuery(running=False), "a"),
        (RunQuery(limit=1), "c"),
    ],
)
def test_runs_are_found_by_what_is_asked(store: Store, query: RunQuery, ids: str) -> None:
    store.add_error(error())
    mine = begun(store, id="a", target="t1", started_at=1.0)
    store.end_run(replace(mine, outcome=Outcome.FAILED, ended_at=1.5), None)
    begun(store, id="b", target="t2", started_at=2.0, error_id="SE_00000001")
    begun(store, id="c", target="t3", started_at=3.0)

    assert [r.id for r in store.find_runs(query)] == list(ids)
    assert store.count_runs(query) == (3 if query.limit == 1 else len(ids))


def test_runs_are_told_apart_by_what_made_them_begin(store: Store) -> None:
    begun(store, id="alert", target="t1")
    begun(store, id="person", target="t2", trigger=Trigger.PERSON)

    assert [r.id for r in store.find_runs(RunQuery(trigger=Trigger.PERSON))] == ["person"]
    assert store.count_runs(RunQuery(trigger=Trigger.ALERT)) == 1


def test_orphans_are_of_an_earlier_life_or_of_a_lease_that_is_over(store: Store) -> None:
    begun(store, id="mine", target="t1", owner="a", boot="a2")
    begun(store, id="earlier", target="t2", owner="a", boot="a1")
    begun(store, id="alive", target="t3", owner="b", boot="b1")
    begun(store, id="over", target="t4", owner="b", boot="b1", lease_until=1001.0)

    assert {r.id for r in store.orphans("a", "a2", 1002.0)} == {"earlier", "over"}


def test_an_orphan_is_adopted_once(store: Store) -> None:
    orphan = begun(store)

    adopted = store.adopt(orphan, "t2", "a2", 1060.0, "a")

    assert adopted == store.get_run(orphan.id)
    assert adopted is not None
    assert (adopted.token, adopted.boot, adopted.lease_until) == ("t2", "a2", 1060.0)
    assert store.adopt(orphan, "t3", "a3", 1090.0, "a") is None
    assert not store.save_run(orphan)
    assert store.end_run(replace(adopted, outcome=Outcome.INTERRUPTED, ended_at=1040.0), None)


def test_of_many_adopters_exactly_one_wins(address: str, store: Store) -> None:
    orphan = begun(store)

    won = _together(
        6, lambda n: open_and(address, lambda own: own.adopt(orphan, f"n{n}", "b", 1060.0, "b") is not None)
    )

    assert won.count(True) == 1


def test_a_run_whose_owner_renewed_it_is_not_adopted(store: Store) -> None:
    seen = begun(store)
    store.renew(seen, 1060.0)

    assert store.adopt(seen, "t2", "b1", 1090.0, "b") is None


def test_starts_are_the_runs_that_limits_count(store: Store) -> None:
    for name, started, ended in (("old", 1.0, 2.0), ("ended-since", 1.0, 11.0), ("since", 10.0, 12.0)):
        mine = begun(store, id=name, target=name, started_at=started)
        assert store.end_run(replace(mine, outcome=Outcome.FAILED, ended_at=ended), None)
    begun(store, id="running", target="running", started_at=1.0)

    assert {s.target for s in store.starts(10.0)} == {"ended-since", "since", "running"}
    assert store.starts(11.5) == [
        Start(target="running", playbook="service-down", started_at=1.0, ended_at=None),
        Start(target="since", playbook="service-down", started_at=10.0, ended_at=12.0),
    ]


# pauses and health


def test_a_pause_holds_until_it_is_over_or_ended(store: Store) -> None:
    forever = store.add_pause(Pause(scope="everything", reason="move", owner="somebody", since=1.0))
    short = store.add_pause(Pause(scope="t1", reason="test", owner="somebody", since=1.0, until=5.0))

    assert forever.id != short.id
    assert store.pauses(4.9) == [forever, short]
    assert store.pauses(5.0) == [forever]
    assert store.end_pauses("t1", 6.0) == 0
    assert store.end_pauses("everything", 6.0) == 1
    assert store.pauses(6.0) == []


def test_ending_a_pause_leaves_other_scopes_alone(store: Store) -> None:
    store.add_pause(Pause(scope="t1", reason="x", owner="o", since=1.0))
    kept = store.add_pause(Pause(scope="t2", reason="x", owner="o", since=1.0))

    assert store.end_pauses("t1", 2.0) == 1

    assert store.pauses(2.0) == [kept]


def test_uptime_is_the_share_of_looks_that_found_it_up(store: Store) -> None:
    store.add_health([HealthMinute(target="t1", minute=9, looks=12, up=0)])
    store.add_health([HealthMinute(target="t1", minute=10, looks=6, up=6)])
    store.add_health(
        [
            HealthMinute(target="t1", minute=10, looks=6, up=3),
            HealthMinute(target="t2", minute=10, looks=5, up=0),
            HealthMinute(target="t3", minute=10, looks=0, up=0),
        ]
    )

    assert store.uptime(10) == {"t1": 0.75, "t2": 0.0}


# keeping house


def test_old_closed_errors_become_daily_summaries(store: Store) -> None:
    store.add_error(closed(id="a", first_seen=1000.0))
    store.add_error(closed(id="b", first_seen=990.0))
    store.add_error(error(id="c", open=False, state=ErrorState.FAILED, closed_at=1020.0))
    store.add_error(closed(id="d", target="ai-router", first_seen=DAY + 1.0, last_seen=DAY + 1.0))

    gone = store.prune(2 * DAY, 0.0)

    assert gone["errors"] == 4
    assert store.find_errors(ErrorQuery()) == []
    first, second = store.summaries(0.0)
    assert first == DailySummary(
        day="1970-01-01",
        target="trust-engine",
        problem=Problem.SERVICE_DOWN,
        severity=Severity.HIGH,
        count=3,
        recovered=2,
        failed=1,
        recovery_seconds=30.0,
    )
    assert (second.day, second.target, second.recovery_seconds) == ("1970-01-02", "ai-router", 0.0)
    assert store.summaries(DAY + 5.0) == [second]


def test_a_later_prune_adds_to_the_same_day(store: Store) -> None:
    for number in (1, 2):
        store.add_error(closed(id=f"SE_{number:08x}"))
        store.prune(2 * DAY, 0.0)

    assert [s.count for s in store.summaries(0.0)] == [2]


def test_with_a_pruned_error_goes_all_that_is_its_own(store: Store) -> None:
    found = accepted_error(store)
    mine = begun(store, error_id=found.id)
    store.journal(
        Step(
            run_id=mine.id,
            number=1,
            rung=0,
            action="wait",
            args={},
            state=StepState.DONE,
            started_at=1.0,
        )
    )
    store.record(decision(error_id=found.id, at=5 * DAY))
    store.end_run(
        replace(mine, outcome=Outcome.RECOVERED, ended_at=5 * DAY),
        replace(found, open=False, state=ErrorState.RECOVERED, recovered_at=1010.0),
    )

    store.prune(2 * DAY, 0.0)

    assert store.get_error(found.id) is None
    assert store.members(found.id) == {}
    assert store.get_run(mine.id) is None
    assert store.steps(mine.id) == []
    assert store.decisions() == []


def test_open_errors_and_those_with_a_running_run_stay(store: Store) -> None:
    store.add_error(error(id="open"))
    store.add_error(closed(id="busy", target="ai-router"))
    begun(store, target="ai-router", error_id="busy")

    store.prune(100 * DAY, 0.0)

    assert {e.id for e in store.find_errors(ErrorQuery())} == {"open", "busy"}
    assert store.summaries(0.0) == []


def test_what_has_no_error_goes_by_its_own_age(store: Store) -> None:
    store.record(decision(at=1.0, cause="old"))
    store.record(decision(at=3 * DAY, cause="new"))
    for name, ended in (("old", 10.0), ("new", 3 * DAY)):
        mine = begun(store, id=name, target=name, started_at=1.0)
        store.end_run(replace(mine, outcome=Outcome.FAILED, ended_at=ended), None)
    begun(store, id="running", target="running", started_at=1.0)
    for day in (1, 3):
        store.add_health([HealthMinute(target="t", minute=day * 1440, looks=1, up=1)])
        store.add_pause(Pause(scope="t", reason="x", owner="o", since=1.0, until=day * DAY))

    gone = store.prune(2 * DAY, 0.0)

    assert gone == {
        "errors": 0,
        "decisions": 1,
        "runs": 1,
        "pauses": 1,
        "health_minutes": 1,
        "summaries": 0,
    }
    assert [d.cause for d in store.decisions()] == ["new"]
    assert {r.id for r in store.find_runs(RunQuery())} == {"new", "running"}


def test_old_summaries_go(store: Store) -> None:
    store.add_error(closed(id="a"))
    store.add_error(closed(id="b", first_seen=9 * DAY, last_seen=9 * DAY))
    store.prune(10 * DAY, 0.0)

    gone = store.prune(10 * DAY, 5 * DAY)

    assert gone["summaries"] == 1
    assert [s.day for s in store.summaries(0.0)] == ["1970-01-10"]


def test_more_than_a_batch_is_pruned_at_once(store: Store) -> None:
    signals = [signal(target=f"t{n}") for n in range(1201)]
    for admission in store.accept(signals, admit):
        assert admission.error is not None
        assert store.update_error(replace(admission.error, open=False, state=ErrorState.FAILED))

    assert store.prune(2 * DAY, 0.0)["errors"] == 1201


# the store as a whole


def test_what_was_written_is_there_after_opening_again(address: str, store: Store) -> None:
    found = accepted_error(store)
    store.close()

    assert open_and(address, lambda again: again.get_error(found.id)) == found


def test_a_closed_store_says_so(store: Store) -> None:
    store.get_error("x")
    store.close()
    store.close()

    for use in (store.ping, lambda: store.get_error("x"), lambda: store.accept([signal()], admit)):
        with pytest.raises(StoreError):
            use()


def test_a_ping_succeeds_on_a_sound_store(store: Store) -> None:
    store.ping()


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(StoreError, match="mongodb"):
        open_store("mongodb://127.0.0.1/x")


def open_and(address: str, use: Callable[[Store], Result]) -> Result:
    """Use a handle of one's own on the same store."""
    own = open_store(address)
    try:
        return use(own)
    finally:
        own.close()


def _together(count: int, act: Callable[[int], Result]) -> list[Result]:
    """Do *act* in so many threads at the same moment."""
    results: list[Result] = []
    gate = threading.Barrier(count)

    def one(number: int) -> None:
        gate.wait()
        results.append(act(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# events


def event(**changes: Any) -> Signal:
    made = signal(
        source=Source.EVENT,
        fingerprint="v1.00000000000000aa",
        problem=Problem.UNCAUGHT_EXCEPTION,
        subject="v1.00000000000000aa",
        event_id="e1",
        detail={"message": "no"},
        labels={"origin": "event"},
    )
    return replace(made, **changes)


def events_of(store: Store, *signals: Signal) -> list[Admission]:
    return store.accept(signals, admit)


def test_two_subjects_of_one_problem_are_two_errors(store: Store) -> None:
    events_of(store, event(), event(subject="v1.00000000000000bb", fingerprint="v1.00000000000000bb"))
    events_of(store, event(received_at=1001.0))

    found = store.find_errors(ErrorQuery(open=True))
    assert {(e.subject, e.signals) for e in found} == {("v1.00000000000000aa", 2), ("v1.00000000000000bb", 1)}
    assert store.latest_error("trust-engine", Problem.UNCAUGHT_EXCEPTION) is None
    latest = store.latest_error("trust-engine", Problem.UNCAUGHT_EXCEPTION, "v1.00000000000000bb")
    assert latest is not None
    assert latest.fingerprint == "v1.00000000000000bb"


def test_a_second_open_error_of_a_subject_is_refused(store: Store) -> None:
    store.add_error(error(subject="/a"))
    store.add_error(error(id="SE_00000002", subject="/b"))
    store.add_error(closed(id="SE_00000003", subject="/a"))

    with pytest.raises(StoreError):
        store.add_error(error(id="SE_00000004", subject="/a"))
    assert not store.update_error(error(id="SE_00000003", subject="/a"))


def test_a_member_counts_occurrences_and_keeps_the_newest_sample(store: Store) -> None:
    (first,) = events_of(store, event(count=5))
    events_of(store, event(count=7, received_at=1002.0, detail={"message": "newer"}))

    assert first.error is not None
    (member,) = store.membership(first.error.id)
    assert (member.times, member.detail, member.first_seen, member.last_seen) == (
        12,
        {"message": "newer"},
        1000.0,
        1002.0,
    )
    stored = store.get_error(first.error.id)
    assert stored is not None
    assert stored.signals == 12


def test_what_comes_above_the_limit_of_subjects_is_one_error(store: Store) -> None:
    def numbered(n: int) -> Signal:
        return event(subject=f"v1.{n:016x}", fingerprint=f"v1.{n:016x}")

    half = SUBJECTS_LIMIT // 2
    events_of(store, *map(numbered, range(half)))
    events_of(store, *map(numbered, range(half, SUBJECTS_LIMIT + 20)))
    events_of(store, numbered(3), numbered(SUBJECTS_LIMIT + 30), event(target="ai-router"))

    found = store.find_errors(ErrorQuery(target="trust-engine", limit=1000))
    assert len(found) == SUBJECTS_LIMIT + 1
    (others,) = [e for e in found if e.subject == OTHERS]
    assert others.signals == 21
    third = store.latest_error("trust-engine", Problem.UNCAUGHT_EXCEPTION, f"v1.{3:016x}")
    assert third is not None
    assert third.signals == 2


def test_an_error_keeps_a_bounded_number_of_fingerprints_apart(store: Store) -> None:
    made = [event(subject="", fingerprint=f"v1.{n:016x}") for n in range(MEMBERS_LIMIT + 50)]

    events_of(store, *made[:10])
    (last,) = events_of(store, *made[10:])[-1:]

    assert last.error is not None
    members = {member.fingerprint: member.times for member in store.membership(last.error.id)}
    assert len(members) == MEMBERS_LIMIT + 1
    assert members[OTHERS_FINGERPRINT] == 50


def test_a_batch_is_taken_once(store: Store) -> None:
    first = store.accept_batch("boot", 1, [event()], admit, at=1000.0)
    again = store.accept_batch("boot", 1, [event()], admit, at=1001.0)
    older = store.accept_batch("boot", 0, [event()], admit, at=1001.0)
    following = store.accept_batch("boot", 2, [], admit, at=1002.0)
    other = store.accept_batch("other", 1, [event()], admit, at=1003.0)

    assert first is not None
    assert (again, older, following) == (None, None, [])
    assert other is not None
    assert other[0].error is not None
    assert other[0].error.signals == 2


def test_a_batch_that_fails_can_be_sent_again(store: Store) -> None:
    def broken(signal: Signal, latest: Error | None, member: Status | None, new_id: str) -> Admission:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.accept_batch("boot", 1, [event()], broken, at=1000.0)

    assert store.accept_batch("boot", 1, [event()], admit, at=1001.0) is not None


def test_one_batch_sent_by_many_at_once_is_taken_once(address: str, store: Store) -> None:
    def send(own: Store) -> bool:
        return own.accept_batch("boot", 1, [event()], admit, at=1000.0) is not None

    taken = _together(8, lambda _: open_and(address, send))

    assert sorted(taken) == [False] * 7 + [True]
    (found,) = store.find_errors(ErrorQuery())
    assert found.signals == 1


def test_a_single_event_is_taken_once_by_its_id(store: Store) -> None:
    taken = store.accept_once([event(), event(), event(event_id="e2"), event(event_id="")], admit, at=1000.0)
    again = store.accept_once([event(event_id="e2"), event(event_id="")], admit, at=1001.0)

    assert [a is not None for a in taken] == [True, False, True, True]
    assert [a is not None for a in again] == [False, True]


def test_what_senders_sent_is_forgotten_in_time(store: Store) -> None:
    store.accept_batch("boot", 5, [], admit, at=1000.0)
    store.accept_once([event()], admit, at=1000.0)

    early = store.forget_senders(1000.0 + SINGLES_KEPT - 1)
    late = store.forget_senders(1000.0 + SENDERS_KEPT + 1)

    assert early == {"senders": 0, "single_events": 0}
    assert late == {"senders": 1, "single_events": 1}
    assert store.accept_batch("boot", 1, [], admit, at=1000.0) == []


def test_the_ids_of_single_events_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remediator.store.sqlite_prune.SINGLES_LIMIT", 10)
    for n in range(25):
        store.accept_once([event(event_id=f"e{n}")], admit, at=1000.0 + n)

    assert store.forget_senders(1030.0)["single_events"] == 15
    assert [
        store.accept_once([event(event_id=f"e{n}")], admit, at=1031.0)[0] is None for n in (14, 15, 24)
    ] == [
        False,
        True,
        True,
    ]


def test_quiet_events_are_those_of_open_errors_that_fire_and_were_not_seen_for_long(store: Store) -> None:
    (quiet,) = events_of(store, event())
    events_of(store, event(subject="b", received_at=2000.0), signal())
    store.add_error(closed(id="SE_00000009", target="x"))

    assert [(e.id, f) for e, f in store.quiet_events(1500.0, 10)] == [
        (quiet.error.id if quiet.error else "", "v1.00000000000000aa")
    ]

    events_of(store, event(status=Status.RESOLVED, source=Source.QUIET, received_at=1600.0, count=0))
    assert store.quiet_events(1900.0, 10) == []
    assert quiet.error is not None
    (member,) = store.membership(quiet.error.id)
    assert (member.status, member.times, member.last_seen) == (Status.RESOLVED, 1, 1000.0)


def test_an_heir_has_the_events_that_are_not_over(store: Store) -> None:
    (old,) = events_of(
        store,
        event(problem=Problem.PROCESS_DIED, subject=""),
    )
    assert old.error is not None
    events_of(store, signal(problem=Problem.PROCESS_DIED))
    stored = store.get_error(old.error.id)
    assert stored is not None
    assert store.update_error(replace(stored, open=False, closed_at=1100.0))
    fresh = replace(stored, id="SE_0000000a", open=True, closed_at=None)

    store.add_error(fresh, heir_of=stored.id)

    assert store.members(fresh.id) == {"v1.00000000000000aa": Status.FIRING}


def test_past_runs_are_those_for_errors_like_it(store: Store) -> None:
    plan = ({"steps": [{"action": "restart"}]},)

    def ran(number: int, of: Error, outcome: Outcome) -> None:
        made = begun(store, id=f"R_{number}", error_id=of.id, target=f"t{number}", plan=plan)
        assert store.end_run(replace(made, outcome=outcome, ended_at=1005.0), None)

    (mine, elsewhere, unlike) = (
        closed(id="SE_00000001", subject="/a"),
        closed(id="SE_00000002", target="ai-router", subject="/b"),
        closed(id="SE_00000003", subject="/c"),
    )
    for one in (mine, elsewhere, unlike):
        store.add_error(one)
    events_of(
        store, event(target="ai-router", subject="/b", problem=Problem.SERVICE_DOWN, status=Status.RESOLVED)
    )
    now = error(id="SE_00000004", subject="/a", fingerprint="v1.00000000000000aa")
    store.add_error(now)
    for number, of in enumerate((mine, elsewhere, unlike, now)):
        ran(number, of, Outcome.RECOVERED)

    found = store.past_runs(now)

    assert len(found) == 2
    assert {run.actions for run in found} == {("restart",)}
    assert store.past_runs(replace(now, fingerprint="f1", subject="/zz")) == []


def test_the_first_sight_is_kept(store: Store) -> None:
    store.add_error(error())

    store.keep_sight("SE_00000001", {"at": 1.0})
    store.keep_sight("SE_00000001", {"at": 2.0})
    store.keep_sight("SE_none", {"at": 3.0})

    assert store.sight("SE_00000001") == {"at": 1.0}
    assert store.sight("SE_none") is None


# heartbeats


def test_a_heartbeat_is_known_from_when_it_is_expected(store: Store) -> None:
    store.expect_heartbeats({"nightly": (86400.0, 60.0)}, 1000.0)
    store.expect_heartbeats({"nightly": (3600.0, 5.0)}, 2000.0)

    (found,) = store.heartbeats()
    assert (found.name, found.since, found.period, found.grace) == ("nightly", 1000.0, 3600.0, 5.0)
    assert (found.last_start, found.last_success, found.last_failure) == (None, None, None)


def test_each_beat_is_kept_apart(store: Store) -> None:
    store.beat("nightly", BeatKind.START, 1000.0)
    store.beat("nightly", BeatKind.FAILURE, 1001.0, 3)
    found = store.beat("nightly", BeatKind.SUCCESS, 1002.0, 0)

    assert store.heartbeats() == [found]
    assert (found.since, found.last_start, found.last_failure, found.last_success) == (
        1000.0,
        1000.0,
        1001.0,
        1002.0,
    )
    assert (found.last_exit_code, found.period) == (0, None)


def test_a_late_beat_changes_nothing(store: Store) -> None:
    store.beat("nightly", BeatKind.SUCCESS, 1002.0, 0)

    found = store.beat("nightly", BeatKind.SUCCESS, 1001.0, 7)

    assert (found.last_success, found.last_exit_code) == (1002.0, 0)


def test_heartbeats_outlive_the_process(address: str, store: Store) -> None:
    store.beat("b", BeatKind.START, 1.0)
    store.beat("a", BeatKind.SUCCESS, 1.0)

    assert open_and(address, lambda own: [beat.name for beat in own.heartbeats()]) == ["a", "b"]


def test_a_heartbeat_that_is_expected_anew_begins_anew_and_keeps_what_it_said(store: Store) -> None:
    both = {"nightly": (60.0, 5.0), "loop": (10.0, 5.0)}
    store.expect_heartbeats(both, 1000.0)
    store.beat("nightly", BeatKind.SUCCESS, 1001.0)

    store.expect_heartbeats({"loop": (10.0, 5.0)}, 2000.0)
    _, gone = store.heartbeats()
    store.expect_heartbeats(both, 3000.0)
    loop, back = store.heartbeats()

    assert (gone.expected, gone.since, gone.last_success) == (False, 1000.0, 1001.0)
    assert (back.expected, back.since, back.last_success) == (True, 3000.0, 1001.0)
    assert (loop.expected, loop.since) == (True, 1000.0)


def test_a_job_that_is_only_heard_is_expected_from_when_it_is_configured(store: Store) -> None:
    heard = store.beat("nightly", BeatKind.SUCCESS, 1000.0)
    store.expect_heartbeats({"nightly": (60.0, 5.0)}, 2000.0)

    (found,) = store.heartbeats()
    assert (heard.expected, found.expected, found.since) == (False, True, 2000.0)
