"""What is told and what is counted, tried as a table of times."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulfra_monitor import admission
from soulfra_monitor.admission import Admission, Bucket, Site
from soulfra_monitor.events import Event, Kind

EVENT = Event(id="0" * 32, at=0.0, kind=Kind.LOGGED, service="shop", message="x")


def test_the_first_of_a_key_is_told_at_once() -> None:
    desk = Admission(0.0)

    assert desk.admit("a", "others", 0.0)[1] == 1
    assert desk.admit("b", "others", 0.0)[1] == 1


def test_of_alike_errors_a_few_are_told_and_the_rest_is_counted() -> None:
    desk = Admission(0.0)

    told = [desk.admit("a", "others", 0.0)[1] for _ in range(100)]

    assert told == [1] * 5 + [0] * 95
    assert desk.pending == 95


def test_what_was_counted_comes_out_with_the_next_that_is_told() -> None:
    desk = Admission(0.0)
    for _ in range(20):
        desk.admit("a", "others", 0.0)

    assert desk.admit("a", "others", 10.0)[1] == 16
    assert desk.pending == 0


def test_what_was_counted_comes_out_with_the_sweep() -> None:
    desk = Admission(0.0)
    for _ in range(20):
        entry, _ = desk.admit("a", "others", 3.0)
    entry.event = EVENT

    told = list(desk.sweep(10.0))

    assert [(one.event, one.count, one.last) for one in told] == [(EVENT, 15, 3.0)]
    assert desk.pending == 0
    assert list(desk.sweep(20.0)) == []


def test_counts_wait_while_their_event_is_on_its_way() -> None:
    desk = Admission(0.0)
    for _ in range(20):
        entry, _ = desk.admit("a", "others", 0.0)
    entry.waiting = 1

    assert list(desk.sweep(10.0)) == []
    assert desk.pending == 15


def test_above_the_limit_new_errors_count_as_alike_to_others_of_their_kind() -> None:
    desk = Admission(0.0)

    told = sum(desk.admit(f"key {number}", "others", 0.0)[1] for number in range(10_000))

    assert told + desk.pending == 10_000
    assert told < 220


def test_no_error_is_lost_when_keys_are_forgotten_for_new_ones() -> None:
    desk = Admission(0.0)
    told = 0
    for number in range(5000):
        now = number * 0.06  # slowly enough to be new each time
        for _ in range(10):
            entry, count = desk.admit(f"key {number}", "others", now)
            told += count
            entry.event = EVENT

    swept = sum(one.count for one in desk.sweep(300.0))

    assert told + swept == 50_000
    assert desk.pending == 0


def test_a_key_that_was_idle_for_long_is_new_again() -> None:
    desk = Admission(0.0)
    for _ in range(10):
        desk.admit("a", "others", 0.0)[0].event = EVENT
    list(desk.sweep(1.0))
    list(desk.sweep(admission.IDLE_AFTER + 1.0))

    assert [desk.admit("a", "others", 700.0)[1] for _ in range(5)] == [1] * 5


def test_swallowed_errors_at_their_usual_rate_are_told_once() -> None:
    desk = Admission(0.0)

    told = [
        desk.admit("site", "others", second / 10, swallowed=True)[1]
        for second in range(36_000)  # ten a second, for an hour
    ]

    assert told[0] == 1
    assert sum(told) == 1
    assert sum(told) + desk.usual + desk.pending == 36_000


def test_a_site_that_swallows_more_than_usual_is_told_within_its_window() -> None:
    desk = Admission(0.0)
    for second in range(600):
        desk.admit("site", "others", float(second), swallowed=True)

    times = [600.0 + step / 100 for step in range(1000)]
    told = [(now, desk.admit("site", "others", now, swallowed=True)[1]) for now in times]

    first = next(now for now, count in told if count)
    assert first < 601.0
    assert 1 <= sum(count > 0 for _, count in told) <= 7  # at twice as many each time, not one by one


def test_a_quiet_site_that_swallows_a_few_more_is_not_told() -> None:
    desk = Admission(0.0)
    desk.admit("site", "others", 0.0, swallowed=True)

    assert sum(desk.admit("site", "others", 3600.0 + n, swallowed=True)[1] for n in range(9)) == 0


def test_a_site_is_not_told_by_its_rate_before_the_rate_is_known() -> None:
    desk = Admission(0.0)

    told = [desk.admit("site", "others", step / 100, swallowed=True)[1] for step in range(2000)]

    assert sum(told) == 1


@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0, 100.0])
def test_a_rate_that_only_wavers_is_not_told(rate: float) -> None:
    site = Site(0.0)
    told: Counter[bool] = Counter()
    now = 0.0
    step = 0
    while now < 1000.0:
        now += (0.7 if step % 2 else 1.3) / rate
        step += 1
        site.roll(now)
        told[site.is_unusual()] += 1

    assert told[True] == 0


def test_a_bucket_gives_what_it_holds_and_then_what_comes_back() -> None:
    bucket = Bucket(2.0, 1.0, 0.0)

    assert [bucket.take(0.0), bucket.take(0.0), bucket.take(0.0)] == [True, True, False]
    assert [bucket.take(1.0), bucket.take(1.0)] == [True, False]
    assert [bucket.take(100.0), bucket.take(100.0), bucket.take(100.0)] == [True, True, False]


def test_a_clock_that_goes_back_gives_nothing_and_breaks_nothing() -> None:
    bucket = Bucket(1.0, 1.0, 10.0)

    assert bucket.take(5.0)
    assert not bucket.take(4.0)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["admit", "swallow", "count", "sweep"]),
            st.integers(0, 3),
            st.floats(0.0, 30.0),
        ),
        max_size=200,
    )
)
def test_the_books_balance_whatever_comes(steps: list[tuple[str, int, float]]) -> None:
    desk = Admission(0.0)
    now, seen, told = 0.0, 0, 0

    for what, number, pause in steps:
        now += pause
        if what == "sweep":
            told += sum(one.count for one in desk.sweep(now))
        elif what == "count":
            seen += desk.count(f"admit {number}", "others", now)
        else:
            entry, count = desk.admit(f"{what} {number}", "others", now, swallowed=what == "swallow")
            entry.event = EVENT
            seen += 1
            told += count

    assert told + desk.pending + desk.usual == seen
