"""Calls and declared values of applications, added up and exposed."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from remediator import telemetry
from remediator.telemetry import REST, Telemetry
from soulfra_monitor.events import BOUNDS, Batch, Calls, Declared, Sender

BUCKETS = (1, 2, *[0] * (len(BOUNDS) - 2), 4)


def batch(*parts: Calls | Declared, service: str = "shop", **more: object) -> Batch:
    return Batch(
        sender=Sender(boot="0" * 32, service=service),
        seq=1,
        calls=tuple(part for part in parts if isinstance(part, Calls)),
        declared=tuple(part for part in parts if isinstance(part, Declared)),
        **more,  # type: ignore[arg-type]
    )


def made() -> tuple[Telemetry, CollectorRegistry]:
    registry = CollectorRegistry()
    return Telemetry(registry), registry


def value(registry: CollectorRegistry, name: str, labels: Mapping[str, str]) -> float | None:
    return registry.get_sample_value(name, dict(labels))


def test_deltas_of_calls_add_up_with_who_called() -> None:
    counted, registry = made()
    calls = Calls(
        service="shop", method="buy", caller="cart", count=7, failures=2, seconds=1.5, buckets=BUCKETS
    )

    for _ in range(3):
        counted.take(batch(calls), 100.0)

    labels = {"target": "shop", "method": "buy", "caller": "cart"}
    assert value(registry, "soulfra_calls_total", labels) == 21
    assert value(registry, "soulfra_call_failures_total", labels) == 6
    method = {"target": "shop", "method": "buy"}
    assert value(registry, "soulfra_call_duration_seconds_sum", method) == 4.5
    assert value(registry, "soulfra_call_duration_seconds_count", method) == 21
    assert value(registry, "soulfra_call_duration_seconds_bucket", {**method, "le": "0.001"}) == 3
    assert value(registry, "soulfra_call_duration_seconds_bucket", {**method, "le": "10.0"}) == 9


def test_calls_without_buckets_are_put_where_their_mean_is() -> None:
    counted, registry = made()
    counted.take(batch(Calls(service="shop", method="buy", count=4, seconds=8.0)), 100.0)

    at = {"target": "shop", "method": "buy"}
    assert value(registry, "soulfra_call_duration_seconds_bucket", {**at, "le": "1.0"}) == 0
    assert value(registry, "soulfra_call_duration_seconds_bucket", {**at, "le": "2.5"}) == 4


def test_a_gauge_is_its_last_value_and_a_counter_adds_up() -> None:
    counted, registry = made()
    for number in (0.7, 0.9):
        counted.take(
            batch(
                Declared(service="shop", name="quality", value=number, low=0.8),
                Declared(service="shop", name="cost", value=number, counter=True, high=5.0),
            ),
            100.0,
        )

    assert value(registry, "soulfra_declared_value", {"target": "shop", "name": "quality"}) == 0.9
    assert value(registry, "soulfra_declared_low", {"target": "shop", "name": "quality"}) == 0.8
    cost = value(registry, "soulfra_declared_total", {"target": "shop", "name": "cost"})
    assert cost is not None
    assert math.isclose(cost, 1.6)
    assert value(registry, "soulfra_declared_high", {"target": "shop", "name": "cost"}) == 5.0


def test_what_senders_dropped_is_told_with_when_they_were_heard() -> None:
    counted, registry = made()
    counted.take(batch(dropped={"queue_full": 3}, shedding=True), 100.0)
    counted.take(batch(dropped={"queue_full": 2}), 200.0)
    counted.drop("shop", "sample_rate", 4, 200.0)

    assert value(registry, "soulfra_sender_dropped_total", {"target": "shop", "reason": "queue_full"}) == 5
    assert value(registry, "soulfra_sender_dropped_total", {"target": "shop", "reason": "sample_rate"}) == 4
    assert value(registry, "soulfra_sender_last_seen_timestamp_seconds", {"target": "shop"}) == 200
    assert value(registry, "soulfra_sender_shedding", {"target": "shop"}) == 0


def calls_of(service: str, method: str, caller: str = "") -> Batch:
    return batch(Calls(service=service, method=method, caller=caller, count=1))


def test_series_are_bounded_and_nothing_is_lost_above_the_bound() -> None:
    counted, registry = made()
    for number in range(telemetry.METHODS_LIMIT + 25):
        counted.take(calls_of("shop", f"m{number}"), 100.0)
    for number in range(telemetry.CALLERS_LIMIT + 25):
        counted.take(calls_of("shop", "m0", f"c{number}"), 100.0)

    rest = value(registry, "soulfra_calls_total", {"target": "shop", "method": REST, "caller": ""})
    assert rest == 25
    assert value(registry, "soulfra_calls_total", {"target": "shop", "method": "m0", "caller": REST}) == 26


def test_whatever_strangers_send_a_scrape_stays_small_and_configured_services_have_room() -> None:
    registry = CollectorRegistry()
    counted = Telemetry(registry, ["till"])
    for service in range(telemetry.SERVICES_LIMIT + 50):
        for method in range(20):
            counted.take(calls_of(f"s{service}", f"m{method}", f"c{method}"), 100.0)
    counted.take(calls_of("till", "open"), 100.0)

    assert generate_latest(registry).count(b"\n") < 1.2 * telemetry.STRANGERS_LIMIT
    assert value(registry, "soulfra_calls_total", {"target": "till", "method": "open", "caller": ""}) == 1
    assert (
        value(registry, "soulfra_calls_total", {"target": REST, "method": REST, "caller": REST}) is not None
    )


def test_a_stranger_that_falls_silent_makes_room_and_a_configured_service_does_not() -> None:
    registry = CollectorRegistry()
    counted = Telemetry(registry, ["till"])
    counted.take(calls_of("stranger", "m"), 100.0)
    counted.take(calls_of("till", "m"), 100.0)

    counted.take(calls_of("other", "m"), 101.0 + telemetry.FORGOTTEN_AFTER)

    assert value(registry, "soulfra_calls_total", {"target": "stranger", "method": "m", "caller": ""}) is None
    assert value(registry, "soulfra_calls_total", {"target": "till", "method": "m", "caller": ""}) == 1


def test_names_show_no_secret_and_are_short() -> None:
    counted, registry = made()
    secret = "hunter" + "2hunter2"
    counted.take(batch(Calls(service="shop", method=f"password={secret}" + "x" * 500, count=1)), 100.0)

    text = generate_latest(registry).decode()
    assert secret not in text
    assert max(map(len, text.splitlines())) < 300


def test_both_formats_can_be_read() -> None:
    counted, registry = made()
    counted.take(
        batch(
            Calls(service='a"b\\', method="m\n", count=2, seconds=0.1, buckets=(2, *[0] * len(BOUNDS))),
            Declared(service="shop", name="cost", value=1, counter=True),
            Declared(service="shop", name="price", value=1),
            dropped={"x": 1},
        ),
        100.0,
    )

    write: Any = generate_openmetrics
    read: Any = text_string_to_metric_families
    families = list(read(write(registry).decode()))
    assert len({family.name for family in families}) == len(families)
    assert generate_latest(registry)


def test_a_redaction_that_fails_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    _, registry = made()
    monkeypatch.setattr(telemetry, "FAILURES", Counter({"RecursionError": 3}))

    assert value(registry, "soulfra_redaction_failures_total", {}) == 3
