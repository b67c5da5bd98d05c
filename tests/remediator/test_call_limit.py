"""How many calls for people go out, and what is told of the others."""

from remediator.call_limit import CALLS, CALLS_BUT_CRITICAL, CALLS_OF_STRANGERS, WINDOW, CallLimit

NOW = 1_000_000.0


def taken(limit: CallLimit, count: int, *, configured: bool = True, critical: bool = True) -> int:
    return sum(limit.take(NOW, configured=configured, critical=critical) for _ in range(count))


def test_strangers_share_a_few_calls_and_leave_the_others_theirs() -> None:
    limit = CallLimit()

    assert taken(limit, 2000, configured=False) == CALLS_OF_STRANGERS
    assert taken(limit, 100) == CALLS - CALLS_OF_STRANGERS


def test_critical_errors_of_configured_services_have_calls_kept_for_them() -> None:
    limit = CallLimit()

    assert taken(limit, 100, critical=False) == CALLS_BUT_CRITICAL
    assert taken(limit, 100) == CALLS - CALLS_BUT_CRITICAL


def test_calls_are_free_again_after_the_window() -> None:
    limit = CallLimit()
    taken(limit, 100)

    assert limit.take(NOW + WINDOW + 1, configured=True, critical=True)


def test_a_summary_has_the_number_and_comes_once_in_a_window() -> None:
    limit = CallLimit()
    taken(limit, CALLS + 7)

    assert limit.withheld(NOW) == 0
    assert limit.withheld(NOW + 31) == 7
    limit.told(7, NOW + 31)
    assert limit.withheld(NOW + 32) == 0
    assert not limit.take(NOW + 40, configured=True, critical=True)
    assert limit.withheld(NOW + 100) == 0
    assert limit.withheld(NOW + 31 + WINDOW) == 1
