"""What people, scripts and machines read."""

import os
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from remediator.signals import ErrorState, Source
from remediator.store import HealthMinute
from soulfra_monitor.problems import Problem, Severity

ERRORS = "/api/monitoring/errors"


@pytest.fixture
def seven(idle_world: Any) -> Any:
    """Return a world with seven errors of several kinds, three of them last seen in the same instant."""
    at = idle_world.now()
    kinds = [
        ("web", Problem.SERVICE_DOWN, Severity.CRITICAL, at - 10),
        ("web", Problem.SERVICE_TIMEOUT, Severity.MEDIUM, at - 20),
        ("mail", Problem.SERVICE_DOWN, Severity.CRITICAL, at - 20),
        ("redis", Problem.SERVICE_DOWN, Severity.HIGH, at - 20),
        ("mail", Problem.ERROR_RATE, Severity.LOW, at - 1000),
        ("redis", Problem.OTHER, Severity.LOW, at - 5000),
        ("web", Problem.OTHER, Severity.LOW, at - 100_000),
    ]
    for target, problem, severity, seen in kinds:
        idle_world.fire(target, problem=problem, severity=severity, received_at=seen)
    (down,) = [one for one in idle_world.errors("redis") if one.problem is Problem.SERVICE_DOWN]
    idle_world.store.update_error(
        replace(down, state=ErrorState.RECOVERED, open=False, recovered_at=at, closed_at=at)
    )
    return idle_world


def total(client: Any, query: str) -> int:
    answer = client.get(f"{ERRORS}?{query}").json
    assert answer["summary"]["total"] == len(answer["errors"])
    return int(answer["summary"]["total"])


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 6),
        ("since=7d", 7),
        ("since=1h", 5),
        ("since=30s", 4),
        ("service=web", 2),
        ("service=nobody", 0),
        ("type=service_down", 3),
        ("severity=critical", 2),
        ("state=recovered", 1),
        ("state=pending", 5),
        ("service=web&type=service_timeout&severity=medium", 1),
    ],
)
def test_filters_choose_errors_and_the_summary_counts_the_same(
    seven: Any, client: Any, query: str, count: int
) -> None:
    assert total(client, query) == count


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 100])
def test_pages_cover_every_error_once_in_order(seven: Any, client: Any, size: int) -> None:
    found: list[dict[str, Any]] = []
    after, pages = "", 0
    while True:
        page = client.get(f"{ERRORS}?since=7d&limit={size}&after={after}").json
        assert page["summary"]["total"] == 7
        assert 0 < len(page["errors"]) <= size
        found += page["errors"]
        pages += 1
        after = page["next"]
        if after is None:
            break
    assert pages == -(-7 // size)
    assert {error["id"] for error in found} == {error.id for error in seven.errors()}
    assert len(found) == 7
    assert [error["lastSeen"] for error in found] == sorted((e["lastSeen"] for e in found), reverse=True)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (f"{ERRORS}?since=yesterday", "since: 'yesterday' is not a duration; write for example"),
        (f"{ERRORS}?since=", "since: "),
        (f"{ERRORS}?since=-1h", "since: "),
        (f"{ERRORS}?limit=0", "limit: must be a number from 1 to 1000"),
        (f"{ERRORS}?limit=1001", "limit: "),
        (f"{ERRORS}?limit=-1", "limit: "),
        (f"{ERRORS}?limit=ten", "limit: "),
        (f"{ERRORS}?limit={'9' * 5000}", "limit: "),
        (f"{ERRORS}?after=x", "after: take it from 'next'"),
        (f"{ERRORS}?after=nan_SE_1", "after: "),
        (f"{ERRORS}?after=..5_SE_00000000", "after: take it from 'next'"),
        (f"{ERRORS}?after=1e-e1_SE_00000000", "after: "),
        (f"{ERRORS}?type=gremlins", "type: must be one of service_down, "),
        (f"{ERRORS}?severity=info", "severity: must be one of critical, high, medium, low"),
        (f"{ERRORS}?state=open", "state: must be one of pending, recovered, failed"),
        ("/api/monitoring/runs?outcome=good", "outcome: must be one of recovered, "),
        ("/api/monitoring/runs?since=x", "since: "),
        ("/api/monitoring/runs?limit=0", "limit: "),
        ("/api/monitoring/decisions?since=x", "since: "),
        ("/api/monitoring/decisions?limit=x", "limit: "),
    ],
)
def test_a_bad_value_is_a_400_with_the_mend(client: Any, path: str, told: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert told in answer.json["error"]


def test_a_very_long_time_is_all_time(seven: Any, client: Any) -> None:
    assert total(client, "since=99999999999999999999w") == 7


@pytest.mark.parametrize(
    "path", [f"{ERRORS}/SE_ffffffff", "/api/monitoring/runs/R_0", "/api/monitoring/nothing", "/x"]
)
def test_what_is_not_there_is_a_404_in_json(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json["error"]


def test_an_error_tells_its_signals_decisions_and_runs(world: Any, client_of: Any, until: Any) -> None:
    world.fail()
    world.fire()
    until(lambda: world.error().state == "recovered")
    view = client_of(world).get(f"{ERRORS}/{world.error().id}").json
    assert view["error"]["recovered"] is True
    assert view["error"]["recoveryTime"] == pytest.approx(world.error().recovery_seconds * 1000, abs=1)
    assert view["signals"] == [{"fingerprint": "f-web", "status": "firing"}]
    assert {(one["verdict"], one["reason"]) for one in view["decisions"]} >= {("run", None)}
    (run,) = view["runs"]
    assert (run["outcome"], run["steps"][0]["action"]) == ("recovered", "restart")
    assert run["evidence"]["rung 1"]


def test_the_health_of_everything(world: Any, client_of: Any, until: Any) -> None:
    client = client_of(world)
    world.fail("mail")
    until(lambda: world.error("mail").state == "recovered")
    run = world.engine.request("restart_service", "redis", force=True, by="ann")
    until(lambda: world.store.get_run(run.id).outcome == "recovered")
    minute = int(world.now() // 60)
    world.store.add_health([HealthMinute(target="web", minute=minute, looks=4, up=3)])
    world.store.add_health([HealthMinute(target="gone", minute=minute, looks=4, up=0)])
    view = client.get("/api/monitoring/health").json
    assert view["status"] == "healthy"
    assert view["services"]["web"] | {"since": None, "uptime": None} == {
        "status": "healthy",
        "responseTime": 20,
        "since": None,
        "reason": None,
        "openErrors": [],
        "uptime": None,
    }
    assert (view["recentErrors"], view["autoRecoveries"], view["uptime"]) == (1, 1, "75.0%")


def test_a_repair_that_an_event_asked_for_is_one_without_a_person(
    make_world: Any, client_of: Any, until: Any
) -> None:
    world = make_world(playbooks=["shipped"])
    world.exporter.set("web", up=False)
    world.fire(
        source=Source.EVENT,
        fingerprint="v1.0123456789abcdef",
        problem=Problem.PROCESS_DIED,
        labels={"kind": "exit", "origin": "event"},
    )
    until(lambda: world.error().state == "recovered")

    client = client_of(world)
    assert [run["trigger"] for run in client.get("/api/monitoring/runs").json["runs"]] == ["event"]
    assert client.get("/api/monitoring/health").json["autoRecoveries"] == 1


def test_health_is_never_healthy_while_the_exporter_is_away(idle_world: Any, client: Any) -> None:
    idle_world.exporter.reachable = False
    view = client.get("/api/monitoring/health").json
    assert view["status"] == "degraded"
    assert {service["status"] for service in view["services"].values()} == {"unknown"}
    assert view["exporter"]["reachable"] is False


def test_health_shows_what_is_down_slow_and_cut_off(idle_world: Any, client: Any) -> None:
    idle_world.exporter.set("redis", up=False)
    idle_world.exporter.set("mail", slow=True)
    edge = {
        "source": "bare",
        "destination": "web",
        "healthy": False,
        "reason": "timeout",
        "response_time": None,
    }
    idle_world.exporter.edges = [edge]
    view = client.get("/api/monitoring/health").json
    assert view["status"] == "critical"
    assert {name: service["status"] for name, service in view["services"].items()} == {
        "redis": "critical",
        "mail": "degraded",
        "bare": "degraded",
        "web": "healthy",
    }
    assert view["services"]["redis"]["reason"] == "connection_refused"
    assert view["integrations"] == [
        {"from": "bare", "to": "web", "healthy": False, "reason": "timeout", "responseTime": None}
    ]


@pytest.mark.parametrize("path", [ERRORS, "/api/monitoring/health", "/api/monitoring/runs", f"{ERRORS}/SE_1"])
def test_a_failing_store_is_a_503_without_its_details(idle_world: Any, client: Any, path: str) -> None:
    idle_world.store.broken.set()
    answer = client.get(path)
    assert answer.status_code == 503
    assert "disk" not in answer.text


def test_a_bug_is_a_500_that_is_counted_and_tells_nothing(
    idle_world: Any, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(_: Any) -> None:
        raise RuntimeError("the inside of it")

    monkeypatch.setattr(idle_world.store, "get_error", breaks, raising=False)
    answer = client.get(f"{ERRORS}/SE_1")
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert idle_world.count("soulfra_remediator_internal_errors_total", place="web") == 1
    assert "the inside of it" in caplog.text


# -- what machines ask --------------------------------------------------------------------------------


def test_ready_is_whether_the_store_takes_writes(idle_world: Any, client: Any) -> None:
    assert client.get("/readyz").status_code == 200
    idle_world.store.broken.set()
    assert client.get("/readyz").status_code == 503
    idle_world.store.broken.clear()
    assert client.get("/readyz").status_code == 200


def test_alive_is_whether_the_engine_goes_on(world: Any, client_of: Any) -> None:
    client = client_of(world)
    assert client.get("/healthz").status_code == 200
    world.engine.stop()
    assert client.get("/healthz").status_code == 500


def test_the_metrics_parse_in_both_formats(world: Any, client_of: Any, until: Any) -> None:
    client = client_of(world)
    world.fail()
    until(lambda: world.error().state == "recovered")
    world.chores.refresh_gauges()
    names = {family.name for family in parse_text(client.get("/metrics").text)}
    assert {"soulfra_runs", "soulfra_decisions", "soulfra_paused", "process_cpu_seconds"} <= names
    open_text = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert open_text.content_type.startswith("application/openmetrics-text")
    families: Any = parse_openmetrics(open_text.text)  # type: ignore[no-untyped-call] # the library's own
    assert {family.name for family in families} >= {"soulfra_runs"}


def test_promtool_finds_nothing_to_say_about_the_metrics(world: Any, client_of: Any, until: Any) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("promtool is not installed")
    world.fail()
    until(lambda: world.error().state == "recovered")
    world.chores.refresh_gauges()
    client = client_of(world)
    client.post("/api/monitoring/alerts", data="x")
    text = client.get("/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=20, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_pause_switch_is_a_metric(idle_world: Any, client: Any) -> None:
    client.post("/api/monitoring/pause", json={"scope": "web", "reason": "release"})
    idle_world.chores.refresh_gauges()
    assert idle_world.count("soulfra_paused", scope="web") == 1
    assert idle_world.count("soulfra_paused", scope="everything") == 0
    client.post("/api/monitoring/resume", json={"scope": "web"})
    idle_world.chores.refresh_gauges()
    assert idle_world.count("soulfra_paused", scope="web") == 0


def test_the_health_of_all_is_told_without_reading_what_runs_have_kept(idle_world: Any, client: Any) -> None:
    def heavy(_: Any) -> Any:
        pytest.fail("plans and evidence of a day's runs were read to count them")

    idle_world.store.find_runs = heavy
    assert client.get("/api/monitoring/health").json["autoRecoveries"] == 0
