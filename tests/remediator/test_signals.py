"""How a signal finds its error, and what a notification may look like."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.alerts import LABEL_LIMIT, TEXT_LIMIT, SignalError, parse_webhook, signal_of_alert
from remediator.signals import (
    MESSAGE_LIMIT,
    OTHERS,
    RECHECK_FOR,
    SUBJECTS_LIMIT,
    Admission,
    Error,
    ErrorState,
    Reason,
    Signal,
    Source,
    Status,
    Verdict,
    admit,
    is_event,
    open_again,
    placed,
    probed_apart,
    reopen,
)
from soulfra_monitor.problems import Problem, Severity

NOW = 10_000.0
CLOSED_AT = NOW - 100


def signal(**changes: Any) -> Signal:
    made = Signal(
        source=Source.ALERTMANAGER,
        fingerprint="f1",
        status=Status.FIRING,
        target="redis",
        problem=Problem.SERVICE_DOWN,
        severity=Severity.HIGH,
        message="down",
        received_at=NOW,
        labels={"alertname": "SoulfraServiceDown"},
    )
    return replace(made, **changes)


def error(**changes: Any) -> Error:
    made = Error(
        id="SE_00000001",
        target="redis",
        problem=Problem.SERVICE_DOWN,
        severity=Severity.HIGH,
        message="down",
        first_seen=NOW - 500,
        last_seen=NOW - 400,
        signals=1,
    )
    return replace(made, **changes)


def closed(**changes: Any) -> Error:
    fields = {"open": False, "state": ErrorState.RECOVERED, "recovered_at": CLOSED_AT, "closed_at": CLOSED_AT}
    return error(**{**fields, **changes})


RESOLVED = {"status": Status.RESOLVED}
UNPROVABLE = {"problem": Problem.ERROR_RATE}
IN_TIME = {"received_at": CLOSED_AT + RECHECK_FOR}
TOO_LATE = {"received_at": CLOSED_AT + RECHECK_FOR + 0.001}

# what comes in | the newest error | the member's last status | new? | the decision | is a look asked for?
ADMISSIONS: dict[str, tuple[Signal, Error | None, Status | None, bool, Reason | None, bool]] = {
    "the first sight": (signal(), None, None, True, None, True),
    "the same again while open": (signal(), error(), Status.FIRING, False, Reason.DUPLICATE, False),
    "the twin of another origin": (
        signal(fingerprint="f2", labels={"origin": "exporter"}),
        error(),
        None,
        False,
        Reason.DUPLICATE,
        False,
    ),
    "the same with another start": (
        signal(starts_at=1.0),
        error(),
        Status.FIRING,
        False,
        Reason.DUPLICATE,
        False,
    ),
    "firing again after its resolve, still open": (
        signal(),
        error(),
        Status.RESOLVED,
        False,
        Reason.DUPLICATE,
        False,
    ),
    "the same again, given up and open": (
        signal(),
        error(state=ErrorState.FAILED),
        Status.FIRING,
        False,
        Reason.DUPLICATE,
        False,
    ),
    "late, the last moment of 15 minutes": (
        signal(**IN_TIME),
        closed(),
        Status.FIRING,
        False,
        None,
        True,
    ),
    "late, by another alert": (signal(fingerprint="f2"), closed(), None, False, None, True),
    "after 15 minutes": (signal(**TOO_LATE), closed(), Status.FIRING, True, None, True),
    "unprovable, sent again after a repair": (
        signal(**UNPROVABLE),
        closed(**UNPROVABLE),
        Status.FIRING,
        False,
        Reason.DUPLICATE,
        False,
    ),
    "unprovable, fires on for 15 minutes after the repair": (
        signal(**UNPROVABLE, **TOO_LATE),
        closed(**UNPROVABLE),
        Status.FIRING,
        True,
        None,
        True,
    ),
    "unprovable, back after its resolve": (
        signal(**UNPROVABLE),
        closed(**UNPROVABLE),
        Status.RESOLVED,
        False,
        None,
        True,
    ),
    "a resolve of nothing known": (signal(**RESOLVED), None, None, False, Reason.STALE, False),
    "a resolve while open": (signal(**RESOLVED), error(), Status.FIRING, False, Reason.RESOLVED, True),
    "a resolve after the end": (signal(**RESOLVED), closed(), Status.FIRING, False, Reason.RESOLVED, False),
}


@pytest.mark.parametrize("name", ADMISSIONS)
def test_a_signal_finds_its_error(name: str) -> None:
    incoming, latest, member, new, reason, look = ADMISSIONS[name]
    admission = admit(incoming, latest, member, "SE_0000000f")
    assert admission.new is new
    assert (admission.decision.reason if admission.decision else None) is reason
    assert admission.decision is None or admission.decision.verdict is Verdict.REFUSED
    found = admission.error
    asked = found is not None and found.check_at == incoming.received_at
    assert asked is look
    if found is not None:
        assert found.id == ("SE_0000000f" if new else "SE_00000001")


def test_a_resolve_of_nothing_known_makes_no_error() -> None:
    assert admit(signal(**RESOLVED), None, None, "SE_0000000f").error is None


def test_resolved_is_not_recovered() -> None:
    admission = admit(signal(**RESOLVED), error(), Status.FIRING, "SE_0000000f")
    assert admission.error == error(check_at=NOW)


@pytest.mark.parametrize("latest", [error(), closed(), error(state=ErrorState.FAILED)])
def test_the_same_signal_again_changes_counts_and_nothing_else(latest: Error) -> None:
    def again(admission: Admission) -> Error:
        assert admission.error is not None
        return admission.error

    once = again(admit(signal(), latest, Status.FIRING, "SE_0000000f"))
    twice = again(admit(signal(), once, Status.FIRING, "SE_0000000f"))
    assert replace(twice, signals=once.signals) == once
    assert twice.signals == once.signals + 1


def test_a_late_signal_leaves_the_recovery_as_it_was_until_a_probe_has_spoken() -> None:
    found = admit(signal(), closed(), Status.FIRING, "SE_0000000f").error
    assert found is not None
    assert (found.open, found.state, found.recovered_at) == (False, ErrorState.RECOVERED, CLOSED_AT)


@pytest.mark.parametrize(
    ("stored", "told", "kept"),
    [
        (Severity.LOW, Severity.CRITICAL, Severity.CRITICAL),
        (Severity.CRITICAL, Severity.LOW, Severity.CRITICAL),
        (Severity.MEDIUM, Severity.HIGH, Severity.HIGH),
    ],
)
def test_an_error_is_as_severe_as_the_worst_of_its_signals(
    stored: Severity, told: Severity, kept: Severity
) -> None:
    found = admit(signal(severity=told), error(severity=stored), None, "SE_0000000f").error
    assert found is not None
    assert found.severity is kept


def test_an_old_signal_does_not_turn_the_clock_back() -> None:
    found = admit(signal(received_at=1.0), error(last_seen=NOW), None, "SE_0000000f").error
    assert found is not None
    assert found.last_seen == NOW


def test_a_relapse_keeps_attempts_and_escalation_and_is_not_recovered() -> None:
    before = closed(attempts=2, escalated_at=5.0, escalation_sent=True, recovered_by="run")
    after = reopen(before, NOW)
    assert (after.open, after.state, after.recovered_at, after.recovered_by, after.closed_at) == (
        True,
        ErrorState.PENDING,
        None,
        None,
        None,
    )
    assert (after.attempts, after.relapses, after.check_at) == (2, 1, NOW)
    assert (after.first_seen, after.escalation_sent) == (before.first_seen, True)


def test_a_new_episode_of_a_closed_error_starts_with_nothing_of_the_old() -> None:
    old = closed(attempts=3, relapses=2, escalation_sent=True, last_seen=NOW, labels={"a": "b"})
    fresh = open_again(old, "SE_0000000f")
    assert (fresh.id, fresh.first_seen, fresh.check_at, fresh.labels) == ("SE_0000000f", NOW, NOW, {"a": "b"})
    assert (fresh.open, fresh.attempts, fresh.relapses, fresh.escalation_sent) == (True, 0, 0, False)


# -- notifications ------------------------------------------------------------------------------------


def alert(**changes: Any) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {
            "alertname": "SoulfraServiceDown",
            "target": "redis",
            "problem": "service_down",
            "severity": "critical",
        },
        "annotations": {"summary": "redis is down"},
        "startsAt": "2026-01-02T03:04:05.678901234Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "c0ffee0000000001",
        **changes,
    }


def webhook(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}", "status": "firing", "alerts": list(alerts), **changes}


def only(*alerts: dict[str, Any], **changes: Any) -> Signal:
    (found,) = parse_webhook(webhook(*alerts, **changes), NOW)
    return found


def test_a_notification_is_read_as_alertmanager_sends_it() -> None:
    assert only(alert()) == Signal(
        source=Source.ALERTMANAGER,
        fingerprint="c0ffee0000000001",
        status=Status.FIRING,
        target="redis",
        problem=Problem.SERVICE_DOWN,
        severity=Severity.CRITICAL,
        message="redis is down",
        received_at=NOW,
        starts_at=1767323045.678901,
        labels=alert()["labels"],
        annotations={"summary": "redis is down"},
    )


def test_each_alert_has_its_own_status_whatever_the_group_says() -> None:
    found = parse_webhook(webhook(alert(), alert(status="resolved"), status="firing"), NOW)
    assert [one.status for one in found] == [Status.FIRING, Status.RESOLVED]


def test_unknown_fields_are_ignored() -> None:
    extra = alert(novelty={"deep": [1]})
    assert only(extra, notification_reason="repeat", routeLabels={}, truncatedAlerts=0) == only(alert())


@pytest.mark.parametrize(
    "starts", [None, 7, "", "yesterday", "0001-01-01T00:00:00", "9999-99-99T00:00:00Z", ["x"]]
)
def test_a_start_that_cannot_be_read_is_no_start(starts: object) -> None:
    assert only(alert(startsAt=starts)).starts_at is None


def test_the_year_one_is_read() -> None:
    assert only(alert(startsAt="0001-01-01T00:00:00Z")).starts_at == -62135596800.0


@pytest.mark.parametrize("missing", [None, ""])
def test_without_a_fingerprint_the_labels_are_one(missing: str | None) -> None:
    one = only(alert(fingerprint=missing))
    other = only(alert(fingerprint=missing, annotations={}, startsAt=None))
    third = only(alert(fingerprint=missing, labels={**alert()["labels"], "origin": "exporter"}))
    assert one.fingerprint == other.fingerprint != third.fingerprint
    assert one.fingerprint


def test_fingerprints_do_not_mix_up_keys_and_values() -> None:
    one = signal_of_alert({"labels": {"a": "b", "c": "d"}}, NOW, Source.RECONCILE)
    other = signal_of_alert({"labels": {"a": "bc", "": "d"}}, NOW, Source.RECONCILE)
    assert one.fingerprint != other.fingerprint


def test_huge_labels_are_cut_and_their_number_is_bounded() -> None:
    labels = {**alert()["labels"], "big": "x" * 100_000}
    crowd = {f"a{number:04}": "x" for number in range(500)}
    found = only(alert(labels={**crowd, **labels}))
    assert len(found.labels) == LABEL_LIMIT
    assert all(len(text) <= TEXT_LIMIT for pair in found.labels.items() for text in pair)


def test_a_crowd_of_labels_does_not_hide_the_target() -> None:
    """Alertmanager sorts labels by name, so that target stands behind most others."""
    crowd = {f"a{number:04}": "x" for number in range(500)}
    found = only(alert(labels={**crowd, **alert()["labels"]}))
    assert (found.target, found.problem, found.severity) == (
        "redis",
        Problem.SERVICE_DOWN,
        Severity.CRITICAL,
    )
    assert found.labels["alertname"] == "SoulfraServiceDown"


def test_a_long_message_is_cut() -> None:
    assert len(only(alert(annotations={"description": "x" * 9999})).message) == MESSAGE_LIMIT


def test_the_description_is_the_message_before_the_summary_and_the_name() -> None:
    assert only(alert(annotations={"summary": "a", "description": "b"})).message == "b"
    assert only(alert(annotations={"summary": "a", "description": ""})).message == "a"
    assert only(alert(annotations={})).message == "SoulfraServiceDown"


@pytest.mark.parametrize(
    ("labels", "target"),
    [
        ({"target": "a", "instance": "b"}, "a"),
        ({"instance": "b"}, "b"),
        ({}, "unknown"),
        ({"target": ""}, "unknown"),
    ],
)
def test_every_alert_has_a_target(labels: dict[str, str], target: str) -> None:
    assert only(alert(labels=labels)).target == target


def test_a_problem_of_no_list_is_other() -> None:
    assert only(alert(labels={"problem": "gremlins"})).problem is Problem.OTHER


def test_secrets_in_labels_and_annotations_are_masked_on_the_way_in() -> None:
    secret = "hunter" + "2" * 12
    labels = {**alert()["labels"], "api_token": secret, "note": f"password={secret}"}
    annotations = {"description": f"login failed: password={secret}", "secret": secret}
    found = only(alert(labels=labels, annotations=annotations))
    assert secret not in repr(found)
    assert found.target == "redis"


def test_half_a_surrogate_pair_can_be_written() -> None:
    text = json.loads('"a\\ud800b"')
    found = only(alert(labels={"target": text, text: text}, fingerprint=text))
    json.dumps(repr(found), ensure_ascii=False).encode()
    for part in (found.target, found.fingerprint, *found.labels):
        part.encode()


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ([], "JSON object"),
        ("firing", "JSON object"),
        (None, "JSON object"),
        ({}, "custom webhook payload"),
        ({"alerts": None}, "custom webhook payload"),
        ({"alerts": {}}, "custom webhook payload"),
        ({"text": "redis is down", "channel": "#ops"}, "custom webhook payload"),
        ({"alerts": ["x"]}, "alerts[0]"),
        (webhook(alert(), {"status": "firing"}), "alerts[1]"),
        (webhook(alert(labels=[])), "alerts[0]"),
    ],
)
def test_what_is_not_alertmanagers_format_is_refused_with_the_place(payload: object, told: str) -> None:
    with pytest.raises(SignalError) as refused:
        parse_webhook(payload, NOW)
    assert told in str(refused.value)


def test_no_alerts_are_no_signals() -> None:
    assert parse_webhook(webhook(), NOW) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
alert_keys = st.sampled_from(["status", "labels", "annotations", "startsAt", "endsAt", "fingerprint"])
label_keys = st.sampled_from(["target", "problem", "severity", "impact", "alertname", "instance"])
label_sets = st.dictionaries(label_keys | st.text(max_size=5), json_values, max_size=6)
alerts = st.dictionaries(alert_keys, json_values | label_sets, max_size=6)


@given(json_values | st.fixed_dictionaries({"alerts": st.lists(alerts | json_values, max_size=4)}))
def test_whatever_comes_is_signals_or_a_signal_error(payload: object) -> None:
    try:
        found = parse_webhook(payload, NOW)
    except SignalError:
        return
    assert isinstance(payload, dict)
    assert len(found) == len(payload["alerts"])
    for one in found:
        assert one.target
        assert one.fingerprint
        assert len(one.message) <= MESSAGE_LIMIT


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Status)),
            st.sampled_from(["f1", "f2"]),
            st.sampled_from([Problem.SERVICE_DOWN, Problem.ERROR_RATE]),
            st.integers(0, 2000),
        ),
        max_size=12,
    )
)
def test_no_order_of_signals_opens_a_second_error_beside_an_open_one(
    told: list[tuple[Status, str, Problem, int]],
) -> None:
    latest: dict[Problem, Error] = {}
    members: dict[tuple[str, str], Status] = {}
    for number, (status, fingerprint, problem, at) in enumerate(told):
        before = latest.get(problem)
        member = members.get((before.id, fingerprint)) if before else None
        incoming = signal(status=status, fingerprint=fingerprint, problem=problem, received_at=NOW + at)
        admission = admit(incoming, before, member, f"SE_{number:08x}")
        assert not (admission.new and before is not None and before.open)
        assert not (admission.new and status is Status.RESOLVED)
        if admission.error is not None:
            latest[problem] = admission.error
            members[admission.error.id, fingerprint] = status


# -- events -------------------------------------------------------------------------------------------

PRINT = "v1.0123456789abcdef"


def event(**changes: Any) -> Signal:
    fields = {"source": Source.EVENT, "fingerprint": PRINT, "problem": Problem.UNCAUGHT_EXCEPTION}
    return signal(**{**fields, "labels": {"kind": "task"}, **changes})


@pytest.mark.parametrize(
    ("fingerprint", "told"),
    [
        (PRINT, True),
        ("v12.x", True),
        ("v1.others", True),
        ("0123456789abcdef", False),
        ("vx.1", False),
        ("", False),
    ],
)
def test_fingerprints_of_events_begin_with_their_version(fingerprint: str, told: bool) -> None:
    assert is_event(fingerprint) is told


@pytest.mark.parametrize(
    ("given", "latest", "subjects", "subject"),
    [
        (event(subject="a"), None, SUBJECTS_LIMIT - 1, "a"),
        (event(subject="a"), None, SUBJECTS_LIMIT, OTHERS),
        (event(subject="a"), error(subject="a"), SUBJECTS_LIMIT, "a"),
        (event(subject="a"), closed(subject="a"), SUBJECTS_LIMIT, OTHERS),
        (event(subject=""), None, SUBJECTS_LIMIT, ""),
        (event(subject=OTHERS), None, SUBJECTS_LIMIT, OTHERS),
        (signal(subject="a"), None, SUBJECTS_LIMIT, "a"),
    ],
)
def test_a_target_with_too_many_errors_is_spared_another(
    given: Signal, latest: Error | None, subjects: int, subject: str
) -> None:
    assert placed(given, latest, subjects).subject == subject


def test_an_event_opens_an_error_of_its_subject_with_its_count() -> None:
    found = admit(event(subject="a", count=7), None, None, "SE_0000000f")

    assert found.new
    assert found.error is not None
    assert (found.error.subject, found.error.fingerprint, found.error.signals) == ("a", PRINT, 7)


@pytest.mark.parametrize(
    ("latest", "age", "relapse"),
    [
        (closed(), 30.0, True),
        (closed(), 61.0, False),
        (closed(state=ErrorState.FAILED), 30.0, False),
        (closed(), RECHECK_FOR + 1, False),
    ],
)
def test_an_event_after_the_end_is_a_relapse_or_a_new_error_and_never_the_old_one_sent_again(
    latest: Error, age: float, relapse: bool
) -> None:
    latest = replace(latest, problem=Problem.UNCAUGHT_EXCEPTION)

    found = admit(event(received_at=CLOSED_AT + age), latest, Status.FIRING, "SE_0000000f", stable_for=60.0)

    assert (found.relapse, found.new, found.decision) == (relapse, not relapse, None)
    assert found.error is not None
    assert found.error.open
    assert found.error.id == (latest.id if relapse else "SE_0000000f")


def test_a_late_death_waits_for_a_fresh_probe() -> None:
    latest = closed(problem=Problem.PROCESS_DIED)
    death = event(problem=Problem.PROCESS_DIED, labels={"kind": "exit"})

    found = admit(death, latest, Status.FIRING, "SE_0000000f")

    assert found.error is not None
    assert (found.new, found.error.open, found.error.check_at) == (False, False, NOW)


@pytest.mark.parametrize(
    ("problem", "fingerprint", "kind", "proven"),
    [
        (Problem.PROCESS_DIED, PRINT, "exit", True),
        (Problem.PROCESS_DIED, PRINT, "child", False),
        (Problem.SERVICE_TIMEOUT, PRINT, "hung", False),
        (Problem.SERVICE_TIMEOUT, PRINT, "slow", False),
        (Problem.SERVICE_TIMEOUT, "f1", "", True),
        (Problem.SERVICE_TIMEOUT, PRINT, "reported", False),
        (Problem.SERVICE_TIMEOUT, PRINT, "exit", False),
        (Problem.SERVICE_DOWN, PRINT, "reported", False),
        (Problem.SERVICE_DOWN, PRINT, "exit", True),
        (Problem.PROCESS_DIED, PRINT, "uncaught", False),
        (Problem.PROCESS_DIED, "f1", "", True),
        (Problem.MEMORY_LEAK, PRINT, "memory", False),
    ],
)
def test_a_probe_disproves_what_it_can_see(
    problem: Problem, fingerprint: str, kind: str, proven: bool
) -> None:
    found = error(problem=problem, fingerprint=fingerprint, labels={"kind": kind})

    assert found.proven_by_probe is proven


@pytest.mark.parametrize(
    ("problem", "kind", "subject", "is_apart"),
    [
        (Problem.SERVICE_TIMEOUT, "hung", "", True),
        (Problem.SERVICE_DOWN, "reported", "", True),
        (Problem.PROCESS_DIED, "exit", "", False),
        (Problem.REDIS_UNAVAILABLE, "redis", "", False),
        (Problem.MISSING_FILE, "file", "/a", False),
    ],
)
def test_no_error_has_members_that_a_probe_proves_beside_others(
    problem: Problem, kind: str, subject: str, is_apart: bool
) -> None:
    assert probed_apart(problem, subject, PRINT, kind) == (PRINT if is_apart else subject)


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({"open": True, "state": ErrorState.PENDING}, None),
        ({"state": ErrorState.RECOVERED, "escalated_at": 1.0}, "proven"),
        ({"state": ErrorState.FAILED}, "silence"),
        ({"state": ErrorState.FAILED, "escalated_at": 1.0}, "given_up"),
    ],
)
def test_an_error_says_how_it_ended(changes: dict[str, Any], ended: str | None) -> None:
    assert closed(**changes).ended == ended


def test_what_becomes_critical_is_looked_at_now() -> None:
    waiting = error(severity=Severity.MEDIUM, check_at=NOW + 15)

    worse = admit(event(severity=Severity.CRITICAL), waiting, Status.FIRING, "x").error
    alike = admit(event(severity=Severity.HIGH), waiting, Status.FIRING, "x").error

    assert worse is not None
    assert alike is not None
    assert (worse.check_at, alike.check_at) == (NOW, NOW + 15)


def test_a_new_episode_keeps_what_it_is_about() -> None:
    again = open_again(closed(subject="/a", fingerprint=PRINT), "SE_0000000f")

    assert (again.subject, again.fingerprint) == ("/a", PRINT)
