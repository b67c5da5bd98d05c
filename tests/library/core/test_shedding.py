"""Costs and times go in, what may be done comes out."""

from soulfra_monitor.shedding import CALM_WINDOWS, WINDOW, Level, Shedding


def spend(shedding: Shedding, share: float, start: float) -> Level:
    shedding.spend(share * WINDOW)
    return shedding.judge(start + WINDOW)


def test_a_step_is_taken_for_each_window_above_the_limit() -> None:
    shedding = Shedding(0.05, 0.0)

    levels = [spend(shedding, 0.06, window * WINDOW) for window in range(5)]

    assert levels == [Level.NO_SWALLOWED, Level.CHEAP, Level.COUNTS, Level.COUNTS, Level.COUNTS]
    assert round(shedding.share, 3) == 0.06


def test_at_its_limit_nothing_changes() -> None:
    shedding = Shedding(0.05, 0.0)

    assert [spend(shedding, 0.049, window * WINDOW) for window in range(5)] == [Level.FULL] * 5


def test_a_step_is_taken_back_after_several_calm_windows() -> None:
    shedding = Shedding(0.05, 0.0)
    for window in range(3):
        spend(shedding, 0.5, window * WINDOW)

    levels = [spend(shedding, 0.01, window * WINDOW) for window in range(3, 3 + 3 * CALM_WINDOWS)]

    assert levels[CALM_WINDOWS - 1 :: CALM_WINDOWS] == [Level.CHEAP, Level.NO_SWALLOWED, Level.FULL]


def test_between_half_and_all_of_the_limit_it_stays_as_it_is() -> None:
    shedding = Shedding(0.05, 0.0)
    spend(shedding, 0.5, 0.0)

    levels = [spend(shedding, 0.04, window * WINDOW) for window in range(1, 20)]

    assert set(levels) == {Level.NO_SWALLOWED}


def test_nothing_is_judged_before_a_window_is_over() -> None:
    shedding = Shedding(0.05, 0.0)
    shedding.spend(100.0)

    assert shedding.judge(WINDOW / 2) == Level.FULL
