"""The whole platform, started by the commands of its soulfra.yml."""

import ast
import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import requests
import yaml

if TYPE_CHECKING:
    from tests.platform.conftest import Running

Launch = Callable[[list[str]], "Running"]
LOG = "[2024-05-01 10:22] ann: the export works, great\n[2024-05-01 10:23] ben: awful, it is broken again\n"


@dataclass
class Platform:
    """The running platform, on ports of its own."""

    config: dict[str, Any]
    services: dict[str, "Running"]
    commands: dict[str, list[str]]


def is_healthy(service: dict[str, Any]) -> bool:
    probe = service["probes"][0]
    try:
        if "redis" in probe:
            with redis.Redis.from_url(probe["redis"]) as client:
                return bool(client.ping())
        answer = requests.get(probe["http"], timeout=2)
        return answer.status_code == 200 and answer.json()["status"] == "healthy"
    except (redis.ConnectionError, requests.RequestException):
        return False


@pytest.fixture(scope="module")
def config(
    platform_folder: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Read the configuration as shipped, with free ports and a folder for its data."""
    ports: dict[str, str] = {}
    text = re.sub(
        r"\b400\d\b",
        lambda found: ports.setdefault(found[0], str(free_port())),
        (platform_folder / "soulfra.yml").read_text(),
    )
    data = tmp_path_factory.mktemp("data")
    config: dict[str, Any] = yaml.safe_load(text.replace("{data}", str(data)))
    return config


@pytest.fixture(scope="module")
def platform(
    config: dict[str, Any], redis_server: str, launch: Launch, until: Callable[..., None]
) -> Platform:
    running = Platform(config=config, services={}, commands={})
    commands = {name: service["restart"]["command"] for name, service in config["services"].items()}
    for name, argv in {**commands, "load": config["demo"]["load"]}.items():
        running.commands[name] = [sys.executable, *argv[1:]] if argv[0] == "{python}" else argv
    for name, service in config["services"].items():
        running.services[name] = launch(running.commands[name])
        running.services[name].url = f"http://127.0.0.1:{service['process']['port']}"
    for name in config["services"]:
        until(lambda name=name: is_healthy(config["services"][name]), what=f"{name} healthy")
    return running


def journey(platform: Platform, **body: str) -> requests.Response:
    return platform.services["orchestrator"].post("/journey", {"log": LOG, **body})


def restart(platform: Platform, launch: Launch, until: Callable[..., None], name: str) -> None:
    url = platform.services[name].url
    platform.services[name] = launch(platform.commands[name])
    platform.services[name].url = url
    until(lambda: is_healthy(platform.config["services"][name]), what=f"{name} healthy again")


@pytest.mark.parametrize("document", ["html", "epub", "pdf"])
def test_a_journey_goes_through_all_services_and_ends_with_a_document(
    platform: Platform, document: str
) -> None:
    answer = journey(platform, document=document)
    result = answer.json()

    assert answer.status_code == 200, answer.text
    assert [step["service"] for step in result["steps"]] == [
        "chat-analyzer",
        "trust-engine",
        "ai-router",
        "mobile-converter",
    ]
    assert all(step["seconds"] > 0 for step in result["steps"])
    assert result["insights"]["authors"] == {"ann": 1, "ben": 1}
    assert result["trust"]["ann"] > result["trust"]["ben"]
    assert result["prompt"]["cost"] > 0
    file = platform.services["mobile-converter"].get(result["document"]["path"])
    assert len(file.content) == result["document"]["bytes"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"log": "rubbish"}, "analyze: chat-analyzer answered 400: line 1: expected"),
        ({"format": "xml"}, "'format' must be one of json, csv, text, markdown"),
        ({"document": "doc"}, "'document' must be one of html, epub, pdf"),
    ],
)
def test_a_journey_that_cannot_begin_is_refused(
    platform: Platform, body: dict[str, str], reason: str
) -> None:
    answer = journey(platform, **body)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_names_with_markup_in_them_reach_the_document_as_they_are(platform: Platform) -> None:
    name = "*b* `c` [d](e) <f> |g| _h_ \\"
    log = json.dumps([{"time": 1, "author": name, "text": "hello"}])

    documents = {made: journey(platform, log=log, format="json", document=made) for made in ("html", "pdf")}

    assert documents["pdf"].status_code == 200, documents["pdf"].text
    path = documents["html"].json()["document"]["path"]
    page = platform.services["mobile-converter"].get(path).text
    assert "<td>*b* `c` [d](e) &lt;f&gt; |g| _h_ \\</td>" in page


def test_every_integration_of_the_configuration_answers(platform: Platform) -> None:
    for edge in platform.config["integrations"]:
        answer = requests.get(edge["probe"]["http"], timeout=2)

        assert answer.status_code == 200, answer.text
        assert answer.json()["service"] == edge["to"]


def test_a_neighbour_that_is_down_fails_its_link_and_the_journey_but_not_the_orchestrators_health(
    platform: Platform, launch: Launch, until: Callable[..., None]
) -> None:
    orchestrator = platform.services["orchestrator"]
    platform.services["trust-engine"].end(signal.SIGKILL)

    link, failed = orchestrator.get("/links/trust-engine"), journey(platform)
    health, other = orchestrator.get("/health"), orchestrator.get("/links/chat-analyzer")
    restart(platform, launch, until, "trust-engine")

    assert (link.status_code, link.json()["reason"]) == (502, "trust-engine cannot be reached")
    assert failed.status_code == 502
    assert failed.json()["failed"] == "trust"
    assert [step["step"] for step in failed.json()["steps"]] == ["analyze", "trust"]
    assert health.status_code == other.status_code == 200
    assert journey(platform).status_code == 200


def test_a_killed_redis_comes_back_with_its_scores_and_the_trust_engine_with_it(
    platform: Platform, launch: Launch, until: Callable[..., None]
) -> None:
    trust = platform.services["trust-engine"]
    trust.post("/events", {"user": "kept", "kind": "verified"})
    platform.services["redis"].end(signal.SIGKILL)
    sick = trust.get("/health")

    restart(platform, launch, until, "redis")

    assert sick.status_code == 503
    assert trust.get("/health").status_code == 200
    assert trust.get("/scores/kept").json()["events"] == {"verified": 1}


def test_the_load_records_each_request_and_survives_an_outage(
    platform: Platform, launch: Launch, until: Callable[..., None], tmp_path: Path
) -> None:
    record = tmp_path / "load.jsonl"
    command = [part for part in platform.commands["load"] if not part.startswith(("--rate", "--record"))]
    load = launch([*command, "--rate", "30", "--record", str(record)])
    until(lambda: len(lines(record)) >= 20, what="20 records")
    platform.services["chat-analyzer"].end(signal.SIGKILL)
    until(lambda: any(not line["ok"] for line in lines(record)), what="a failure")
    restart(platform, launch, until, "chat-analyzer")
    back = len(lines(record))
    until(lambda: any(line["ok"] for line in lines(record)[back + 5 :]), what="a success again")

    ended = load.end()

    assert ended == 0
    records = lines(record)
    assert set(records[0]) == {"time", "service", "method", "path", "ok", "status", "seconds", "error"}
    failures = [line for line in records if not line["ok"]]
    assert all(line["service"] in {"chat-analyzer", "orchestrator"} for line in failures), failures
    assert all(line["error"] for line in failures)
    sent, succeeded, failed, unfinished = map(int, re.findall(r"\d+", load.log.read_text()))
    assert (succeeded + failed, failed) == (len(records), len(failures))
    assert sent == len(records) + unfinished


def lines(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def test_a_load_with_a_duration_ends_by_itself_with_every_kind_of_request(
    platform: Platform, launch: Launch, tmp_path: Path
) -> None:
    record = tmp_path / "load.jsonl"
    command = [part for part in platform.commands["load"] if not part.startswith(("--rate", "--record"))]

    load = launch([*command, "--rate", "40", "--duration", "2", "--record", str(record)])

    assert load.process.wait(20) == 0
    assert {line["service"] for line in lines(record)} == {
        "orchestrator",
        "chat-analyzer",
        "trust-engine",
        "ai-router",
        "mobile-converter",
    }
    assert [line for line in lines(record) if not line["ok"]] == []
    assert len(lines(record)) == 80


SERVICES = ("chat_analyzer", "trust_engine", "ai_router", "mobile_converter", "orchestrator")


def test_the_platform_knows_of_what_watches_it_two_lines_of_the_library_each(platform_folder: Path) -> None:
    for script in platform_folder.glob("*.py"):
        text = script.read_text()
        imported = {name.split(".")[0] for node in ast.walk(ast.parse(text)) for name in _imports(node)}
        lines = [line.strip() for line in text.splitlines() if "monitor." in line or "ErrorMonitor(" in line]

        assert not imported & {"exporter", "remediator"}, script.name
        if script.stem in SERVICES:
            started, added = lines
            name = script.stem.replace("_", "-")
            assert started == f'monitor = ErrorMonitor(service="{name}").start()'
            assert f'monitor.add_service("{name}", ' in added
        else:
            assert "soulfra_monitor" not in imported, script.name


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
