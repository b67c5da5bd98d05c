"""Reports of jobs: taken, kept, and told as metrics."""

from collections.abc import Callable
from typing import Any

import pytest

from remediator.heartbeats import Pulse, pulse_of
from remediator.store import Heartbeat

BEATS = "/api/monitoring/heartbeats"
JOBS = {"nightly": {"period": "24h", "grace": "1h"}, "loop": {"period": "10s", "grace": "5s"}}


@pytest.fixture
def jobs(make_world: Callable[..., Any]) -> Any:
    return make_world(start=False, heartbeats=JOBS)


def listed(client: Any) -> dict[str, Any]:
    return {beat["name"]: beat for beat in client.get(BEATS).json["heartbeats"]}


@pytest.mark.parametrize(
    ("path", "status", "exit_code"),
    [
        ("nightly", "up", None),
        ("nightly/success", "up", None),
        ("nightly/start", "running", None),
        ("nightly/fail", "failed", None),
        ("nightly/0", "up", 0),
        ("nightly/3", "failed", 3),
        ("nightly/255", "failed", 255),
    ],
)
def test_what_a_job_says_is_kept(
    jobs: Any, client_of: Callable[[Any], Any], path: str, status: str, exit_code: int | None
) -> None:
    client = client_of(jobs)

    answer = client.post(f"{BEATS}/{path}")

    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["lastExitCode"]) == (status, exit_code)
    assert listed(client)["nightly"] == answer.json
    assert listed(client)["loop"]["status"] == "new"


@pytest.mark.parametrize(
    "path",
    ["nobody", "nobody/start", *(f"nightly/{word}" for word in ("256", "-1", "0001234", "done", "٣"))],
)
def test_what_nobody_expects_is_a_404_with_the_mend(
    jobs: Any, client_of: Callable[[Any], Any], path: str
) -> None:
    answer = client_of(jobs).post(f"{BEATS}/{path}")

    assert answer.status_code == 404
    assert "heartbeats" in answer.json["error"] or "exit code" in answer.json["error"]


def test_a_get_changes_nothing(jobs: Any, client_of: Callable[[Any], Any]) -> None:
    client = client_of(jobs)

    assert client.get(f"{BEATS}/nightly").status_code == 405
    assert listed(client)["nightly"]["lastSuccess"] is None


def test_reports_survive_a_restart_and_are_metrics(jobs: Any, client_of: Callable[[Any], Any]) -> None:
    client_of(jobs).post(f"{BEATS}/nightly/start")
    client_of(jobs).post(f"{BEATS}/nightly")
    since = jobs.count("soulfra_heartbeat_expected_since_timestamp_seconds", heartbeat="nightly")
    jobs.offset += 50
    jobs.begin()

    at = jobs.count("soulfra_heartbeat_last_success_timestamp_seconds", heartbeat="nightly")
    assert abs(at - jobs.now() + 50) < 20
    assert jobs.count("soulfra_heartbeat_last_start_timestamp_seconds", heartbeat="nightly") <= at
    assert jobs.count("soulfra_heartbeat_last_failure_timestamp_seconds", heartbeat="nightly") == 0
    assert jobs.count("soulfra_heartbeat_period_seconds", heartbeat="nightly") == 86400
    assert jobs.count("soulfra_heartbeat_grace_seconds", heartbeat="nightly") == 3600
    assert jobs.count("soulfra_heartbeat_expected_since_timestamp_seconds", heartbeat="nightly") == since


def test_a_job_that_is_configured_no_more_is_told_no_more(
    make_world: Callable[..., Any], client_of: Callable[[Any], Any]
) -> None:
    world = make_world(start=False)

    assert client_of(world).get(BEATS).json == {"heartbeats": []}
    assert 'heartbeat="' not in client_of(world).get("/metrics").text


@pytest.mark.parametrize(
    ("beat", "now", "pulse"),
    [
        ({}, 5, Pulse.NEW),
        ({}, 11, Pulse.LATE),
        ({}, 16, Pulse.MISSED),
        ({"last_success": 100.0}, 105, Pulse.UP),
        ({"last_success": 100.0}, 112, Pulse.LATE),
        ({"last_success": 100.0}, 116, Pulse.MISSED),
        ({"last_success": 100.0, "last_start": 101.0}, 105, Pulse.RUNNING),
        ({"last_success": 100.0, "last_start": 101.0}, 116, Pulse.MISSED),
        ({"last_success": 100.0, "last_start": 101.0, "last_failure": 103.0}, 105, Pulse.FAILED),
        ({"last_success": 104.0, "last_failure": 103.0}, 105, Pulse.UP),
        ({"last_success": 104.0, "period": None}, 10**9, Pulse.UP),
        # Expected anew: what it said before counts for nothing.
        ({"since": 200.0, "last_success": 104.0}, 205, Pulse.NEW),
        ({"since": 200.0, "last_start": 105.0, "last_failure": 104.0}, 211, Pulse.LATE),
        ({"since": 200.0, "last_success": 104.0}, 216, Pulse.MISSED),
    ],
)
def test_lateness_counts_from_the_last_success(beat: dict[str, Any], now: float, pulse: Pulse) -> None:
    known = Heartbeat(**{"name": "loop", "since": 0.0, "period": 10.0, "grace": 5.0, **beat})

    assert pulse_of(known, now) is pulse
