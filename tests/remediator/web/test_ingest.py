"""Errors of applications come in: taken durably and once, or refused with a reason; nothing falls over."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediator.config import Role
from remediator.store import StoreError
from soulfra_monitor.events import Batch, Calls, Event, Kind, Sender
from soulfra_monitor.wire import write_batch

ERRORS = "/api/monitoring/errors"
ENVELOPE = "/api/1/envelope/"
BOOT = "ab" * 16
ONE = {"service": "web", "message": "the till is stuck"}


def batch(seq: int = 1, count: int = 1, **more: Any) -> dict[str, Any]:
    event = Event(id="c" * 32, at=1.0, kind=Kind.UNCAUGHT, service="web", message="boom", count=count)
    calls = (Calls(service="web", method="buy", count=5, failures=1, seconds=0.5),)
    sender = Sender(boot=BOOT, service="web")
    return write_batch(Batch(sender=sender, seq=seq, events=(event,), calls=calls, **more))


def envelope(payload: Any, kind: str = "event", **header: Any) -> bytes:
    body = json.dumps(payload).encode()
    lines = [{"event_id": "e" * 32, **header}, {"type": kind, "length": len(body)}]
    return b"\n".join([*(json.dumps(line).encode() for line in lines), body, b""])


EXCEPTION = {
    "event_id": "e" * 32,
    "timestamp": 1_800_000_000.5,
    "level": "error",
    "exception": {"values": [{"type": "ZeroDivisionError", "value": "division by zero"}]},
}


# One event, and batches


def test_a_service_and_a_message_are_enough(idle_world: Any, client: Any) -> None:
    answer = client.post(ERRORS, data=json.dumps(ONE))

    assert answer.status_code == 200
    error = idle_world.error()
    assert answer.json["errors"] == [error.id]
    assert (error.target, error.message, error.state) == ("web", "the till is stuck", "pending")
    (listed,) = client.get(ERRORS).json["errors"]
    assert listed["service"] == "web"


def test_the_same_event_is_taken_once(idle_world: Any, client: Any) -> None:
    for _ in range(3):
        answer = client.post(ERRORS, json={**ONE, "id": "d" * 32})
        assert answer.status_code == 200

    assert answer.json["repeated"]
    assert idle_world.error().signals == 1
    assert (
        idle_world.count("soulfra_error_events_total", target="web", severity=idle_world.error().severity)
        == 1
    )


def test_a_batch_is_taken_once_with_all_that_it_counts(idle_world: Any, client: Any) -> None:
    answers = [client.post(ERRORS, json=batch(count=4, dropped={"queue_full": 2})).json for _ in range(3)]

    assert [answer["repeated"] for answer in answers] == [False, True, True]
    calls = {"target": "web", "method": "buy", "caller": ""}
    assert idle_world.count("soulfra_calls_total", **calls) == 5
    assert idle_world.count("soulfra_sender_dropped_total", target="web", reason="queue_full") == 2
    assert idle_world.count("soulfra_problem_events_total", target="web", problem="uncaught_exception") == 4
    client.post(ERRORS, json=batch(seq=2))
    assert idle_world.count("soulfra_calls_total", **calls) == 10


def test_a_batch_that_cannot_be_stored_is_a_503_and_counts_when_it_comes_again(
    idle_world: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(idle_world.store, "accept_batch", full, raising=False)
        assert client.post(ERRORS, json=batch()).status_code == 503
    assert idle_world.count("soulfra_calls_total", target="web", method="buy", caller="") == 0

    assert not client.post(ERRORS, json=batch()).json["repeated"]
    assert idle_world.count("soulfra_calls_total", target="web", method="buy", caller="") == 5


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "event: must be an object"),
        (b'{"service": "web"}', "message: is missing"),
        (b'{"message": "x"}', "service: is missing"),
        (b'{"service": "web", "message": 1}', "message: must be a text"),
        (b'{"events": [{"service": "web", "message": "x", "count": 0}]}', "events[0].count: must be"),
        (b'{"events": {}}', "events: must be a list"),
        (b'{"sender": {"boot": "x"}, "events": []}', "seq: must be"),
    ],
)
def test_what_cannot_be_read_is_a_400_with_its_place(
    idle_world: Any, client: Any, body: bytes, told: str
) -> None:
    answer = client.post(ERRORS, data=body)

    assert answer.status_code == 400
    assert told in answer.json["error"]
    assert idle_world.errors() == []


def test_known_services_count_from_zero(idle_world: Any) -> None:
    for severity in ("critical", "high", "medium", "low"):
        sample = ("soulfra_error_events_total", {"target": "mail", "severity": severity})
        assert idle_world.metrics.registry.get_sample_value(*sample) == 0


def test_services_that_nobody_has_configured_are_bounded_in_metrics(
    idle_world: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remediator.metrics.TARGETS_LIMIT", 6)  # four are configured
    for number in range(5):
        client.post(ERRORS, json={**ONE, "service": f"stranger-{number}"})

    text = client.get("/metrics").text
    assert 'soulfra_problem_events_total{problem="other",target="stranger-1"}' in text
    assert "stranger-2" not in text
    assert idle_world.count("soulfra_problem_events_total", target="(other)", problem="other") == 3


def test_a_disabled_intake_takes_nothing_and_says_so(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    world = make_world(start=False, remediator={"events": {"enabled": False}})

    for body in (batch(), ONE):
        answer = client_of(world).post(ERRORS, json=body)

        assert (answer.status_code, answer.json["accepted"]) == (200, 0)
        assert "not taken in" in answer.json["detail"]
    assert world.errors() == []


# Bodies


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "identity": bytes,
}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"), [*PACKERS.items(), ("deflate", raw_deflate), ("GZIP", gzip.compress)]
)
def test_packed_bodies_are_unpacked(client: Any, coding: str, pack: Callable[[bytes], bytes]) -> None:
    body = pack(json.dumps({**ONE, "message": "packed " * 50_000}).encode())

    assert client.post(ERRORS, data=body, headers={"Content-Encoding": coding}).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_bomb_is_a_413_and_costs_no_more_than_the_limit(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any], coding: str
) -> None:
    client = client_of(make_world(start=False, remediator={"events": {"max_unpacked": 1024 * 1024}}))
    bomb = PACKERS[coding](bytes(300 * 1024 * 1024 if coding == "br" else 100 * 1024 * 1024))
    assert len(bomb) < 256 * 1024

    answer = client.post(ERRORS, data=bomb, headers={"Content-Encoding": coding})

    assert answer.status_code == 413
    assert "unpacked" in answer.json["error"]


def test_a_body_that_is_too_large_as_it_is_sent_is_a_413(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    client = client_of(make_world(start=False, remediator={"events": {"max_body": 2048}}))

    assert client.post(ERRORS, data=b" " * 2049).status_code == 413
    assert client.post(ERRORS, data=b" " * 2000 + json.dumps(ONE).encode()[:40]).status_code == 400


@pytest.mark.parametrize(
    ("coding", "data", "status"),
    [
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
        ("br", b"\xff\xff\xff\xff", 400),
        ("br", brotli.compress(b'{"a": 1}' * 1000)[:-3], 400),
        ("zstd", b"", 415),
        ("gzip, gzip", gzip.compress(b"{}", mtime=0), 415),
    ],
)
def test_what_is_not_as_it_says_is_refused(client: Any, coding: str, data: bytes, status: int) -> None:
    answer = client.post(ERRORS, data=data, headers={"Content-Encoding": coding})

    assert answer.status_code == status
    assert answer.json["error"]


# Limits


def test_too_many_posts_of_one_address_are_a_429_with_when_to_come_again(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    limits = {"per_sender": {"per_second": 0.1, "burst": 3}}
    client = client_of(make_world(start=False, remediator={"events": limits}))

    statuses = [client.post(ERRORS, json=ONE).status_code for _ in range(3)]
    refused = client.post(ERRORS, json=ONE)

    assert statuses == [200] * 3
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 10
    assert refused.headers["X-Sentry-Rate-Limits"] == f"{refused.headers['Retry-After']}:error;default:key"
    assert refused.headers["RateLimit-Limit"] == "3"
    assert refused.json["retryAfter"] == int(refused.headers["Retry-After"])
    assert client.get(ERRORS).status_code == 200, "readers are not held back"


def test_a_service_that_floods_leaves_the_others_alone(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    limits = {"per_service": {"per_second": 0.1, "burst": 5}}
    world = make_world(start=False, remediator={"events": limits})
    client = client_of(world)
    flood = {"events": [{"service": "web", "message": f"boom {'x' * number}"} for number in range(5)]}

    assert client.post(ERRORS, json=flood).status_code == 200
    assert client.post(ERRORS, json=flood).status_code == 429
    assert client.post(ERRORS, json={**ONE, "service": "mail"}).status_code == 200
    assert sum(error.signals for error in world.errors("web")) == 5


def test_a_large_body_counts_as_many_posts(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    limits = {"per_sender": {"per_second": 0.1, "burst": 10}}
    client = client_of(make_world(start=False, remediator={"events": limits}))
    large = gzip.compress(json.dumps({**ONE, "context": {"x": "y" * 30_000}}).encode())

    statuses = [
        client.post(ERRORS, data=large, headers={"Content-Encoding": "gzip"}).status_code for _ in range(2)
    ]

    assert statuses == [200, 429]


def test_one_service_that_floods_takes_nothing_of_the_others_in_the_same_post(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    limits = {"per_service": {"per_second": 0.1, "burst": 3}}
    client = client_of(make_world(start=False, remediator={"events": limits}))
    client.post(ERRORS, json={"events": [ONE, ONE, ONE]})
    mixed = {"events": [{**ONE, "service": "mail"}] * 3 + [ONE]}

    assert client.post(ERRORS, json=mixed).status_code == 429
    assert client.post(ERRORS, json={"events": mixed["events"][:3]}).status_code == 200


# Who may


@pytest.mark.parametrize(
    "path", [ERRORS, ENVELOPE, "/api/1/store/", "/web/api/1/envelope/", "/api/monitoring/heartbeats/x"]
)
@pytest.mark.parametrize("role", Role)
def test_senders_and_operators_may_post_and_nobody_else(
    guarded: Any, secrets: Any, path: str, role: Role
) -> None:
    answer = guarded.post(path, data=b"", headers={"Authorization": f"Bearer {secrets[role]}"})

    if role in (Role.INGEST, Role.OPERATOR):
        assert answer.status_code in (400, 404)
    else:
        assert answer.status_code == 403
    assert guarded.post(path, data=b"").status_code == 401


@pytest.mark.parametrize("how", ["header", "query"])
def test_the_key_of_a_dsn_is_the_token(guarded: Any, secrets: Any, how: str) -> None:
    key = secrets[Role.INGEST]

    def post(key: str) -> int:
        auth = {"X-Sentry-Auth": f"Sentry sentry_version=7, sentry_client=x/1, sentry_key={key}"}
        return int(
            guarded.post(
                ENVELOPE,
                data=envelope(EXCEPTION),
                headers=auth if how == "header" else {},
                query_string={"sentry_key": key} if how == "query" else {},
            ).status_code
        )

    assert post(key) == 200
    assert post(secrets[Role.VIEWER]) == 403
    assert post("wrong") == 401


def test_no_page_of_another_site_can_post(client: Any) -> None:
    assert client.post(ENVELOPE, data=b"", headers={"Origin": "http://evil.example"}).status_code == 403


# Sentry


def test_the_service_comes_from_the_path_a_tag_or_the_project(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    world = make_world(start=False, remediator={"events": {"projects": {"2": "mail"}}})
    client = client_of(world)
    tagged = {**EXCEPTION, "tags": {"service": "redis"}}
    for path, payload in (
        ("/web/api/1/envelope/", EXCEPTION),
        ("/api/2/envelope/", EXCEPTION),
        ("/api/3/envelope/", EXCEPTION),
        ("/api/3/envelope/", {**tagged, "event_id": "1" * 32}),
        ("/bare/api/1/store/", None),
    ):
        data = envelope({**EXCEPTION, "event_id": path.encode().hex()[:32].ljust(32, "0"), **(payload or {})})
        if payload is None:
            data = json.dumps({**EXCEPTION, "event_id": "2" * 32}).encode()
        assert client.post(path, data=data).status_code == 200

    targets = {error.target for error in world.errors()}
    assert targets <= {"web", "mail", "project-3", "redis", "bare"}
    assert {"bare", "redis"} <= targets


def test_what_an_sdk_dropped_is_counted(idle_world: Any, client: Any) -> None:
    report = {
        "timestamp": 1.0,
        "discarded_events": [
            {"reason": "queue_overflow", "category": "error", "quantity": 23},
            {"reason": "sample_rate", "category": "transaction", "quantity": 1000},
            {"reason": "rubbish", "category": "error", "quantity": -1},
        ],
    }

    assert client.post("/web/api/1/envelope/", data=envelope(report, "client_report")).status_code == 200

    assert idle_world.count("soulfra_sender_dropped_total", target="web", reason="queue_overflow") == 23
    assert "sample_rate" not in client.get("/metrics").text
    assert idle_world.errors() == []


@pytest.mark.parametrize(
    "kind", ["transaction", "session", "profile", "replay_event", "statsd", "no such thing"]
)
def test_what_is_no_error_is_passed_over(idle_world: Any, client: Any, kind: str) -> None:
    assert client.post(ENVELOPE, data=envelope({"anything": 1}, kind)).status_code == 200
    assert idle_world.errors() == []


def test_an_event_that_is_too_large_is_a_413(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    client = client_of(make_world(start=False, remediator={"events": {"max_event": 4096}}))
    large = {**EXCEPTION, "extra": {"text": "x" * 5000}}

    assert client.post(ENVELOPE, data=envelope(large)).status_code == 413
    assert client.post(ENVELOPE, data=envelope({"x": "y" * 5000}, "transaction")).status_code == 200


KEYS = [
    *("events", "service", "message", "sender", "boot", "seq", "exception", "values", "type", "stacktrace"),
    *("frames", "mechanism", "logentry", "tags", "breadcrumbs", "contexts", "timestamp", "level"),
    *("fingerprint", "calls", "declared", "raised", "facts", "release"),
]
SOUP = st.one_of(
    st.binary(max_size=300),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(
                st.sampled_from(KEYS),
                inner,
                max_size=6,
            ),
        ),
        max_leaves=25,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=SOUP,
    path=st.sampled_from([ERRORS, ENVELOPE, "/api/1/store/", "/web/api/9/envelope/"]),
    framed=st.booleans(),
)
def test_no_rubbish_is_a_500(client: Any, body: bytes, path: str, framed: bool) -> None:
    if framed:
        head = json.dumps({"type": "event", "length": len(body)}).encode()
        body = b"{}\n" + head + b"\n" + body

    answer = client.post(path, data=body)

    assert answer.status_code in (200, 400, 413, 429)
    assert answer.status_code != 400 or answer.json["error"]
