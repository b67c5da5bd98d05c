"""From an event to a signal: redacted, classified, bounded, and taken once."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.events import LABEL_LENGTH, SAMPLE_LIMIT, signal_of_event
from remediator.signals import MESSAGE_LIMIT, Signal, Source, Status, is_event
from remediator.store import StoreError
from soulfra_monitor.events import Event, Frame, Kind, Raised
from soulfra_monitor.problems import Problem, Severity

SECRET = "hunter2" + "-" + "correct-horse"
URL = f"redis://:{SECRET}@127.0.0.1:6379/0"


def event(**changes: Any) -> Event:
    made = Event(
        id="0" * 32,
        at=990.0,
        kind=Kind.FILE,
        service="chat-analyzer",
        message="[Errno 13] Permission denied: '/srv/data/out/a.csv'",
        raised=(
            Raised(
                type="PermissionError",
                message="[Errno 13] Permission denied: '/srv/data/out/a.csv'",
                frames=(Frame(module="shop.out", function="write", file="shop/out.py", line=7),),
            ),
        ),
        handled=True,
        facts={"errno": 13, "path": "/srv/data/out/a.csv", "elsewhere": "x"},
        release="1.2",
    )
    return replace(made, **changes)


def read(**changes: Any) -> Signal:
    return signal_of_event(event(**changes), 1000.0)


def test_a_signal_says_what_is_wrong_where_and_how_bad() -> None:
    found = read()

    assert (found.source, found.status, found.target) == (Source.EVENT, Status.FIRING, "chat-analyzer")
    assert (found.problem, found.subject) == (Problem.PERMISSION_DENIED, "/srv/data/out/a.csv")
    assert found.severity in Severity
    assert is_event(found.fingerprint)
    assert (found.received_at, found.starts_at, found.count, found.event_id) == (1000.0, 990.0, 1, "0" * 32)
    assert found.message.startswith("PermissionError: [Errno 13]")


def test_playbooks_get_the_facts_they_can_match() -> None:
    assert read().labels == {
        "errno": "13",
        "path": "/srv/data/out/a.csv",
        "exception": "PermissionError",
        "release": "1.2",
        "target": "chat-analyzer",
        "problem": "permission_denied",
        "severity": read().severity.value,
        "kind": "file",
        "handled": "true",
        "origin": "event",
    }


@pytest.mark.parametrize("key", ["action", "alertname", "origin", "target", "problem", "severity", "kind"])
def test_a_sender_cannot_pretend_by_its_facts(key: str) -> None:
    labels = read(facts={key: "restart_service"}).labels

    assert labels.get(key) != "restart_service"


def test_the_sample_keeps_what_a_person_needs() -> None:
    sample = read(context={"user": 7}, system={"rss_bytes": 5}).detail

    assert sample["raised"][0]["frames"][0]["function"] == "write"
    assert (sample["context"], sample["system"], sample["handled"]) == ({"user": 7}, {"rss_bytes": 5}, True)
    assert sample["facts"]["elsewhere"] == "x"
    assert sample["reasons"]
    assert "service" not in sample


def test_nothing_is_longer_than_its_limit() -> None:
    found = read(
        message="m" * 100_000,
        facts={"path": "/p" * 5000, "url": "u" * 5000},
        context={str(n): "c" * 1000 for n in range(100)},
        system={str(n): "s" * 1000 for n in range(100)},
        raised=tuple(
            Raised(
                type="T" * 300, message="m" * 5000, frames=tuple(Frame(function="f" * 300) for _ in range(50))
            )
            for _ in range(8)
        ),
        release="r" * 5000,
        service="s" * 5000,
    )

    assert len(json.dumps(found.detail)) <= SAMPLE_LIMIT
    assert len(found.message) <= MESSAGE_LIMIT
    assert max(map(len, found.labels.values())) <= LABEL_LENGTH
    assert len(found.target) <= 200


@pytest.mark.parametrize(
    "carrier",
    [
        {"message": f"cannot reach {URL}"},
        {"facts": {"url": URL, "path": URL}},
        {"context": {"db": {"password": SECRET, "list": [URL]}}},
        {"system": {"argv": f"app --password {SECRET}"}},
        {"raised": (Raised(type="OSError", message=URL, notes=(URL,)),)},
        {"release": URL},
        {"service": URL},
    ],
)
def test_a_secret_reaches_no_part_of_the_signal(carrier: dict[str, Any]) -> None:
    found = read(**carrier)

    assert SECRET not in repr(found)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)


@given(
    kind=st.sampled_from(Kind),
    message=st.text(max_size=200),
    context=st.dictionaries(st.text(max_size=10), values, max_size=5),
    facts=st.dictionaries(
        st.sampled_from(["path", "errno", "url", "status", "x"]),
        st.text(max_size=50) | st.integers(),
        max_size=5,
    ),
)
def test_any_event_becomes_a_signal_of_json(
    kind: Kind, message: str, context: dict[str, Any], facts: dict[str, Any]
) -> None:
    found = read(kind=kind, message=message, context=context, facts=facts)

    assert json.loads(json.dumps(found.detail)) == found.detail
    assert all(isinstance(value, str) for value in found.labels.values())


# -- taking them ------------------------------------------------------------------------------------


@pytest.fixture
def idle(make_world: Any) -> Any:
    return make_world(start=False)


def test_a_batch_counts_once_however_often_it_is_sent(idle: Any) -> None:
    batch = [event(), event(id="1" * 32, count=4)]

    first = idle.engine.accept_events(batch, boot="b", seq=1)
    again = idle.engine.accept_events(batch, boot="b", seq=1)

    assert (first.repeated, len(first.admissions)) == (False, 2)
    assert (again.repeated, again.admissions) == (True, ())
    assert [(error.signals, error.target) for error in idle.errors()] == [(5, "chat-analyzer")]


def test_a_batch_without_events_is_remembered_too(idle: Any) -> None:
    assert not idle.engine.accept_events([], boot="b", seq=1).repeated
    assert idle.engine.accept_events([], boot="b", seq=1).repeated
    assert not idle.engine.accept_events([]).repeated


def test_a_single_event_counts_once_by_its_id(idle: Any) -> None:
    assert not idle.engine.accept_events([event()]).repeated
    assert idle.engine.accept_events([event()]).repeated
    assert not idle.engine.accept_events([event(id="1" * 32)]).repeated

    assert idle.error("chat-analyzer").signals == 2


def test_events_that_cannot_be_kept_are_not_taken(idle: Any) -> None:
    idle.store.broken.set()
    with pytest.raises(StoreError):
        idle.engine.accept_events([event()], boot="b", seq=1)
    idle.store.broken.clear()

    assert not idle.engine.accept_events([event()], boot="b", seq=1).repeated
    assert idle.error("chat-analyzer").signals == 1


def test_people_read_of_a_new_error_once(idle: Any) -> None:
    idle.engine.accept_events([event()])
    idle.engine.accept_events([event(id="1" * 32)])

    (line,) = [text for kind, text in idle.lines if kind == "event"]
    assert "permission_denied in chat-analyzer: PermissionError" in line
