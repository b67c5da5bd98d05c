"""What is asked of Alertmanager and told to it, on a real one."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from remediator.alertmanager import (
    AlertmanagerUnreachable,
    active_alerts,
    held_fingerprints,
    post_alerts,
    silence_for,
)
from remediator.alerts import signal_of_alert
from remediator.calls import CallError, call
from remediator.config import Channel
from remediator.notify import Notification, Notifier
from remediator.signals import Source, Status
from soulfra_monitor.problems import Problem, Severity

LABELS = {
    "alertname": "SoulfraServiceDown",
    "target": "shop",
    "problem": "service_down",
    "severity": "critical",
}
CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_ready(url: str) -> bool:
    try:
        return call("GET", f"{url}/-/ready", timeout=1).ok
    except CallError:
        return False


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if command is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Alertmanager is not installed")
        pytest.skip("Alertmanager is not installed")
    folder: Path = tmp_path_factory.mktemp("alertmanager")
    (folder / "alertmanager.yml").write_text(CONFIG)
    url = f"http://127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                command,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address={url.removeprefix('http://')}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 20
    while not is_ready(url):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """End what a test has silenced, so that the next one begins with nothing silenced."""
    yield
    if "alertmanager" not in request.fixturenames:
        return
    url = request.getfixturevalue("alertmanager")
    for silence in call("GET", f"{url}/api/v2/silences", timeout=5).json():
        call("DELETE", f"{url}/api/v2/silence/{silence['id']}", timeout=5)


def silence(url: str, *matchers: tuple[str, str, bool, bool]) -> None:
    now = datetime.now(UTC)
    body = {
        "matchers": [
            {"name": name, "value": value, "isRegex": regex, "isEqual": equal}
            for name, value, regex, equal in matchers
        ],
        "startsAt": (now - timedelta(seconds=1)).isoformat(),
        "endsAt": (now + timedelta(minutes=5)).isoformat(),
        "createdBy": "the night shift",
        "comment": "planned work",
    }
    answer = call("POST", f"{url}/api/v2/silences", timeout=5, json_body=body)
    assert answer.ok, answer.body


def targets(urls: list[str]) -> set[str]:
    return {alert["labels"]["target"] for alert in active_alerts(urls, timeout=5)}


def test_a_firing_alert_reads_like_one_of_a_webhook(alertmanager: str, until: Callable[..., None]) -> None:
    post_alerts([alertmanager], [{"labels": LABELS, "annotations": {"summary": "it is down"}}], timeout=5)
    until(lambda: "shop" in targets([alertmanager]))

    (alert,) = [one for one in active_alerts([alertmanager], timeout=5) if one["labels"]["target"] == "shop"]
    signal = signal_of_alert(alert, time.time(), Source.RECONCILE)

    assert alert["status"] == "firing"
    assert len(alert["fingerprint"]) == 16
    assert (signal.target, signal.problem, signal.status) == ("shop", Problem.SERVICE_DOWN, Status.FIRING)
    assert signal.fingerprint == alert["fingerprint"]
    assert signal.message == "it is down"
    assert signal.starts_at is not None


def test_an_alert_without_a_problem_and_a_silenced_one_are_not_there(
    alertmanager: str, until: Callable[..., None]
) -> None:
    silence(alertmanager, ("target", "quiet", False, True))
    plain = {"alertname": "Other", "target": "plain"}
    alerts = [plain, {**LABELS, "target": "quiet"}, {**LABELS, "target": "loud"}]
    post_alerts([alertmanager], [{"labels": labels} for labels in alerts], timeout=5)

    until(lambda: "loud" in targets([alertmanager]))

    assert targets([alertmanager]).isdisjoint({"plain", "quiet"})


def test_an_alert_is_held_also_while_it_is_silenced(alertmanager: str, until: Callable[..., None]) -> None:
    silence(alertmanager, ("target", "hushed", False, True))
    before = held_fingerprints([alertmanager], timeout=5)
    post_alerts([alertmanager], [{"labels": {**LABELS, "target": "hushed"}}], timeout=5)

    until(lambda: len(held_fingerprints([alertmanager], timeout=5) - before) == 1)

    assert "hushed" not in targets([alertmanager])


def test_what_is_held_is_not_known_while_one_alertmanager_is_away(alertmanager: str) -> None:
    with pytest.raises(AlertmanagerUnreachable, match="1 of 2 do not answer"):
        held_fingerprints([alertmanager, f"http://127.0.0.1:{free_port()}"], timeout=5)


def test_an_alert_that_two_know_comes_once_and_one_that_is_away_is_logged(
    alertmanager: str, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    post_alerts([alertmanager], [{"labels": {**LABELS, "target": "twice"}}], timeout=5)
    until(lambda: "twice" in targets([alertmanager]))

    found = active_alerts([alertmanager, alertmanager, f"http://127.0.0.1:{free_port()}"], timeout=5)

    assert sum(alert["labels"]["target"] == "twice" for alert in found) == 1
    assert "alertmanagers[2]: the connection was refused" in caplog.text


@pytest.mark.parametrize(
    ("matcher", "matches"),
    [
        (("target", "shop", False, True), True),
        (("target", "sho", False, True), False),
        (("target", "sh.*", True, True), True),
        (("target", "ho", True, True), False),  # anchored at both ends
        (("target", "bank", False, False), True),
        (("target", "shop|bank", True, False), False),
        (("team", "", False, False), False),  # a missing label is an empty one
    ],
)
def test_a_silence_matches_as_alertmanager_matches(
    alertmanager: str, matcher: tuple[str, str, bool, bool], matches: bool
) -> None:
    silence(alertmanager, matcher, ("severity", "critical", False, True))

    found = silence_for([alertmanager], LABELS, timeout=5)

    assert found == ("planned work (by the night shift)" if matches else None)


def test_every_matcher_of_a_silence_must_hold(alertmanager: str) -> None:
    silence(alertmanager, ("target", "shop", False, True), ("severity", "info", False, True))

    assert silence_for([alertmanager], LABELS, timeout=5) is None


def test_an_ended_silence_silences_nothing(alertmanager: str) -> None:
    silence(alertmanager, ("target", "shop", False, True))
    (found,) = [
        one
        for one in call("GET", f"{alertmanager}/api/v2/silences", timeout=5).json()
        if one["status"]["state"] == "active"
    ]
    call("DELETE", f"{alertmanager}/api/v2/silence/{found['id']}", timeout=5)

    assert silence_for([alertmanager], LABELS, timeout=5) is None


def test_an_escalation_arrives_as_an_alert_and_is_no_signal(
    alertmanager: str, until: Callable[..., None]
) -> None:
    notifier = Notifier({"people": Channel(alertmanager=True)}, [alertmanager], {})
    note = Notification(
        subject="shop needs a person",
        text="restarted three times in vain",
        severity=Severity.HIGH,
        target="escalated",
        problem=Problem.SERVICE_DOWN,
        error_id="SE_00000001",
    )

    assert notifier.send(["people"], note) == {"people": None}

    def told() -> list[dict[str, Any]]:
        alerts = call("GET", f"{alertmanager}/api/v2/alerts", timeout=5).json()
        return [alert for alert in alerts if alert["labels"]["alertname"] == "SoulfraEscalation"]

    until(told)
    (alert,) = told()
    assert alert["labels"] == {
        "alertname": "SoulfraEscalation",
        "target": "escalated",
        "problem": "service_down",
        "severity": "warning",
        "kind": "escalation",
        "error_id": "SE_00000001",  # a label: the next error of the same target is told as well
    }
    assert alert["annotations"]["summary"] == "shop needs a person"
    assert alert["annotations"]["description"] == "restarted three times in vain"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/SoulfraEscalation.md"
    lasts = datetime.fromisoformat(alert["endsAt"]).timestamp() - time.time()
    assert 3500 < lasts <= 3600
    assert "escalated" not in targets([alertmanager])


def test_none_that_answers_is_said_with_the_reasons() -> None:
    urls = [f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"]

    for ask in (lambda: active_alerts(urls, timeout=1), lambda: silence_for(urls, LABELS, timeout=1)):
        with pytest.raises(
            AlertmanagerUnreachable, match=r"alertmanagers\[0\]: .*refused.*alertmanagers\[1\]"
        ):
            ask()


def test_no_alertmanager_at_all_is_said() -> None:
    with pytest.raises(AlertmanagerUnreachable, match="no Alertmanager is configured"):
        active_alerts([], timeout=1)


@pytest.mark.parametrize("body", [b"no json", b"{}", b"null"])
def test_an_answer_that_is_no_list_is_none(http_server: Any, make_reply: Any, body: bytes) -> None:
    http_server.answer = lambda _: make_reply(body=body)

    with pytest.raises(AlertmanagerUnreachable):
        active_alerts([http_server.url], timeout=2)


def test_a_pattern_that_cannot_be_read_here_counts_as_a_silence(http_server: Any, make_reply: Any) -> None:
    matcher = {"name": "target", "value": r"(?U)sh.*\z", "isRegex": True, "isEqual": True}
    found = {"status": {"state": "active"}, "matchers": [matcher], "comment": "quiet", "createdBy": "bob"}
    http_server.answer = lambda _: make_reply(body=[found])

    assert silence_for([http_server.url], LABELS, timeout=2) == "quiet (by bob)"
