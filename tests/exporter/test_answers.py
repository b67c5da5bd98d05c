"""What ``/check`` says of observations of this moment, and what it never takes for health."""

from typing import Any

import pytest

from exporter.answers import check_of, state_of
from exporter.observation import Observation, Outcome, Reason
from exporter.state import ProbeState, ServiceState, Settings, WorldState

SETTINGS = Settings(interval=5.0, interval_on_failure=0.5, timeout=2.0, confirm=2)
DETAIL = "1 bytes free, at least 2 expected"


def seen(reason: Reason | None, second: float = 0.0, detail: str = "") -> Observation:
    return Observation(started=second, at=second, seconds=0.01, outcome=Outcome(reason=reason, detail=detail))


def world_of(*kinds: str) -> WorldState:
    probes = {kind: ProbeState(kind=kind, settings=SETTINGS) for kind in kinds}
    service = ServiceState(target="db", timeout_threshold=1, error_threshold=3, since=0.0, probes=probes)
    world = WorldState(started_at=0.0)
    world.watch({"db": service}, {})
    return world


def checked(world: WorldState, **reasons: Reason | None) -> dict[str, Any]:
    observations = {name: seen(reason, detail=DETAIL if reason else "") for name, reason in reasons.items()}
    result: dict[str, Any] = check_of(world, {"db": observations})["results"]["db"]
    return result


@pytest.mark.parametrize(
    ("reasons", "healthy"),
    [
        ({"tcp": None, "filesystem": None}, True),
        ({"tcp": None, "filesystem": Reason.LIMIT}, True),  # a full disk
        ({"redis": Reason.LIMIT}, True),  # it answered, so there is evidence
        ({"tcp": Reason.TIMEOUT, "filesystem": Reason.LIMIT}, False),
        ({"tcp": None, "container": Reason.MISSING}, False),
        ({"tcp": None, "container": Reason.INTERNAL}, True),  # the engine cannot be asked
        ({"redis": Reason.LIMIT, "container": Reason.INTERNAL}, True),
        ({"tcp": Reason.RESET, "container": Reason.INTERNAL}, False),
        ({"container": Reason.INTERNAL}, None),
        ({"file": None, "container": Reason.INTERNAL}, None),  # a file does not vouch for a service
        ({"filesystem": Reason.LIMIT, "container": Reason.INTERNAL}, None),
        ({}, False),  # nothing watches it
    ],
)
def test_a_check_is_healthy_when_somebody_got_an_answer_and_no_evidence_speaks_against_it(
    reasons: dict[str, Reason | None], healthy: bool | None
) -> None:
    assert checked(world_of(*reasons), **reasons)["healthy"] is healthy


def test_who_saw_the_outage_and_is_without_sight_now_leaves_its_end_open() -> None:
    world = world_of("tcp", "container")
    for second in range(2):
        world.record("db", "container", seen(Reason.STOPPED, second))

    assert checked(world, tcp=None, container=Reason.INTERNAL)["healthy"] is None
    assert checked(world, tcp=None, container=None)["healthy"] is True


def test_a_check_tells_of_a_trouble_beside_the_reason_of_an_outage() -> None:
    trouble = {"problem": "disk_full", "probe": "filesystem", "reason": "limit", "detail": DETAIL}

    full = checked(world_of("tcp", "filesystem"), tcp=None, filesystem=Reason.LIMIT)
    down = checked(world_of("tcp", "filesystem"), tcp=Reason.RESET, filesystem=Reason.LIMIT)

    assert (full["trouble"], full["reason"], full["detail"]) == (trouble, None, "")
    assert (down["trouble"], down["reason"]) == (trouble, "reset")


def test_a_probe_that_a_reload_took_away_meanwhile_is_left_out() -> None:
    assert checked(world_of("tcp"), tcp=None, filesystem=Reason.LIMIT)["trouble"] is None


def test_the_state_tells_of_a_trouble_once_it_is_confirmed() -> None:
    world = world_of("filesystem")
    told = []
    for second in range(2):
        world.record("db", "filesystem", seen(Reason.LIMIT, second, DETAIL))
        told.append(state_of(world)["services"]["db"]["trouble"])

    trouble = {"problem": "disk_full", "probe": "filesystem", "reason": "limit", "detail": DETAIL}
    assert told == [None, trouble]
