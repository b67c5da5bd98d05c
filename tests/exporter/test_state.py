"""The state machine as tables, on a clock that the test moves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.observation import (
    REASONS,
    Measure,
    Observation,
    Outcome,
    ProcessFacts,
    ProcessStatus,
    Reading,
    Reason,
)
from exporter.reasons import LOCAL_KINDS, TROUBLES
from exporter.state import ProbeState, ServiceState, Settings, Transition, Verdict, WorldState
from soulfra_monitor.problems import Problem

EPOCH = 1_700_000_000.0
SETTINGS = Settings(interval=5.0, interval_on_failure=0.5, timeout=2.0, confirm=2)
CODES = {
    ".": None,
    "x": Reason.STATUS,
    "t": Reason.TIMEOUT,
    "g": Reason.GONE,
    "s": Reason.STOPPED,
    "n": Reason.NOT_LISTENING,
    "i": Reason.INTERNAL,
    "l": Reason.LIMIT,
    "q": Reason.STUCK,
}


def seen(code: str, second: float, seconds: float = 0.1, **facts: Any) -> Observation:
    return Observation(
        started=second,
        at=EPOCH + second,
        seconds=seconds,
        outcome=Outcome(reason=CODES[code], **facts),
    )


def service(*kinds: str, confirm: int = 2) -> ServiceState:
    settings = Settings(interval=5.0, interval_on_failure=0.5, timeout=2.0, confirm=confirm)
    return ServiceState(
        target="shop",
        timeout_threshold=1.0,
        error_threshold=3,
        since=EPOCH,
        probes={kind: ProbeState(kind=kind, settings=settings) for kind in kinds},
    )


@pytest.mark.parametrize(
    ("confirm", "codes", "verdicts"),
    [
        (2, ".", "U"),
        (2, "x", "?"),  # a first failure is neither up nor down
        (2, "xx", "?D"),
        (2, "x.", "?U"),
        (2, ".x.", "UUU"),
        (2, ".xx.", "UUDU"),  # one success is enough
        (2, ".x.x.", "UUUUU"),
        (2, ".xtx", "UUDD"),  # any reasons in a row
        (1, ".x", "UD"),
        (3, ".xx.xxx", "UUUUUUD"),
        (2, ".g", "UD"),  # gone needs no confirmation
        (5, "g", "D"),
        (2, ".s", "UU"),
        (2, ".ss", "UUD"),
        (2, ".n", "UU"),  # the process lives: perhaps it is about to listen
        (2, ".nn", "UUD"),
        (2, ".i", "UU"),  # our own fault is no evidence
        (2, ".ii", "UU?"),  # but who sees nothing knows nothing
        (2, "iiiiii", "??????"),
        (2, ".iiii.", "UU???U"),
        (2, ".xix", "UUUD"),  # and it is no part of the failures in a row
        (2, ".xixi.", "UUUDDU"),
        (2, ".xxii", "UUDD?"),
    ],
)
def test_verdict_follows_observations(confirm: int, codes: str, verdicts: str) -> None:
    state = service("http", confirm=confirm)
    letters = {Verdict.UP: "U", Verdict.DOWN: "D", Verdict.UNKNOWN: "?"}

    told = ""
    for second, code in enumerate(codes):
        state.record("http", seen(code, second))
        told += letters[state.verdict]

    assert told == verdicts


def test_a_service_is_unknown_until_each_of_its_probes_has_spoken() -> None:
    state = service("http", "process")

    state.record("http", seen(".", 1))
    assert state.verdict is Verdict.UNKNOWN
    transition = state.record("process", seen(".", 2))

    assert transition == Transition(target="shop", before=Verdict.UNKNOWN, after=Verdict.UP, at=EPOCH + 2)
    assert state.since == EPOCH + 2


def test_one_probe_that_is_down_makes_the_service_down_and_is_named() -> None:
    state = service("http", "tcp")
    for second, (probe, code) in enumerate([("http", "."), ("tcp", "."), ("tcp", "x"), ("tcp", "t")]):
        state.record(probe, seen(code, second))

    failing = state.failing
    assert state.verdict is Verdict.DOWN
    assert failing is not None
    assert (failing.probe, failing.observation.reason, failing.since) == ("tcp", Reason.TIMEOUT, EPOCH + 2)


def test_no_transition_is_told_while_the_verdict_stays() -> None:
    state = service("http")
    told = [state.record("http", seen(code, second)) for second, code in enumerate("..xxx..")]

    assert [transition.after if transition else None for transition in told] == [
        *(Verdict.UP, None, None, Verdict.DOWN, None, Verdict.UP, None),
    ]


def test_a_slow_failure_that_began_before_a_success_does_not_count() -> None:
    state = ProbeState(kind="http", settings=SETTINGS)
    state.record(seen(".", 10))

    counted = state.record(seen("t", 9, seconds=2.0))

    assert not counted
    assert (state.attempts, state.streak, state.failing_now) == (1, 0, False)


@pytest.mark.parametrize(
    ("codes", "unconfirmed"),
    [
        (".x.", {Reason.STATUS: 1}),
        (".x.t.", {Reason.STATUS: 1, Reason.TIMEOUT: 1}),
        (".xx.", {}),  # this one was an outage
        (".x", {}),  # this one may become one
    ],
)
def test_unconfirmed_failures_are_those_that_healed(codes: str, unconfirmed: dict[Reason, int]) -> None:
    state = ProbeState(kind="http", settings=SETTINGS)
    for second, code in enumerate(codes):
        state.record(seen(code, second))

    assert state.unconfirmed == unconfirmed


def test_a_fault_of_our_own_is_counted_and_kept_but_is_not_in_the_streak() -> None:
    state = ProbeState(kind="http", settings=SETTINGS)
    for second, code in enumerate(".iii"):
        state.record(seen(code, second))

    assert (state.failures, state.streak, state.failing_now) == ({Reason.INTERNAL: 3}, 0, False)
    assert state.last_failure is not None
    assert state.last_failure.reason is Reason.INTERNAL
    assert state.delay(4) is None  # looking more often would not help


def test_a_failing_probe_runs_fast_for_a_minute_and_then_as_usual() -> None:
    state = ProbeState(kind="http", settings=SETTINGS)
    state.record(seen(".", 0))
    assert state.delay(1) is None

    state.record(seen("x", 5))
    assert state.delay(6) == 0.5
    state.record(seen("x", 60))
    assert state.delay(65) == 0.5
    assert state.delay(65.1) is None


def test_failures_are_kept_longer_than_successes() -> None:
    state = ProbeState(kind="http", settings=SETTINGS)
    state.record(seen("x", 0))
    for second in range(1, 30):
        state.record(seen(".", second))

    assert len(state.recent) == 10
    assert all(observation.healthy for observation in state.recent)
    assert [observation.started for observation in state.failed] == [0]


def test_only_the_newest_readings_are_kept() -> None:
    state = ProbeState(kind="queue", settings=SETTINGS)
    reading = Reading(Measure(name="queue_length", help="Length."), 4)
    for number in range(5):
        state.record(seen("t" if number % 2 else ".", number, readings=(reading,)))

    assert state.last is not None
    assert state.last.outcome.readings == (reading,)
    assert not any(observation.outcome.readings for observation in (*state.recent, *state.failed))


def test_durations_of_failures_are_in_the_histogram_too() -> None:
    state = ProbeState(kind="http", settings=SETTINGS)
    state.record(seen("t", 0, seconds=2.0))

    assert sum(state.durations.counts) == 1
    assert state.durations.total == 2.0


def test_slow_is_said_of_the_newest_network_answer() -> None:
    state = service("http", "process")
    state.record("http", seen(".", 1, seconds=1.5))
    state.record("process", seen(".", 2, seconds=0.01))

    assert (state.response_time, state.slow) == (1.5, True)


@pytest.mark.parametrize("kind", sorted(LOCAL_KINDS))
def test_how_long_this_machine_took_to_look_is_no_answer_s_time(kind: str) -> None:
    state = service("http", kind)
    state.record("http", seen(".", 1, seconds=0.01))
    state.record(kind, seen(".", 2, seconds=6.0))

    assert (state.response_time, state.slow) == (0.01, False)


def test_a_process_that_was_seen_and_is_gone_stays_known_as_gone() -> None:
    facts = ProcessFacts(pid=42, start_time=EPOCH, status=ProcessStatus.RUNNING, threads=3)
    state = service("process")
    state.record("process", seen(".", 1, process=facts))

    state.record("process", seen("g", 2))

    assert state.process == ProcessFacts(pid=42, start_time=EPOCH, status=ProcessStatus.GONE)


@pytest.mark.parametrize(
    ("failing", "healthy", "blind"),
    [
        (2, 0, False),  # the guard is off below three services
        (2, 1, False),  # fewer than at_least
        (3, 0, True),
        (3, 3, False),  # half is not more than half
        (4, 3, True),
    ],
)
def test_the_prober_is_blind_when_most_targets_fail_unconfirmed_failures_included(
    failing: int, healthy: int, blind: bool
) -> None:
    world = watching(failing + healthy)
    for number, target in enumerate(world.services):
        world.record(target, "http", seen("x" if number < failing else ".", 1))

    assert world.blind is blind


def watching(number: int, *more: ServiceState) -> WorldState:
    world = WorldState(started_at=EPOCH)
    services = {f"service-{index}": service("http") for index in range(number)}
    world.watch({**services, **{f"more-{index}": state for index, state in enumerate(more)}}, {})
    return world


def test_services_without_probes_do_not_dilute_the_share_of_failing_ones() -> None:
    world = watching(3, service(), service(), service())
    for number in range(3):
        world.record(f"service-{number}", "http", seen("x", 1))

    assert world.blind


def test_what_is_known_of_failing_services_is_counted_anew_when_others_are_watched() -> None:
    world = watching(4)
    for number in range(4):
        world.record(f"service-{number}", "http", seen("x", 1))

    world.watch({name: world.services[name] for name in ("service-0", "service-1")}, {})

    assert (world.guarded, world.failing, world.blind) == (2, 2, False)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["http", "tcp"]), st.sampled_from(".xi"))))
def test_the_count_of_failing_services_is_what_counting_them_gives(steps: list[tuple[int, str, str]]) -> None:
    world = WorldState(started_at=EPOCH)
    world.watch({str(number): service("http", "tcp") for number in range(4)}, {})

    for second, (target, probe, code) in enumerate(steps):
        world.record(str(target), probe, seen(code, second))
        assert world.failing == sum(state.failing_now for state in world.services.values())


@pytest.mark.parametrize(
    ("codes", "recovered_at"),
    [
        (".", None),  # it never was down
        (".x.", None),
        (".ii.", None),  # that nobody saw it is no outage
        (".xx.", EPOCH + 3),
        (".xxii", None),  # what is unknown has not recovered
        (".xxii.", EPOCH + 5),  # it was down when it went out of sight
        (".xxii..", EPOCH + 5),
        (".xxiixx.", EPOCH + 7),
        (".xx.ii.", EPOCH + 3),  # it had recovered before it went out of sight
    ],
)
def test_a_service_has_recovered_when_it_is_seen_up_after_it_was_down(
    codes: str, recovered_at: float | None
) -> None:
    state = service("http")
    for second, code in enumerate(codes):
        state.record("http", seen(code, second))

    assert state.recovered_at == recovered_at


@pytest.mark.parametrize(("kind", "reason"), TROUBLES, ids=str)
def test_every_failure_that_tells_is_one_that_its_kind_can_give(kind: str, reason: Reason) -> None:
    assert reason in REASONS[kind]


@pytest.mark.parametrize(
    ("codes", "troubles"),
    [
        (".l", "--"),
        (".ll", "--D"),
        ("lll", "-DD"),
        (".l.l.", "-----"),
        (".ll.", "--D-"),
        (".lli", "--DD"),  # one fault of ours does not end it
        (".llii", "--DD-"),  # who sees nothing knows nothing
        (".llx", "--D-"),  # it may be worse now, but that is not known to be the trouble
    ],
)
def test_a_full_disk_is_told_when_it_is_confirmed_and_while_it_is_seen(codes: str, troubles: str) -> None:
    state = service("filesystem")
    told = ""
    for second, code in enumerate(codes):
        state.record("filesystem", seen(code, second))
        told += "D" if state.trouble and state.trouble.problem is Problem.DISK_FULL else "-"

    assert told == troubles


def test_a_full_disk_makes_no_service_down_but_its_look_has_failed() -> None:
    state = service("tcp", "filesystem")
    state.record("tcp", seen(".", 0))
    for second in range(1, 9):
        state.record("filesystem", seen("l", second))

    probe = state.probes["filesystem"]
    assert (state.verdict, state.failing) == (Verdict.UP, None)
    assert (probe.failures, probe.last_success) == ({Reason.LIMIT: 8}, None)
    assert probe.last is not None
    assert not probe.last.healthy


def test_a_trouble_is_confirmed_by_quick_looks_as_an_outage_is() -> None:
    state = ProbeState(kind="filesystem", settings=SETTINGS)
    state.record(seen("l", 5))

    assert state.delay(6) == 0.5
    assert state.delay(66) is None


def test_who_is_refused_and_then_sees_a_long_queue_has_seen_the_service_answer() -> None:
    state = service("queue")
    for second, code in enumerate("xxl"):
        state.record("queue", seen(code, second))

    assert (state.verdict, state.recovered_at) == (Verdict.UP, EPOCH + 2)


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ("container:ii http:.", Verdict.UP),  # the engine cannot be asked, the service answers
        ("container:i http:.", Verdict.UP),
        ("http:. container:ii", Verdict.UP),
        ("container:ii", Verdict.UNKNOWN),  # http has not run yet
        ("container:ii http:x", Verdict.UNKNOWN),
        ("container:ii http:xx", Verdict.DOWN),
        ("container:ii http:xx.", Verdict.UP),  # who never saw it down has no say about its end
        ("container:. http:. container:sii", Verdict.UNKNOWN),  # an unconfirmed failure out of sight
        ("container:. http:. container:ssii http:.", Verdict.UNKNOWN),  # who saw an outage must see its end
        ("container:. http:. container:ssii http:. container:.", Verdict.UP),
    ],
)
def test_a_fault_of_ours_hides_no_answer_that_another_probe_got(steps: str, verdict: Verdict) -> None:
    state = service("container", "http")
    looks = [(kind, code) for kind, codes in (step.split(":") for step in steps.split()) for code in codes]
    for second, (kind, code) in enumerate(looks):
        state.record(kind, seen(code, second))

    assert state.verdict is verdict


def test_a_local_look_alone_does_not_vouch_for_a_probe_without_sight() -> None:
    state = service("container", "file")
    for second, (kind, code) in enumerate([("container", "i"), ("container", "i"), ("file", ".")]):
        state.record(kind, seen(code, second))

    assert state.verdict is Verdict.UNKNOWN


def test_an_answer_of_long_ago_does_not_vouch_for_a_probe_without_sight() -> None:
    state = service("container", "http")
    verdicts = []
    for second, kind, code in [(0, "http", "."), (1, "container", "i"), (100, "container", "i")]:
        state.record(kind, seen(code, second))
        verdicts.append(state.verdict)

    assert verdicts == [Verdict.UNKNOWN, Verdict.UP, Verdict.UNKNOWN]


@pytest.mark.parametrize("kind", sorted(LOCAL_KINDS))
def test_failures_that_are_seen_without_a_network_make_nobody_blind(kind: str) -> None:
    world = WorldState(started_at=EPOCH)
    world.watch({str(number): service("http", kind) for number in range(4)}, {})
    for target in world.services:
        for second in range(3):
            world.record(target, kind, seen("x", second))

    assert (world.guarded, world.failing, world.blind) == (4, 0, False)


def test_full_disks_and_long_queues_make_nobody_blind() -> None:
    world = WorldState(started_at=EPOCH)
    world.watch({str(number): service("queue") for number in range(4)}, {})
    for target in world.services:
        world.record(target, "queue", seen("q", 1))

    assert not world.blind


def test_services_that_are_watched_locally_do_not_dilute_the_share_of_failing_ones() -> None:
    world = watching(3, *(service("file") for _ in range(9)))
    for number in range(3):
        world.record(f"service-{number}", "http", seen("x", 1))

    assert world.blind
