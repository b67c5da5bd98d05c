"""Notifications: every kind of channel; failures are bounded, returned and silent about addresses."""

import json
import logging
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from remediator.config import Channel
from remediator.notify import Notification, Notifier
from soulfra_monitor.problems import Problem, Severity

NOTE = Notification(
    subject="[critical] shop: service_down",
    text="restarted twice in vain; tok" + "en=hunter2",
    severity=Severity.CRITICAL,
    target="shop",
    problem=Problem.SERVICE_DOWN,
    error_id="SE_00000001",
    run_id="R_000000000001",
    evidence={"log": ["pass" + "word: hunter2"], "secret": "hunter2"},
    url="http://127.0.0.1:3001/errors/SE_00000001",
)


def test_a_webhook_gets_text_for_people_and_fields_for_machines(http_server: Any) -> None:
    result = Notifier({"chat": Channel(webhook=f"{http_server.url}/in")}, [], {}).send(["chat"], NOTE)

    (request,) = http_server.requests
    assert result == {"chat": None}
    assert (request.method, request.path) == ("POST", "/in")
    assert request.json["text"].startswith("[critical] shop: service_down\nrestarted twice")
    assert request.json["severity"] == "critical"
    assert request.json["target"] == "shop"
    assert request.json["problem"] == "service_down"
    assert request.json["error_id"] == "SE_00000001"
    assert request.json["run_id"] == "R_000000000001"
    assert request.json["url"] == NOTE.url


def test_nothing_secret_leaves(http_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    channels = {"chat": Channel(webhook=http_server.url), "log": Channel(log=True)}

    Notifier(channels, [], {}).send(["chat", "log"], NOTE)

    assert b"hunter2" not in http_server.requests[0].body
    assert "restarted twice in vain" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_address_can_come_from_the_environment(http_server: Any) -> None:
    notifier = Notifier({"chat": Channel(webhook_env="CHAT")}, [], {"CHAT": http_server.url})

    assert notifier.send(["chat"], NOTE) == {"chat": None}


def test_a_variable_that_is_not_set_is_a_failure() -> None:
    notifier = Notifier({"chat": Channel(webhook_env="CHAT")}, [], {})

    assert notifier.send(["chat"], NOTE) == {"chat": "the variable CHAT is not set"}


def test_an_escalation_is_also_told_to_the_address_of_the_environment(http_server: Any) -> None:
    notifier = Notifier({"log": Channel(log=True)}, [], {"ERROR_WEBHOOK_URL": http_server.url})

    assert notifier.send(["log"], NOTE) == {"log": None}
    assert http_server.requests == []
    assert notifier.escalate(["log"], NOTE) == {"log": None, "slack": None}
    assert len(http_server.requests) == 1


def test_without_that_address_an_escalation_goes_to_its_channels_alone() -> None:
    assert Notifier({"log": Channel(log=True)}, [], {}).escalate(["log"], NOTE) == {"log": None}


def test_a_channel_that_stumbles_is_told_again(http_server: Any, make_reply: Any) -> None:
    answers = iter([make_reply(status=503), make_reply(status=429), make_reply()])
    http_server.answer = lambda _: next(answers)

    assert Notifier({"chat": Channel(webhook=http_server.url)}, [], {}).send(["chat"], NOTE) == {"chat": None}
    assert len(http_server.requests) == 3


def test_a_refusal_is_not_repeated(http_server: Any, make_reply: Any) -> None:
    http_server.answer = lambda _: make_reply(status=404, body="no such hook /secret-path")

    result = Notifier({"chat": Channel(webhook=http_server.url)}, [], {}).send(["chat"], NOTE)

    assert result == {"chat": "status 404"}
    assert len(http_server.requests) == 1


def test_a_failure_never_tells_the_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"http://127.0.0.1:{port}/services/T0/B0/hunter2"

    result = Notifier({"chat": Channel(webhook=address)}, [], {}).send(["chat"], NOTE)

    assert result["chat"] is not None
    assert "hunter2" not in json.dumps(result) + caplog.text
    assert str(port) not in json.dumps(result)


def test_a_hanging_channel_neither_delays_the_others_nor_lasts(
    http_server: Any, make_reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remediator.notify.TIME_LIMIT", 0.7)
    http_server.answer = lambda _: make_reply(delay=20)
    channels = {"chat": Channel(webhook=http_server.url), "log": Channel(log=True)}
    began = time.monotonic()

    result = Notifier(channels, [], {}).send(["chat", "log"], NOTE)

    assert result == {"chat": "no answer in time", "log": None}
    assert time.monotonic() - began < 2


def test_an_unknown_channel_is_a_failure() -> None:
    assert Notifier({}, [], {}).send(["chat"], NOTE) == {"chat": "there is no such channel"}


def test_nobody_to_tell_is_no_failure() -> None:
    assert Notifier({}, [], {}).send([], NOTE) == {}


def test_no_alertmanager_takes_it_is_a_failure(http_server: Any, make_reply: Any) -> None:
    http_server.answer = lambda _: make_reply(status=500)
    notifier = Notifier({"people": Channel(alertmanager=True)}, [http_server.url], {})

    result = notifier.send(["people"], NOTE)

    assert "alertmanagers[0]: status 500" in (result["people"] or "")


def test_one_alertmanager_of_two_is_enough(http_server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
    notifier = Notifier({"people": Channel(alertmanager=True)}, [away, http_server.url], {})

    assert notifier.send(["people"], NOTE) == {"people": None}
    assert len(http_server.requests) == 1


LOG = Channel(log=True)
PEOPLE = Channel(alertmanager=True)


@pytest.mark.parametrize(
    ("channels", "results", "reached"),
    [
        ({"people": PEOPLE, "log": LOG}, {"people": "refused", "log": None}, False),
        ({"people": PEOPLE, "log": LOG}, {"people": None, "log": None}, True),
        ({"log": LOG}, {"log": None}, True),  # nothing else was asked for
        ({"people": PEOPLE}, {"people": None, "slack": "refused"}, True),
        ({}, {}, False),
    ],
)
def test_people_are_reached_by_what_they_hear_and_not_by_the_log(
    channels: dict[str, Channel], results: dict[str, str | None], reached: bool
) -> None:
    assert Notifier(channels, [], {}).reached_people(results) is reached


def test_alertmanager_can_tell_two_errors_and_an_approval_apart(http_server: Any) -> None:
    notifier = Notifier({"people": PEOPLE}, [http_server.url], {})
    for note in (NOTE, replace(NOTE, error_id="SE_00000002"), replace(NOTE, kind="approval")):
        notifier.send(["people"], note)
    labels = [frozenset(request.json[0]["labels"].items()) for request in http_server.requests]
    assert len(set(labels)) == 3
