"""What is unusual about an error that is known."""

from dataclasses import replace
from typing import Any

import pytest

from remediator.events import signal_of_event
from remediator.rhythm import KEPT, LEARNING, Rhythm
from remediator.signals import Admission, open_error
from soulfra_monitor.classify import History
from soulfra_monitor.events import Event, Kind
from soulfra_monitor.problems import Severity

BEGAN = 600_000.0
NOW = BEGAN + 2 * 3600


def event(**changes: Any) -> Event:
    made = Event(id="0" * 32, at=1.0, kind=Kind.LOGGED, service="shop", message="it did not work")
    return replace(made, **changes)


def take(rhythm: Rhythm, at: float, count: int = 1, **changes: Any) -> str:
    """Let the rhythm see an event; return its fingerprint."""
    signal = signal_of_event(event(count=count), at)
    error = replace(open_error(signal, "SE_00000001"), **changes)
    rhythm.note(Admission(signal=signal, error=error))
    return signal.fingerprint


@pytest.fixture
def rhythm() -> Rhythm:
    return Rhythm(BEGAN)


def test_what_came_within_five_minutes_is_recent_and_the_hour_before_is_usual(rhythm: Rhythm) -> None:
    for minute in range(59, 4, -1):
        found = take(rhythm, NOW - 60 * minute + 1, 2)
    for minute in range(4, 0, -1):
        take(rhythm, NOW - 60 * minute + 1, 10)

    assert rhythm.history("shop", found, 7, NOW) == History(recent=47, usual=10.0)
    assert rhythm.history("bank", found, 1, NOW) == History(recent=1)


def test_after_a_start_nothing_is_unusual(rhythm: Rhythm) -> None:
    found = take(rhythm, BEGAN + 1, 1000)

    assert rhythm.history("shop", found, 1000, BEGAN + LEARNING - 1) == History()


def test_a_recovery_that_failed_is_remembered_until_one_helps(rhythm: Rhythm) -> None:
    found = take(rhythm, NOW, attempts=1)
    assert rhythm.history("shop", found, 1, NOW).recovery_failed

    take(rhythm, NOW, attempts=1, recovered_by="run")
    assert not rhythm.history("shop", found, 1, NOW).recovery_failed


def test_what_is_remembered_is_bounded(rhythm: Rhythm) -> None:
    signal = signal_of_event(event(), NOW)
    for number in range(KEPT + 100):
        one = replace(signal, fingerprint=f"v1.{number:016x}")
        rhythm.note(Admission(signal=one, error=None))
    for minute in range(500):
        rhythm.note(Admission(signal=replace(signal, received_at=NOW + 60 * minute), error=None))

    assert len(rhythm._prints) == KEPT
    assert len(rhythm._prints["shop", signal.fingerprint].minutes) == 60


def test_a_sudden_rise_makes_an_error_worse_and_says_so(make_world: Any) -> None:
    world = make_world(start=False)
    world.engine.accept_events([event(service="web")])
    before = world.error().severity
    world.offset += 2 * LEARNING
    for number in range(1, 12):
        world.engine.accept_events([event(service="web", id=f"{number:032x}")])

    assert list(Severity).index(world.error().severity) < list(Severity).index(before)
    (member,) = world.store.membership(world.error().id)
    assert any("in 5 minutes, usually 0" in reason for reason in member.detail["reasons"])
