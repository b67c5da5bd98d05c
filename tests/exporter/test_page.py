"""The landing page: what it shows, what it never lets through, and how large it grows."""

import time

from exporter.history import KEPT, History
from exporter.observation import Observation, Outcome, Reason
from exporter.page import MOST_FAILURES, MOST_ROWS, landing_page
from exporter.state import ProbeState, ServiceState, Settings, WorldState

SETTINGS = Settings(interval=5, interval_on_failure=0.5, timeout=2, confirm=1)


def seen(reason: Reason | None = None, detail: str = "", ago: float = 0.0) -> Observation:
    outcome = Outcome(reason=reason, detail=detail)
    return Observation(started=time.monotonic() - ago, at=time.time() - ago, seconds=0.0123, outcome=outcome)


def service(name: str, *observations: Observation) -> ServiceState:
    state = ServiceState(target=name, timeout_threshold=1, error_threshold=3, since=time.time() - 90)
    state.probes["http"] = ProbeState(kind="http", settings=SETTINGS)
    for observation in observations:
        state.record("http", observation)
    return state


def world(*services: ServiceState) -> WorldState:
    return WorldState(started_at=time.time(), services={one.target: one for one in services})


def past(history: History, *, reason: str = "", target: str = "a.example") -> None:
    history.add(at=time.time(), seconds=0.01, module="http_2xx", target=target, reason=reason, tell=str)


def test_targets_stand_worst_first_with_status_reason_and_a_link_to_each_step() -> None:
    page = landing_page(
        world(service("well", seen()), service("ill", seen(Reason.STATUS, "answered 503"))), History()
    )

    assert page.index(">ill</a>") < page.index(">well</a>")
    assert "answered 503" in page
    assert '<a href="/probe?target=ill&debug=true">look now</a>' in page
    assert "12.3 ms" in page


def test_a_failure_is_still_shown_after_the_service_is_well_again() -> None:
    page = landing_page(
        world(service("shop", seen(Reason.RESET, "dropped", ago=3700), *(seen() for _ in range(30)))),
        History(),
    )

    assert "1 h 1 min ago" in page
    assert '<span class="down">reset</span> <span class="d">dropped</span>' in page


def test_failures_of_one_kind_in_a_row_are_one_line() -> None:
    failures = [seen(Reason.RESET, "dropped", ago=ago) for ago in (300, 200, 100)]
    page = landing_page(world(service("shop", *failures, seen(Reason.STATUS, "answered 500"))), History())

    assert 'dropped</span><span class="d">, 3 times within 3 min 20 s</span>' in page
    assert page.count("<tr>") == 1 + 1 + 1 + 2  # both heads, the target, two kinds of failures


def test_of_many_that_fail_the_newest_failures_are_shown() -> None:
    services = [
        service(f"t{age}", *(seen(Reason.RESET, f"old {age}", ago=age + 1),) * 3) for age in range(200)
    ]
    twice = service("twice", seen(Reason.STATUS, "first", ago=0.5), seen(Reason.RESET, "second", ago=0.1))

    page = landing_page(world(*services, twice), History())

    failures = page.partition("Last failures")[2]
    assert failures.index("second") < failures.index("first") < failures.index("old 0")
    assert f"old {MOST_FAILURES - 3}<" in failures
    assert f"old {MOST_FAILURES}<" not in failures
    assert "more kinds of failures at least, in /state" in failures


def test_nothing_that_came_from_outside_is_markup() -> None:
    history = History()
    past(history, reason="<i>", target='"><script>x</script>')
    page = landing_page(world(service("<b>", seen(Reason.BODY, "<img src=x>"))), history)

    for text in ("<b>", "<img", "<script>", "<i>"):
        assert text not in page


def test_a_page_of_ten_thousand_failing_targets_is_bounded() -> None:
    services = [service(f"t{number}", seen(Reason.TIMEOUT, "x" * 200)) for number in range(10_000)]
    page = landing_page(world(*services), History())

    assert page.count("<tr>") == MOST_ROWS + MOST_FAILURES + 2
    assert f"and {10_000 - MOST_ROWS} more targets" in page
    assert len(page) < 300_000


def test_failures_asked_for_are_kept_longer_than_successes() -> None:
    history = History()
    past(history, reason="timeout")
    past(history)
    for _ in range(3 * KEPT):
        past(history)

    kept = history.newest_first()
    assert len(kept) == KEPT + 1
    assert kept[-1].reason == "timeout"
    assert history.find(1) is kept[-1]
    assert history.find(2) is None


def test_no_history_grows_without_end() -> None:
    history = History()
    for _ in range(5 * KEPT):
        past(history, reason="timeout")

    assert len(history.newest_first()) == 2 * KEPT


def test_the_page_of_an_exporter_without_services_says_so() -> None:
    page = landing_page(world(), History())

    assert "0 targets" in page
    assert "None is known." in page
    assert "Nothing yet" in page


def test_a_trouble_is_shown_beside_the_status() -> None:
    disk = service("disk")
    disk.probes["space"] = ProbeState(kind="filesystem", settings=SETTINGS)
    disk.record("space", seen(Reason.LIMIT, "1 byte free"))

    assert '<span class="unknown">disk_full</span>' in landing_page(world(disk), History())
