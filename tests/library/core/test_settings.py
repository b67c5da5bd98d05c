"""Settings come from keywords, then from the environment; all mistakes are told at once."""

import sys
from typing import Any

import pytest

from soulfra_monitor import ErrorMonitor, SettingsError
from soulfra_monitor.settings import Settings, read


def test_without_any_settings_the_remediator_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/srv/shop/trust_engine.py"])

    settings = read({}, {})

    assert settings == Settings(service="trust_engine")
    assert settings.url == "http://127.0.0.1:3001"
    assert settings.enabled


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ("/srv/shop/__main__.py", "shop"),
        ("/usr/bin/gunicorn", "gunicorn"),
        ("", "python"),
        ("-c", "python"),
        ("/srv/my shop!.py", "my-shop"),
    ],
)
def test_a_program_without_a_name_is_called_as_its_file(
    monkeypatch: pytest.MonkeyPatch, argv: str, name: str
) -> None:
    monkeypatch.setattr(sys, "argv", [argv])

    assert read({}, {}).service == name


def test_the_environment_is_read() -> None:
    environment = {
        "SOULFRA_SERVICE": "ai-router",
        "SOULFRA_URL": "https://monitor.test/base/",
        "SOULFRA_TOKEN": "t0ken",
        "SOULFRA_RELEASE": "1.2.3",
        "SOULFRA_SPOOL": "/var/spool/shop",
        "SOULFRA_WITHOUT": "swallowed, logs",
        "MONITORING_OVERHEAD_LIMIT": "2.5%",
        "ERROR_MONITORING_ENABLED": "false",
        "ERROR_LOG_LEVEL": "DEBUG",
    }

    settings = read({}, environment)

    assert settings.service == "ai-router"
    assert settings.url == "https://monitor.test/base"
    assert settings.token == "t0ken"
    assert settings.release == "1.2.3"
    assert settings.spool == "/var/spool/shop"
    assert settings.without == {"swallowed", "logs"}
    assert settings.overhead_limit == 2.5
    assert not settings.enabled
    assert settings.log_level == "debug"


def test_a_keyword_beats_the_environment() -> None:
    assert read({"service": "mine"}, {"SOULFRA_SERVICE": "theirs"}).service == "mine"


def test_empty_variables_count_as_absent() -> None:
    assert read({"service": "x"}, {"SOULFRA_URL": "", "SOULFRA_TOKEN": ""}) == Settings(service="x")


def test_all_mistakes_are_told_at_once_each_by_the_name_the_user_wrote() -> None:
    with pytest.raises(SettingsError) as caught:
        read({"service": "a b", "colour": 1}, {"SOULFRA_URL": "nowhere", "MONITORING_OVERHEAD_LIMIT": "0"})

    text = str(caught.value)
    assert "service: must have letters" in text
    assert "colour: is no setting; there are service, url" in text
    assert "SOULFRA_URL: must be an address of http or https" in text
    assert "MONITORING_OVERHEAD_LIMIT: must be above 0" in text


@pytest.mark.parametrize(
    "given",
    [
        {"service": ""},
        {"service": "-x"},
        {"service": "x" * 64},
        {"service": 5},
        {"url": "ftp://x"},
        {"url": "http://"},
        {"url": "http://user:word@x"},
        {"url": "http://x:99999"},
        {"url": "http://x:0"},
        {"url": "http://x?a=1"},
        {"url": 7},
        {"token": "two\nlines"},
        {"token": 7},
        {"enabled": "perhaps"},
        {"release": 7},
        {"overhead_limit": 101},
        {"overhead_limit": "much"},
        {"log_level": "loud"},
        {"queue_events": 0},
        {"queue_events": 1.5},
        {"interval": 0},
        {"interval": "soon"},
        {"timeout": float("inf")},
        {"timeout": -1},
        {"without": 5},
        {"in_app": [1]},
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"^{next(iter(given))}: "):
        read({"service": "x", **given} if "service" not in given else given, {})


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5.0), ("1m30s", 90.0), (2, 2.0), ("0.5", 0.5)])
def test_times_are_seconds_or_written_with_units(text: Any, seconds: float) -> None:
    assert read({"service": "x", "interval": text}, {}).interval == seconds


def test_the_token_is_not_shown() -> None:
    word = "very" + "-secret"

    assert word not in repr(read({"service": "x", "token": word}, {}))


def test_a_monitor_tells_mistakes_when_it_is_made() -> None:
    with pytest.raises(SettingsError, match="url"):
        ErrorMonitor(service="x", url="nowhere")
