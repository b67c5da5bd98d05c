"""The configuration: what is accepted, what is refused beside the files in bad/, where values come from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds.http import HttpProbe
from exporter.kinds.process import ProcessProbe
from exporter.loading import load_config
from exporter.probes.http_ask import place_of

Load = Callable[..., WatchConfig]

URL = "must be an http:// or https:// address with a host and, if any, a port up to 65535"
SPEC_JSON = """{"errorMonitoring": {"services": {"trust-engine": {"healthCheckPath": "/health",
"timeoutThreshold": 5000, "errorThreshold": 3, "autoRestart": true}}, "recovery": {"strategies":
["restart", "reconnect", "retry"], "maxAttempts": 3, "backoffMultiplier": 2}}}"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(text: str, environment: dict[str, str] | None = None) -> WatchConfig:
        file = tmp_path / "soulfra.yml"
        file.write_text(text)
        return load_config(file, WatchConfig, environment or {})

    return read


def mistakes(load: Load, text: str, environment: dict[str, str] | None = None) -> list[str]:
    """Return the mistakes as ``LINE: PLACE: MESSAGE``."""
    with pytest.raises(ConfigError) as caught:
        load(text, environment)
    return [f"{found.line}: {found.place}: {found.message}" for found in caught.value.mistakes]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "services: {a: {process: {}}}",
            "1: services.a.process: say in exactly one way how to find the process: port, pid_file or match",
        ),
        (
            "services: {a: {process: {port: 1, match: x}}}",
            "1: services.a.process: say in exactly one way how to find the process: port, pid_file or match",
        ),
        (
            "services: {a: {process: {port: 0}}}",
            "1: services.a.process.port: must be at least 1",
        ),
        (
            "services: {a: {process: {match: '('}}}",
            "1: services.a.process.match: '(' is not a regular expression of RE2: missing ): (",
        ),
    ],
)
def test_each_rule_of_processes_names_the_place_that_breaks_it(load: Load, text: str, mistake: str) -> None:
    assert mistake in mistakes(load, text)


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://127.0.0.1:port/", "http://a:1:2/"),
        *("http://[::1/", "http://[abc]/", "http://:80/", "http:///path", "http://user@/", "http://a b/"),
        *("http://a..b/", f"http://{'a' * 64}.test/", "http://xn--/", "http://a\\b/", "http://a\x7f/"),
    ],
)
def test_an_address_that_can_never_be_asked_is_a_mistake(load: Load, address: str) -> None:
    quoted = json.dumps(address)
    text = f"exporter: {{alertmanagers: [{quoted}]}}\nservices: {{a: {{probes: [{{http: {quoted}}}]}}}}"

    assert mistakes(load, text) == [
        f"1: exporter.alertmanagers[0]: {URL}",
        f"2: services.a.probes[0].http: {URL}",
    ]


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1", "HTTPS://a.test:65535/x?y#z", "http://[::1]:9/", "http://me:x@a_b:1/"),
        *("http://a.test./", "http://\u2603.test/"),
    ],
)
def test_an_address_with_host_and_port_is_accepted_and_can_be_asked(load: Load, address: str) -> None:
    config = load(f"exporter: {{alertmanagers: [{json.dumps(address)}]}}")

    [accepted] = config.exporter.alertmanagers
    assert place_of(accepted).host


def test_no_status_at_all_is_a_mistake_because_nothing_could_be_healthy(load: Load) -> None:
    [mistake] = mistakes(load, "services: {a: {probes: [{http: 'http://x', expect: {status: []}}]}}")

    assert mistake.startswith("1: services.a.probes[0].expect.status: ")
    assert "must not be empty" in mistake


@pytest.mark.parametrize(("written", "statuses"), [("204", (204,)), ("[200, 503]", (200, 503))])
def test_one_status_or_several_are_accepted(load: Load, written: str, statuses: tuple[int, ...]) -> None:
    config = load(f"services: {{a: {{probes: [{{http: 'http://x', expect: {{status: {written}}}}}]}}}}")

    [probe] = config.services["a"].probes
    assert isinstance(probe, HttpProbe)
    assert probe.expect.status == statuses


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "1\r\nX-B: 2"}, {"X-A": "1\n"}, {"X-A": "\x00"}, {"X-A": "\x7f"}],
)
def test_control_characters_in_headers_are_a_mistake(load: Load, headers: dict[str, str]) -> None:
    text = f"services: {{a: {{probes: [{{http: 'http://x', headers: {json.dumps(headers)}}}]}}}}"

    [mistake] = mistakes(load, text)

    assert mistake.startswith("1: services.a.probes[0].headers")
    assert mistake.endswith("a header must not contain control characters")


@pytest.mark.parametrize(
    "expect",
    ["{body: '('}", "{headers: {X-A: '['}}"],
)
def test_an_expected_pattern_must_be_a_regular_expression(load: Load, expect: str) -> None:
    [mistake] = mistakes(load, f"services: {{a: {{probes: [{{http: 'http://x', expect: {expect}}}]}}}}")

    assert mistake.startswith("1: services.a.probes[0].expect.")
    assert "is not a regular expression" in mistake


def test_all_mistakes_come_at_once_in_the_order_of_their_lines(load: Load) -> None:
    text = """\
exporter:
  interval: 5
services:
  a:
    probes:
      - {http: nowhere}
    depends_on: [z]
  b:
    timeout_threshold: soon
integrations:
  - {from: a, to: q, probe: {tcp: "x:1"}}
"""

    found = mistakes(load, text, {"HEALTH_CHECK_INTERVAL": "often"})

    # What the environment says of the interval is wrong, so what the file says counts.
    assert [line.split(": ")[:2] for line in found] == [
        ["None", "HEALTH_CHECK_INTERVAL"],
        ["2", "exporter.interval"],
        ["6", "services.a.probes[0].http"],
        ["7", "services.a.depends_on[0]"],
        ["9", "services.b.timeout_threshold"],
        ["11", "integrations[0].to"],
    ]


def test_text_that_is_no_yaml_is_named_with_its_line(load: Load) -> None:
    [mistake] = mistakes(load, "services:\n  a: [\n")

    assert mistake.startswith("3: ")


def test_a_file_that_cannot_be_read_is_a_mistake_and_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load_config(tmp_path / "absent.yml", WatchConfig, {})


def test_text_that_is_not_utf_8_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(file, WatchConfig, {})


def test_an_empty_file_and_empty_services_are_valid(load: Load) -> None:
    assert load("").services == {}
    assert load("services: {}").services == {}


def test_the_json_of_the_specification_is_accepted_as_it_stands(load: Load) -> None:
    config = load(SPEC_JSON)

    service = config.services["trust-engine"]
    assert (service.timeout_threshold, service.error_threshold, service.auto_restart) == (5.0, 3, True)
    assert config.warnings() == [
        "services.trust-engine: has neither probes nor process, so nothing watches it",
        (
            "errorMonitoring.services.trust-engine.healthCheckPath: has no address to go with; "
            "write services.trust-engine.probes with the whole one"
        ),
        "errorMonitoring.recovery.strategies: is not used; playbooks say what is done",
    ]


def test_what_is_accepted_but_not_used_is_warned_of(load: Load) -> None:
    config = load("services: {a: {host: h, process: {port: 1}}}\nheartbeats: {nightly: {period: 24h}}")

    assert config.warnings() == [
        "services.a.host: is told in metrics only; no remediator goes by it yet",
    ]


def test_yaml_beats_json_and_json_beats_the_default(load: Load) -> None:
    config = load(
        """
services: {a: {error_threshold: 7}}
errorMonitoring: {services: {a: {errorThreshold: 9, autoRestart: false, timeoutThreshold: 250}}}
"""
    )

    service = config.services["a"]
    assert (service.error_threshold, service.auto_restart, service.timeout_threshold) == (7, False, 0.25)


@pytest.mark.parametrize(
    ("environment", "interval"),
    [({}, 7.0), ({"HEALTH_CHECK_INTERVAL": ""}, 7.0), ({"HEALTH_CHECK_INTERVAL": "1500"}, 1.5)],
)
def test_the_environment_beats_the_file(load: Load, environment: dict[str, str], interval: float) -> None:
    assert load("exporter: {interval: 7s}", environment).exporter.interval == interval


@pytest.mark.parametrize("text", ["0", "-1", "5s", "1.5"])
def test_an_interval_in_the_environment_is_a_number_of_milliseconds(load: Load, text: str) -> None:
    assert mistakes(load, "", {"HEALTH_CHECK_INTERVAL": text}) == [
        "None: HEALTH_CHECK_INTERVAL: must be a whole number of milliseconds greater than 0"
    ]


def test_sections_of_other_parts_are_left_alone(load: Load) -> None:
    assert load("remediator: {anything: 1}\nplaybooks: [x]").playbooks == ["x"]


def test_probes_get_unique_names(load: Load) -> None:
    config = load(
        """
services:
  a:
    probes: [{tcp: "x:1"}, {tcp: "x:2"}, {http: "http://x", name: front}, {http: "http://x", name: front}]
    process: {port: 1}
"""
    )

    probes = config.services["a"].all_probes()
    assert [name for name, _ in probes] == ["tcp", "tcp-2", "front", "front-2", "process"]
    assert isinstance(probes[-1][1], ProcessProbe)


def test_a_threshold_that_no_answer_can_reach_is_warned_of(load: Load) -> None:
    config = load("services: {a: {probes: [{tcp: 'x:1', timeout: 1s}], timeout_threshold: 1s}}")

    [warning] = config.warnings()
    assert warning.startswith("services.a.timeout_threshold: 1 s is never reached")
