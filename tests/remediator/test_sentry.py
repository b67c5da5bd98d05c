"""What Sentry's SDKs send, read as events of ours."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator import sentry
from remediator.sentry import event_of, read_auth, read_envelope, service_of
from soulfra_monitor.events import Event, EventError, Kind, Relation

NOW = 1_800_000_000.0


def read(payload: dict[str, Any]) -> Event:
    return event_of(payload, service="shop", now=NOW)


def raised(name: str, **more: Any) -> dict[str, Any]:
    return {"type": name, "value": f"{name} happened", **more}


def envelope(*items: tuple[dict[str, Any], bytes], header: str = '{"event_id": "1"}') -> bytes:
    parts = [header.encode()]
    for head, payload in items:
        parts += [json.dumps(head).encode(), payload]
    return b"\n".join(parts)


def test_a_chain_begins_with_what_was_seen_and_says_how_the_others_belong_to_it() -> None:
    values = [
        raised("KeyError", mechanism={"type": "chained", "source": "__context__"}),
        raised("ValueError", mechanism={"type": "chained", "source": "__cause__"}),
        raised("RuntimeError", module="shop.till", mechanism={"type": "excepthook", "handled": False}),
    ]

    event = read({"exception": {"values": values}})

    assert [(one.type, one.relation) for one in event.raised] == [
        ("shop.till.RuntimeError", Relation.RAISED),
        ("ValueError", Relation.CAUSE),
        ("KeyError", Relation.CONTEXT),
    ]
    assert (event.kind, event.handled, event.message) == (Kind.UNCAUGHT, False, "RuntimeError happened")


def test_members_of_groups_are_told_as_such() -> None:
    values = [
        raised("KeyError", mechanism={"type": "chained", "source": "exceptions[0]"}),
        raised("ExceptionGroup", module="builtins"),
    ]

    assert [one.relation for one in read({"exception": {"values": values}}).raised] == ["raised", "member"]


@pytest.mark.parametrize(
    ("mechanism", "kind"),
    [
        ("excepthook", Kind.UNCAUGHT),
        ("threading", Kind.THREAD),
        ("asyncio", Kind.TASK),
        ("unraisablehook", Kind.UNRAISABLE),
        ("logging", Kind.LOGGED),
        ("auto.node.onuncaughtexception", Kind.UNCAUGHT),
        ("auto.node.onunhandledrejection", Kind.REJECTION),
        ("onunhandledrejection", Kind.REJECTION),
        ("generic", Kind.REPORTED),
        ("", Kind.REPORTED),
    ],
)
def test_how_it_was_noticed_is_read_from_the_mechanism(mechanism: str, kind: Kind) -> None:
    assert read({"exception": {"values": [raised("E", mechanism={"type": mechanism})]}}).kind is kind


def test_frames_keep_place_and_whose_code_it_is() -> None:
    frames = [
        {"module": "shop.till", "function": "open", "filename": "shop/till.py", "lineno": 12, "in_app": True},
        {"filename": "node:internal/x", "function": "y", "in_app": False, "vars": {"secret": 1}},
    ]

    (one,) = read({"exception": {"values": [raised("E", stacktrace={"frames": frames})]}}).raised

    assert [(f.module, f.function, f.file, f.line, f.in_app) for f in one.frames] == [
        ("shop.till", "open", "shop/till.py", 12, True),
        ("node:internal/x", "y", "node:internal/x", 0, False),
    ]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"message": "plain"}, "plain"),
        ({"message": {"formatted": "old form"}}, "old form"),
        ({"logentry": {"message": "a %s", "params": ["b"]}}, "a %s"),
        ({"logentry": {"message": "a %s", "formatted": "a b"}}, "a b"),
        ({"exception": {"values": [{"type": "E"}]}}, "E"),
        ({}, "an event without a message"),
    ],
)
def test_an_event_always_has_a_message(payload: dict[str, Any], message: str) -> None:
    assert read(payload).message == message


def test_a_log_entry_is_logged_and_its_level_is_an_opinion() -> None:
    event = read({"logger": "shop", "level": "fatal", "message": "gone"})

    assert (event.kind, event.handled, event.severity) == (Kind.LOGGED, True, "critical")


@pytest.mark.parametrize(
    ("timestamp", "at"),
    [
        (1_700_000_000.25, 1_700_000_000.25),
        ("2023-11-14T22:13:20.250000Z", 1_700_000_000.25),
        ("2023-11-14T22:13:20.25", 1_700_000_000.25),
        ("2023-11-14T23:13:20.250+01:00", 1_700_000_000.25),
        ("yesterday", NOW),
        (None, NOW),
        (True, NOW),
    ],
)
def test_the_time_is_the_sender_s_where_it_can_be_read(timestamp: Any, at: float) -> None:
    assert read({"message": "x", "timestamp": timestamp}).at == at


@pytest.mark.parametrize("timestamp", [10**400, -1, 1e400, float("nan")])
def test_a_time_that_cannot_be_is_a_mistake(timestamp: float) -> None:
    with pytest.raises(EventError, match="at: must be"):
        read({"message": "x", "timestamp": timestamp})


def test_neither_user_nor_bodies_nor_headers_nor_locals_are_kept() -> None:
    secret = "s3cr" + "et-of-somebody"
    event = read(
        {
            "message": "x",
            "user": {"email": secret, "ip_address": secret},
            "request": {
                "url": f"https://shop.example/pay?card={secret}",
                "query_string": secret,
                "data": {"x": secret},
                "headers": {"Cookie": secret},
                "cookies": secret,
                "method": "POST",
            },
            "contexts": {"response": {"status_code": 502, "body": secret}, "state": {"x": secret}},
            "breadcrumbs": {"values": [{"category": "http", "data": {"x": secret}, "message": "GET"}]},
            "modules": {secret: "1"},
        }
    )

    assert secret not in repr(event)
    assert event.facts == {"url": "https://shop.example/pay", "http_method": "POST", "status": 502}
    assert event.context["breadcrumbs"] == [{"category": "http", "message": "GET"}]


def test_a_fingerprint_of_people_is_taken_and_the_default_is_not() -> None:
    assert (
        read({"message": "x", "fingerprint": ["till", "{{ default }}"]}).fingerprint == "till|{{ default }}"
    )
    assert read({"message": "x", "fingerprint": ["{{ default }}"]}).fingerprint == ""


@pytest.mark.parametrize("tags", [{"service": "till"}, [["a", "b"], ["service", "till"]]])
def test_a_tag_names_the_service(tags: Any) -> None:
    assert service_of({"tags": tags}) == "till"


def test_items_are_told_apart_by_their_lengths_and_without_one_by_the_line() -> None:
    with_newline = b'{"a":\n1}'
    data = envelope(
        ({"type": "event", "length": len(with_newline)}, with_newline),
        ({"type": "session"}, b'{"b": 2}'),
        ({"type": "attachment", "length": 0}, b""),
        ({"type": "event"}, b'{"c": 3}'),
    )

    found = read_envelope(data)

    assert [(item.type, item.payload) for item in found.items] == [
        ("event", with_newline),
        ("session", b'{"b": 2}'),
        ("attachment", b""),
        ("event", b'{"c": 3}'),
    ]
    assert list(found.errors()) == [{"a": 1}, {"c": 3}]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "header: is not JSON"),
        (b"[]", "header: must be an object"),
        (b"{}\nx", "item 0: its header: is not JSON"),
        (b'{}\n{"type": "event", "length": 9}\n{}', "item 0.length"),
        (b'{}\n{"type": "event", "length": -1}\n{}', "item 0.length"),
        (b'{}\n{"type": "event", "length": true}\n{}', "item 0.length"),
        (b'{}\n{"type": "event", "length": 2}\n{}x', "payload is longer"),
        (b" " * 9000, "longer than 8192 bytes"),
        (b"{}\n" + b'{"type": "x"}\n{}\n' * 101, "more than 100 items"),
    ],
)
def test_an_envelope_that_is_none_is_told_with_its_place(data: bytes, told: str) -> None:
    with pytest.raises(EventError, match=told.replace(".", r"\.")):
        read_envelope(data)


@given(st.binary(max_size=400))
def test_any_bytes_are_an_envelope_or_an_error(data: bytes) -> None:
    try:
        found = read_envelope(b"{}\n" + data)
        list(found.errors())
        list(found.discarded())
    except EventError:
        pass


def test_the_key_of_the_auth_header_is_found() -> None:
    assert read_auth("Sentry sentry_version=7, sentry_key=abc, sentry_client=x") == "abc"
    assert read_auth("sentry sentry_key=abc") == "abc"
    assert read_auth("Bearer abc") == ""
    assert read_auth("") == ""


def test_a_tunnel_s_dsn_gives_the_key() -> None:
    assert read_envelope(b'{"dsn": "http://key1@host/1"}\n').key == "key1"
    assert read_envelope(b'{"dsn": "nonsense"}\n').key == ""
    assert sentry.ITEMS_LIMIT == 100
