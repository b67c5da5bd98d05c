"""The webhook: taken durably or not at all, and nothing executed inside the request."""

import json
import threading
from typing import Any

import pytest

ALERTS = "/api/monitoring/alerts"


def alert(**changes: Any) -> dict[str, Any]:
    labels = {
        "alertname": "SoulfraServiceDown",
        "target": "web",
        "problem": "service_down",
        "severity": "critical",
    }
    return {
        "status": "firing",
        "labels": {**labels, **changes.pop("labels", {})},
        "annotations": {"summary": "web is down"},
        "startsAt": "2026-01-02T03:04:05Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "f1",
        **changes,
    }


def body(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "truncatedAlerts": 0, "alerts": list(alerts), **changes}


def test_alerts_are_stored_when_200_is_answered(idle_world: Any, client: Any) -> None:
    answer = client.post(ALERTS, json=body(alert(), alert(labels={"target": "mail"}, fingerprint="f2")))
    assert answer.status_code == 200
    assert answer.json["accepted"] == 2
    assert answer.json["errors"] == sorted(error.id for error in idle_world.errors())
    assert len(idle_world.errors()) == 2


@pytest.mark.parametrize("data", ["", "{", "firing", "\x00", b"\xff\xfe", "null", "[" * 100_000])
def test_what_is_not_json_is_a_400(idle_world: Any, client: Any, data: Any) -> None:
    answer = client.post(ALERTS, data=data, content_type="application/json")
    assert (answer.status_code, answer.json["error"]) == (400, "the body is not JSON")
    assert idle_world.errors() == []


@pytest.mark.parametrize("wrong", [[], {}, {"text": "down"}, {"alerts": [{"labels": 1}]}, "x", 1])
def test_what_is_not_alertmanagers_is_a_400_and_nothing_of_it_is_taken(
    idle_world: Any, client: Any, wrong: Any
) -> None:
    answer = client.post(ALERTS, json=wrong)
    assert answer.status_code == 400
    assert answer.json["error"]
    assert idle_world.errors() == []


def test_one_alert_that_is_wrong_refuses_its_neighbours_too(idle_world: Any, client: Any) -> None:
    answer = client.post(ALERTS, json=body(alert(), {"status": "firing"}))
    assert (answer.status_code, idle_world.errors()) == (400, [])
    assert "alerts[1]" in answer.json["error"]


def test_json_of_another_content_type_is_json(client: Any) -> None:
    answer = client.post(ALERTS, data=json.dumps(body(alert())), content_type="text/plain")
    assert answer.status_code == 200


def test_what_cannot_be_stored_is_a_503_and_comes_in_when_it_is_sent_again(
    idle_world: Any, client: Any
) -> None:
    idle_world.store.broken.set()
    answer = client.post(ALERTS, json=body(alert()))
    assert (answer.status_code, answer.json) == (503, {"error": "the store cannot do this now; try again"})
    idle_world.store.broken.clear()
    assert idle_world.errors() == []
    assert client.post(ALERTS, json=body(alert())).status_code == 200
    assert len(idle_world.errors()) == 1


def test_half_a_surrogate_pair_is_taken(idle_world: Any, client: Any) -> None:
    text = json.dumps(body(alert(labels={"note": "a\ud800b"}, fingerprint="\udfff")))
    assert client.post(ALERTS, data=text).status_code == 200
    assert client.get(f"/api/monitoring/errors/{idle_world.error().id}").status_code == 200


@pytest.mark.parametrize("count", [True, -1, "7", None, 1.5, 10**400])
def test_a_strange_count_of_left_out_alerts_loses_no_alert(idle_world: Any, client: Any, count: Any) -> None:
    assert client.post(ALERTS, json=body(alert(), truncatedAlerts=count)).status_code == 200
    assert len(idle_world.errors()) == 1


def test_left_out_alerts_are_counted_and_told(idle_world: Any, client: Any) -> None:
    client.post(ALERTS, json=body(alert(), truncatedAlerts=7))
    assert idle_world.count("soulfra_webhook_truncated_alerts_total") == 7
    assert any("left out 7 alerts" in text for kind, text in idle_world.lines if kind == "warning")


def test_a_thousand_alerts_are_taken_whole(idle_world: Any, client: Any) -> None:
    many = [alert(labels={"target": f"t{number}"}, fingerprint=f"f{number}") for number in range(1000)]
    assert client.post(ALERTS, json=body(*many)).json["accepted"] == 1000
    assert len(idle_world.store.find_errors(_all())) == 1000


def _all() -> Any:
    from remediator.store import ErrorQuery  # noqa: PLC0415 - of this one test

    return ErrorQuery(limit=5000)


def test_nothing_is_executed_inside_the_request(world: Any, client_of: Any, until: Any) -> None:
    go_on = threading.Event()

    def slow(action: str, service: str) -> str:
        assert go_on.wait(5)
        return str(world.repair(action, service))

    world.on_action = slow
    world.exporter.set("web", up=False)
    answer = client_of(world).post(ALERTS, json=body(alert()))
    assert answer.status_code == 200
    until(lambda: world.done)
    assert not go_on.is_set()
    go_on.set()
    until(lambda: world.error().state == "recovered")


def test_the_watchdog_is_a_sign_of_life_and_no_error(idle_world: Any, client: Any) -> None:
    watchdog = alert(labels={"alertname": "Watchdog"})
    name = "soulfra_watchdog_last_received_timestamp_seconds"
    client.post(ALERTS, json=body({**watchdog, "status": "resolved"}))
    assert idle_world.count(name) == 0
    client.post(ALERTS, json=body(watchdog))
    assert idle_world.count(name) == pytest.approx(idle_world.now(), abs=5)
    assert idle_world.errors() == []


def test_our_own_call_for_a_person_is_no_signal(idle_world: Any, client: Any) -> None:
    client.post(ALERTS, json=body(alert()))
    client.post(ALERTS, json=body(alert(labels={"alertname": "SoulfraEscalation"}, fingerprint="f2")))
    error = idle_world.error()
    assert (error.signals, error.labels["alertname"]) == (1, "SoulfraServiceDown")


def test_with_monitoring_disabled_nothing_is_taken_in(make_world: Any, client_of: Any) -> None:
    world = make_world(start=False, remediator={"enabled": False})
    answer = client_of(world).post(ALERTS, json=body(alert()))
    assert (answer.status_code, answer.json["accepted"], world.errors()) == (200, 0, [])


def test_only_post_is_served(client: Any) -> None:
    assert client.get(ALERTS).status_code == 405


def test_answers_are_counted_by_status(idle_world: Any, client: Any) -> None:
    client.post(ALERTS, json=body(alert()))
    client.post(ALERTS, data="x")
    for code in ("200", "400"):
        assert idle_world.count("soulfra_webhook_requests_total", code=code) == 1
    assert idle_world.count("soulfra_webhook_request_duration_seconds_count") == 2


def test_secrets_in_labels_never_come_out(idle_world: Any, client: Any, tmp_path: Any) -> None:
    secret = "hunter" + "2" * 12
    given = alert(
        labels={"api_token": secret, "note": f"password={secret}"},
        annotations={"description": f"login failed: password={secret}", "secret": secret},
    )
    assert client.post(ALERTS, json=body(given)).status_code == 200
    error = idle_world.error()
    pages = [
        client.get("/api/monitoring/errors").text,
        client.get(f"/api/monitoring/errors/{error.id}").text,
        client.get("/api/monitoring/health").text,
        client.get("/api/monitoring/decisions").text,
        client.get("/metrics").text,
        repr(idle_world.lines),
        repr(error),
    ]
    assert all(secret not in page for page in pages)
    assert "***" in pages[1]
    idle_world.store.close()
    for file in idle_world.folder.glob("soulfra.db*"):
        assert secret.encode() not in file.read_bytes()
