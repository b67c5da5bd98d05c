"""Token buckets: how much a name may send, and how many names are remembered."""

from hypothesis import given
from hypothesis import strategies as st

from remediator import rates
from remediator.rates import Rates

SECONDS = st.floats(0, 100, allow_nan=False)


def test_a_burst_is_taken_at_once_and_more_when_time_has_passed() -> None:
    buckets = Rates(per_second=2, burst=4)

    assert [buckets.take("a", 1, 0.0) for _ in range(4)] == [0.0] * 4
    assert buckets.take("a", 1, 0.0) == 0.5
    assert buckets.take("a", 1, 0.5) == 0.0
    assert buckets.left("b", 0.5) == 4


def test_what_is_more_than_a_whole_bucket_is_taken_from_a_full_one() -> None:
    buckets = Rates(per_second=1, burst=3)

    assert buckets.take("a", 1, 0.0) == 0.0
    assert buckets.take("a", 100, 0.0) == 1.0
    assert buckets.take("a", 100, 1.0) == 0.0
    assert buckets.left("a", 1.0) == 0


@given(st.lists(st.tuples(SECONDS, st.integers(1, 5)), max_size=60))
def test_never_more_than_the_burst_and_what_has_run_in_since_is_taken(asked: list[tuple[float, int]]) -> None:
    buckets, now, taken = Rates(per_second=3, burst=5), 0.0, 0
    for seconds, amount in asked:
        now += seconds
        wait = buckets.take("a", amount, now)
        taken += amount if wait == 0 else 0
        assert wait >= 0
        assert taken <= 5 + 3 * now + 1e-6


def test_whoever_waits_as_long_as_told_is_let_in() -> None:
    buckets = Rates(per_second=0.3, burst=1)
    buckets.take("a", 1, 10.0)

    wait = buckets.take("a", 1, 11.0)

    assert buckets.take("a", 1, 11.0 + wait + 1e-6) == 0.0


def test_names_are_bounded_and_the_one_silent_for_longest_goes_first() -> None:
    buckets = Rates(per_second=1, burst=2)
    for number in range(rates.NAMES_LIMIT + 10):
        buckets.take(f"n{number}", 1, 0.0)

    assert len(buckets._buckets) == rates.NAMES_LIMIT
    assert buckets.left("n0", 0.0) == 2
    assert buckets.left(f"n{rates.NAMES_LIMIT}", 0.0) == 1
