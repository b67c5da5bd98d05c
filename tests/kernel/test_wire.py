"""Events and batches survive the wire, and nothing that a stranger sends makes reading fall over."""

import json
import math
import time
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soulfra_monitor.events import (
    BOUNDS,
    CHAIN_LIMIT,
    FRAMES_LIMIT,
    Batch,
    Calls,
    Declared,
    Event,
    EventError,
    Frame,
    Kind,
    Raised,
    Relation,
    Sender,
)
from soulfra_monitor.wire import (
    ALIKE_LIMIT,
    COUNT_LIMIT,
    CUT,
    EVENTS_LIMIT,
    ITEMS_LIMIT,
    READ_LIMIT,
    WIDTH_LIMIT,
    read_batch,
    read_body,
    read_event,
    write_batch,
    write_event,
)

NOW = 1_790_000_000.0

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_names = _texts.map(lambda text: "n" + text.strip())
_ids = st.text("0123456789abcdef", min_size=32, max_size=32)
_whole = st.integers(0, COUNT_LIMIT)
_numbers = st.floats(allow_nan=False, allow_infinity=False)
_scalars = _texts | st.integers(-(2**63) + 1, 2**63 - 1) | _numbers
_json = st.dictionaries(
    _texts,
    st.recursive(
        st.none() | st.booleans() | _scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
_frames = st.builds(Frame, module=_texts, function=_texts, file=_texts, line=_whole, in_app=st.booleans())
_raised = st.builds(
    Raised,
    type=_names,
    message=_texts,
    relation=st.sampled_from(Relation),
    frames=st.lists(_frames, max_size=3).map(tuple),
    notes=st.lists(_texts, max_size=3).map(tuple),
)
_events = st.builds(
    Event,
    id=_ids,
    at=st.floats(0, 4e9),
    kind=st.sampled_from(Kind),
    service=_names,
    message=_names,
    raised=st.lists(_raised, max_size=3).map(tuple),
    handled=st.booleans(),
    count=st.integers(1, ALIKE_LIMIT),
    facts=st.dictionaries(_texts, _scalars, max_size=3),
    context=_json,
    system=_json,
    release=_texts,
    severity=_texts,
    problem=_texts,
    fingerprint=_texts,
)
_calls = st.builds(
    Calls,
    service=_names,
    method=_names,
    caller=_texts,
    count=_whole,
    failures=_whole,
    seconds=st.floats(0, 1e9),
    buckets=st.just(()) | st.lists(_whole, min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1).map(tuple),
)
_declared = st.builds(
    Declared,
    service=_names,
    name=_names,
    value=_numbers,
    low=st.none() | _numbers,
    high=st.none() | _numbers,
    help=_texts,
) | st.builds(Declared, service=_names, name=_names, value=_numbers.map(abs), counter=st.just(True))
_batches = st.builds(
    Batch,
    sender=st.builds(Sender, boot=_ids, name=_texts, host=_texts, pid=_whole),
    seq=st.integers(1, COUNT_LIMIT),
    events=st.lists(_events, max_size=2).map(tuple),
    calls=st.lists(_calls, max_size=2).map(tuple),
    declared=st.lists(_declared, max_size=2).map(tuple),
    dropped=st.dictionaries(_texts, _whole, max_size=2),
    shedding=st.booleans(),
)


@given(_events)
def test_an_event_survives_the_wire(event: Event) -> None:
    sent = json.loads(json.dumps(write_event(event)))

    assert read_event(sent, now=NOW) == event


@given(_batches)
def test_a_batch_survives_the_wire(batch: Batch) -> None:
    sent = json.loads(json.dumps(write_batch(batch)))

    assert read_body(sent, now=NOW) == batch


def test_what_is_as_by_default_is_left_out() -> None:
    event = Event(id="0" * 32, at=NOW, kind=Kind.TASK, service="a", message="b", raised=(Raised(type="E"),))

    assert write_event(event) == {
        "id": "0" * 32,
        "at": NOW,
        "kind": "task",
        "service": "a",
        "message": "b",
        "raised": [{"type": "E"}],
    }


def test_service_and_message_are_enough() -> None:
    event = read_body({"service": "ai-router", "message": "no answer"}, now=NOW)

    assert isinstance(event, Event)
    assert (event.service, event.message) == ("ai-router", "no answer")
    assert (event.kind, event.at, event.count, event.handled) == (Kind.REPORTED, NOW, 1, False)
    assert len(bytes.fromhex(event.id)) == 16


def test_events_without_a_sender_are_a_batch_of_their_own() -> None:
    given = {"events": [{"service": "a", "message": "b"}]}

    one, other = read_body(given, now=NOW), read_body(given, now=NOW)

    assert isinstance(one, Batch)
    assert isinstance(other, Batch)
    assert one.seq == 1
    assert one.sender.boot != other.sender.boot


def test_the_message_of_the_exception_stands_for_a_missing_one() -> None:
    given = {"service": "a", "raised": [{"type": "ValueError", "message": "no"}]}

    assert read_event(given, now=NOW).message == "ValueError: no"


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),
        ("01234567-89AB-cdef-0123-456789abcdef", "0123456789abcdef0123456789abcdef"),
    ],
)
def test_an_id_is_read_in_both_its_forms(given: str, same: str) -> None:
    assert read_event({"service": "a", "message": "b", "id": given}, now=NOW).id == same


def test_another_id_becomes_the_same_one_of_our_form_each_time() -> None:
    given = {"service": "a", "message": "b", "id": "order 17"}

    first, second = read_event(given, now=NOW), read_event(given, now=NOW)

    assert first.id == second.id
    assert len(bytes.fromhex(first.id)) == 16


def _event(**more: Any) -> dict[str, Any]:
    return {"service": "a", "message": "b", **more}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "body: must be an object"),
        ({"events": 1}, "events: must be a list"),
        ({"events": [1]}, "events[0]: must be an object"),
        ({"events": [_event(), _event(raised=[{"type": 1}])]}, "events[1].raised[0].type: must be a text"),
        ({"events": [{"service": "a"}]}, "events[0].message: is missing; say what went wrong"),
        ({"events": [{"message": "a"}]}, "events[0].service: is missing; give a text"),
        ({"events": [_event(at=1.7e12)]}, "events[0].at: must be seconds since 1970 (not milliseconds)"),
        ({"events": [_event(at=True)]}, "events[0].at: must be a finite number"),
        ({"events": [_event(at=math.inf)]}, "events[0].at: must be a finite number"),
        ({"events": [_event(at=10**400)]}, "events[0].at: must be a finite number"),
        ({"events": [_event(count=0)]}, "events[0].count: must be a whole number of at least 1"),
        ({"events": [_event(count=True)]}, "events[0].count: must be a whole number of at least 1"),
        ({"events": [_event(handled="no")]}, "events[0].handled: must be true or false"),
        ({"events": [_event(facts={"a": []})]}, "events[0].facts.a: must be a text or a finite number"),
        ({"events": [_event(context=[])]}, "events[0].context: must be an object"),
        ({"sender": {"boot": "0" * 32}}, "seq: must be a whole number of at least 1"),
        ({"sender": {"boot": 1}, "seq": 1}, "sender.boot: must be a text"),
        (
            {"calls": [{"service": "a", "method": "b", "buckets": [1]}]},
            "calls[0].buckets: must have 13 numbers",
        ),
        (
            {"calls": [{"service": "a", "method": "b", "seconds": -1}]},
            "calls[0].seconds: must not be negative",
        ),
        ({"declared": [{"service": "a", "name": "b"}]}, "declared[0].value: is missing; give a number"),
        ({"events": [{}] * (EVENTS_LIMIT + 1)}, "events: has more than 1000 parts; send several batches"),
        ({"events": [], "dropped": {"full": "7"}}, "dropped.full: must be a whole number of at least 0"),
        ({"events": [], "dropped": {"\ud800": "7"}}, "dropped.\ufffd: must be a whole number of at least 0"),
    ],
)
def test_a_wrong_type_is_refused_with_its_place_and_the_mend(given: object, told: str) -> None:
    with pytest.raises(EventError) as caught:
        read_batch(given, now=NOW)

    assert str(caught.value).startswith(told)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EventError, match=r"kind: must be one of uncaught, thread, .*reported"):
        read_event(_event(kind="strange"), now=NOW)


def test_unknown_keys_and_nulls_are_as_if_they_were_not_there() -> None:
    event = read_event(_event(strange=[1], release=None, raised=None, count=None, facts=None), now=NOW)

    assert (event.release, event.raised, event.count, event.facts) == ("", (), 1, {})


def test_what_is_merely_too_long_is_cut() -> None:
    frames = [{"function": str(number)} for number in range(1000)]
    chain = [{"type": f"E{number}", "frames": frames} for number in range(50)]

    event = read_event(_event(message="x" * 100_000, raised=chain, count=10**30), now=NOW)

    assert len(event.message) == READ_LIMIT
    assert event.message.endswith(CUT)
    assert event.count == ALIKE_LIMIT
    assert [raised.type for raised in event.raised] == [f"E{n}" for n in (0, 1, 2, 3, 46, 47, 48, 49)]
    assert len(event.raised) == CHAIN_LIMIT
    kept = [frame.function for frame in event.raised[0].frames]
    assert len(kept) == FRAMES_LIMIT
    assert (kept[0], kept[24], kept[25], kept[-1]) == ("0", "24", "975", "999")


def test_context_is_cut_where_it_is_too_deep_too_wide_or_too_much() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(500):
        inner["a"] = inner = {}
    wide = {str(number): number for number in range(1000)}
    much = [[[0] * 50] * 50] * 50

    context = read_event(_event(context={"deep": deep, "wide": wide, "much": much}), now=NOW).context

    assert json.dumps(context["deep"]).count("{") == 7
    assert len(context["wide"]) == WIDTH_LIMIT + 1
    assert context["wide"][CUT] == "900 more"
    assert json.dumps(context).count("0,") < ITEMS_LIMIT + WIDTH_LIMIT


def test_what_json_cannot_say_becomes_text() -> None:
    context = read_event(_event(context={"a": math.nan, "b": 10**30, "c": "\ud800x"}), now=NOW).context

    assert context == {"a": "nan", "b": "a number of 100 bits", "c": "\ufffdx"}


_keys = st.sampled_from(
    sorted(
        {
            item.name
            for kind in (Batch, Sender, Event, Raised, Frame, Calls, Declared)
            for item in fields(kind)
        }
    )
)
_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63, 1e308, math.nan, math.inf, -0.0])
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["\ud800", "\udc00\ud800", "\x00", "…", "task", "cause"]),
    lambda inner: st.lists(inner) | st.dictionaries(_keys | st.text(), inner),
    max_leaves=30,
)
_almost = st.fixed_dictionaries(
    {"service": _names | _anything, "message": _names | _anything},
    optional={
        "raised": st.lists(
            st.fixed_dictionaries({"type": _names}, optional={"frames": _anything, "notes": _anything})
        )
        | _anything,
        "facts": st.dictionaries(st.text(), _anything) | _anything,
        "context": _anything,
        "system": _anything,
        "at": _anything,
        "count": _anything,
        "kind": st.sampled_from(Kind) | _anything,
    },
)
_bodies = (
    _anything
    | _almost
    | st.fixed_dictionaries(
        {},
        optional={
            "events": st.lists(_almost) | _anything,
            "sender": _anything,
            "seq": _anything,
            "calls": _anything,
        },
    )
)


@settings(max_examples=300)
@given(_bodies)
def test_whatever_comes_is_read_or_refused(body: object) -> None:
    try:
        value = read_body(body, now=NOW)
    except EventError as error:
        str(error).encode()
    else:
        written = write_batch(value) if isinstance(value, Batch) else write_event(value)
        json.dumps(written, allow_nan=False).encode()
        assert read_body(json.loads(json.dumps(written)), now=NOW) == value


@pytest.mark.parametrize(
    "body",
    [
        {"events": [_event(context={"a": [[0] * 1000] * 1000})] * 100},
        {"events": [_event(message="x" * 10_000_000)] * 10},
        _event(raised=[{"type": "E", "frames": [{}] * 1_000_000}] * 1000),
        _event(facts={str(number): number for number in range(1_000_000)}),
        _event(id="-" * 10_000_000),
    ],
)
def test_a_huge_body_is_read_in_bounded_time(body: dict[str, Any]) -> None:
    began = time.process_time()

    read_body(body, now=NOW)

    assert time.process_time() - began < 2.0  # ten times and more what it takes


def test_a_stack_that_no_exception_stands_for_has_no_type() -> None:
    event = read_event(_event(raised=[{"type": "", "frames": [{"function": "f"}]}]), now=NOW)

    assert event.raised == (Raised(type="", frames=(Frame(function="f"),)),)


def test_a_counter_that_falls_is_a_mistake() -> None:
    fallen = {"service": "a", "name": "cost", "value": -1, "counter": True}

    with pytest.raises(EventError, match=r"declared\[0\]\.value: must not be negative"):
        read_batch({"declared": [fallen]}, now=NOW)
