"""Services that are found by Prometheus's file_sd and http_sd formats."""

import asyncio
import errno
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from exporter import discovered
from exporter.app import Exporter, make_app
from exporter.asking import FileReader
from exporter.config import WatchConfig
from exporter.discovered import Failure, Skip, SourceError, name_of, parse, services_of
from exporter.document import ConfigError
from exporter.gate import OPEN, gate_of
from exporter.kinds import KINDS
from exporter.kinds.steps import StepsProbe
from exporter.loading import load_config
from exporter.sources import NETWORK_KINDS, FileSd
from exporter.template import Target

Start = Callable[..., Awaitable[Exporter]]
Until = Callable[..., Awaitable[object]]

TEMPLATE = {"name": "{{ labels.name }}", "probes": [{"tcp": "{{ address }}"}]}
STEPS: dict[str, Any] = {
    "steps": [
        {"http": "http://{{ address }}/login", "capture": {"token": {"json": "token"}}},
        {"http": "http://{{ address }}/{{ labels.path }}?t={{ token }}"},
    ]
}
HERE = ["127.0.0.0/8"]
RHYTHM = {"fast_path": False, "interval": "60s"}


def write(file: Path, value: Any) -> None:
    """Put a file into its place at once, as those who write targets should."""
    fresh = file.with_suffix(".new")
    fresh.write_text(value if isinstance(value, str) else json.dumps(value))
    fresh.replace(file)


def group(*addresses: str, **labels: str) -> dict[str, Any]:
    return {"targets": list(addresses), "labels": labels}


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[Exporter] = []

    async def begin(*sources: dict[str, Any], **config: Any) -> Exporter:
        file = tmp_path / "soulfra.yml"
        file.write_text(yaml.safe_dump({"exporter": RHYTHM, "discovery": list(sources), **config}))
        exporter = Exporter(file, load_config(file, WatchConfig), "127.0.0.1:1")
        await exporter.start()
        running.append(exporter)
        return exporter

    yield begin
    for exporter in running:
        await exporter.stop()


def files(pattern: str = "*.json", **more: Any) -> dict[str, Any]:
    place = {"file_sd": {"files": [pattern]}, "refresh": "1s"}
    return {"name": "files", "service": TEMPLATE, "allow_targets": HERE, **place, **more}


class Inventory:
    """An HTTP server that names targets, or fails in the way it is told."""

    def __init__(self) -> None:
        self.groups: Any = []
        self.status = 200
        self.content_type = "application/json"
        self.asked: list[dict[str, str]] = []
        self.answered = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.headers))
        text = self.groups if isinstance(self.groups, str) else json.dumps(self.groups)
        return web.Response(text=text, status=self.status, content_type=self.content_type)


@pytest.fixture
async def inventory() -> AsyncIterator[tuple[Inventory, str]]:
    one = Inventory()
    app = web.Application()
    app.router.add_get("/targets", one.answer)
    server = TestServer(app)
    await server.start_server()
    yield one, str(server.make_url("/targets"))
    await server.close()


def asked(url: str, **more: Any) -> dict[str, Any]:
    place = {"url": url, "timeout": "500ms", **more}
    rest = {"refresh": "1s", "service": TEMPLATE, "allow_targets": HERE}
    return {"name": "inventory", "http_sd": place, **rest}


def names(exporter: Exporter) -> set[str]:
    return set(exporter.world.services)


async def test_services_come_and_go_with_a_file(tmp_path: Path, start: Start, until: Until) -> None:
    file = tmp_path / "agents.json"
    write(file, [group("127.0.0.1:1", name="one"), group("127.0.0.1:2", name="two")])
    exporter = await start(files())
    await until(lambda: names(exporter) == {"one", "two"})
    kept = exporter.world.services["two"].probes["tcp"]

    write(file, [group("127.0.0.1:2", name="two"), group("127.0.0.1:3", name="three")])
    await until(lambda: names(exporter) == {"two", "three"})

    assert exporter.world.services["two"].probes["tcp"] is kept
    file.unlink()
    await until(lambda: not names(exporter))


@pytest.mark.parametrize("name", ["a.yml", "a.yaml"])
async def test_files_may_be_yaml(tmp_path: Path, start: Start, until: Until, name: str) -> None:
    (tmp_path / name).write_text("- targets: ['127.0.0.1:1']\n  labels: {name: one}\n")
    exporter = await start(files(name))

    await until(lambda: names(exporter) == {"one"})


async def test_a_broken_file_keeps_its_targets_while_others_go_on(
    tmp_path: Path, start: Start, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.json", [group("127.0.0.1:1", name="one")])
    write(tmp_path / "b.json", [group("127.0.0.1:2", name="two")])
    exporter = await start(files())
    await until(lambda: names(exporter) == {"one", "two"})

    write(tmp_path / "a.json", "[{")
    write(tmp_path / "b.json", [group("127.0.0.1:3", name="three")])
    await until(lambda: names(exporter) == {"one", "three"})

    counts = exporter.counters.discovery["files"]
    assert counts.failures[Failure.FORMAT] >= 1
    assert "files keeps its last good targets: a.json: it is not valid JSON" in caplog.text
    write(tmp_path / "a.json", [])
    await until(lambda: names(exporter) == {"three"})


@pytest.mark.parametrize("pattern", ["agents/*.json", "agents/a.json"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
async def test_a_folder_that_cannot_be_looked_at_any_more_keeps_its_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, number: int
) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    write(folder / "a.json", [group("127.0.0.1:1", name="one")])
    reader = FileReader(FileSd(files=(pattern,)), tmp_path)
    known = await reader.read()

    with monkeypatch.context() as closed:
        for call in ("scandir", "listdir", "stat"):
            closed.setattr(os, call, refusing(getattr(os, call), folder, number))
        late = await reader.read()
    (folder / "a.json").unlink()
    gone = await reader.read()

    assert len(known.found.targets) == 1
    assert late.found == known.found
    assert [failure.failure for failure in late.failures] == [Failure.READ]
    assert gone.found.targets == ()


def refusing(call: Callable[..., Any], folder: Path, number: int) -> Callable[..., Any]:
    """Return *call* of the system as it is for a folder that cannot be looked into: the folder is seen."""
    stat = os.stat

    def refuse(path: Any, *more: Any, **how: Any) -> Any:
        if Path(path).is_relative_to(folder) and (call is not stat or Path(path) != folder):
            raise OSError(number, os.strerror(number))
        return call(path, *more, **how)

    return refuse


async def test_services_come_and_go_with_an_address(
    inventory: tuple[Inventory, str], start: Start, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    source, url = inventory
    source.groups = [group("127.0.0.1:1", name="one"), group("127.0.0.1:2", "127.0.0.1:3", name="x")]
    exporter = await start(asked(url))
    await until(lambda: names(exporter) == {"one", "x"})

    source.groups = []
    await until(lambda: not names(exporter))

    assert "inventory names no targets any more, it had 3" in caplog.text
    assert source.asked[0]["X-Prometheus-Refresh-Interval-Seconds"] == "1"
    assert exporter.counters.discovery["inventory"].skipped == {}


async def test_a_change_that_could_not_be_passed_on_is_tried_again(
    tmp_path: Path, start: Start, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = await start(files())
    real, faults = exporter.scheduler.apply, [RuntimeError("a fault of ours")]

    def apply(config: WatchConfig) -> None:
        if faults:
            raise faults.pop()
        real(config)

    monkeypatch.setattr(exporter.scheduler, "apply", apply)
    write(tmp_path / "a.json", [group("127.0.0.1:1", name="one")])

    await until(lambda: names(exporter) == {"one"})
    assert exporter.counters.discovery["files"].failures == {Failure.INTERNAL: 1}


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"status": 500}, Failure.STATUS),
        ({"status": 204}, Failure.STATUS),
        ({"content_type": "text/html"}, Failure.CONTENT_TYPE),
        ({"groups": "{"}, Failure.FORMAT),
        ({"groups": "{}"}, Failure.FORMAT),
        ({"groups": "[" * 100_000}, Failure.FORMAT),
        ({"groups": [{"targets": [f"h:{port}" for port in range(10_001)]}]}, Failure.TOO_MANY),
        ({"groups": " " * (10 * 2**20 + 1)}, Failure.TOO_LARGE),
    ],
)
async def test_an_address_that_fails_keeps_its_last_good_list(
    inventory: tuple[Inventory, str],
    start: Start,
    until: Until,
    change: dict[str, Any],
    failure: Failure,
) -> None:
    source, url = inventory
    source.groups = [group("127.0.0.1:1", name="one")]
    exporter = await start(asked(url, timeout="5s"))
    await until(lambda: names(exporter) == {"one"})

    for key, value in change.items():
        setattr(source, key, value)
    await until(lambda: exporter.counters.discovery["inventory"].failures[failure] > 0)

    assert names(exporter) == {"one"}


async def test_an_address_that_is_silent_or_gone_keeps_its_list_and_is_told(
    start: Start, until: Until, free_port: Callable[[], int]
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side gives up
        writer.close()

    silent = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    gone = {**asked(f"http://127.0.0.1:{free_port()}/"), "name": "gone"}
    exporter = await start(asked(f"http://127.0.0.1:{port}/"), gone, services={"own": {}})

    counts = exporter.counters.discovery
    await until(lambda: counts["inventory"].failures[Failure.TIMEOUT])
    await until(lambda: counts["gone"].failures[Failure.CONNECT])

    assert names(exporter) == {"own"}
    async with TestClient(TestServer(make_app(exporter))) as client, client.get("/metrics") as answer:
        text = await answer.text()
    assert 'soulfra_discovery_failures_total{source="gone",reason="connect"}' in text
    assert 'soulfra_discovery_last_success_timestamp_seconds{source="gone"} 0' in text
    silent.close()


async def test_credentials_come_from_files_and_are_read_anew(
    tmp_path: Path, inventory: tuple[Inventory, str], start: Start, until: Until
) -> None:
    source, url = inventory
    secret = tmp_path / "token"
    secret.write_text("tok" + "en-1\n")
    await start(asked(url, bearer_token_file="token"))
    await until(lambda: source.asked)
    secret.write_text("tok" + "en-2\n")
    await until(lambda: len(source.asked) > 1)

    assert [headers["Authorization"] for headers in source.asked[:2]] == ["Bearer token-1", "Bearer token-2"]


async def test_what_is_configured_wins_over_what_is_found_and_it_is_said(
    tmp_path: Path, start: Start, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.json", [group("127.0.0.1:1", name="own"), group("127.0.0.1:2", name="new")])
    exporter = await start(files(), services={"own": {"probes": [{"tcp": "127.0.0.1:9"}]}})
    await until(lambda: names(exporter) == {"own", "new"})

    assert exporter.config.services["own"].probes[0].address() == ("127.0.0.1", 9)
    assert exporter.counters.discovery["files"].skipped == {Skip.TAKEN: 1}
    assert "there is a service own already" in caplog.text
    assert exporter.discoverer.origins() == {"new": "files"}


async def test_a_reload_keeps_what_was_found_and_makes_it_anew_when_the_template_changes(
    inventory: tuple[Inventory, str], tmp_path: Path, start: Start, until: Until
) -> None:
    source, url = inventory
    source.groups = [group("127.0.0.1:1", name="one")]
    exporter = await start(asked(url))
    await until(lambda: names(exporter) == {"one"})
    kept = exporter.world.services["one"].probes["tcp"]
    source.status = 500

    await exporter.reload()
    assert exporter.world.services["one"].probes["tcp"] is kept
    entry = {**asked(url), "refresh": "5s", "service": {**TEMPLATE, "name": "agent-{{ labels.name }}"}}
    config = {"exporter": RHYTHM, "discovery": [entry]}
    (tmp_path / "soulfra.yml").write_text(yaml.safe_dump(config))
    await exporter.reload()
    assert names(exporter) == {"agent-one"}
    assert [counts.refresh for counts in exporter.counters.discovery.values()] == [5.0]

    (tmp_path / "soulfra.yml").write_text(yaml.safe_dump({"exporter": RHYTHM}))
    await exporter.reload()
    assert names(exporter) == set()
    assert exporter.counters.discovery == {}


def test_single_targets_that_are_wrong_are_skipped_and_counted() -> None:
    found = parse(
        json.dumps(
            [
                group("h:1", name="good"),
                group("h:2"),
                group("no port", name="spaces"),
                group("h", name="no-port"),
                group("h:3", name="good"),
                group("h:4", name="///"),
                "not a group",
                {"targets": "h:5"},
                {"targets": [6, "", "x" * 2000, "a\nb"]},
                {"targets": ["h:7"], "labels": {"name": 7}},
            ]
        ).encode(),
        is_json=True,
    )

    made = services_of(found.targets, TEMPLATE, (), gate=OPEN)

    assert list(made.services) == ["good"]
    assert found.malformed == 8
    assert made.skipped == {Skip.LABEL: 1, Skip.INVALID: 2, Skip.TAKEN: 1}


def test_a_target_that_stays_keeps_its_service_object() -> None:
    one, two = Target("h:1", {"name": "one"}), Target("h:2", {"name": "two"})
    before = services_of([one, two], TEMPLATE, (), gate=OPEN)

    after = services_of(
        [Target("h:2", {"name": "two"}), Target("h:1", {"name": "other"})], TEMPLATE, (), before, gate=OPEN
    )

    assert list(after.services) == ["two", "other"]
    assert after.services["two"] is before.services["two"]


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ address }}",
        "{{ labels.name }}",
        "h:1 --option",
        "h:1\r\nX: y",
        "$(reboot):1",
        "h:1'; --",
        "../../etc/passwd",
        "h:99999",
        "\u202eh:1",
    ],
)
def test_hostile_values_stay_strings_or_are_skipped(hostile: str) -> None:
    made = services_of([Target(hostile, {"name": "a"})], TEMPLATE, (), gate=OPEN)

    assert made.services == {}
    assert made.skipped.total() == 1


def test_a_value_is_never_read_as_a_template_itself() -> None:
    template = {"name": "n", "host": "{{ labels.a }}", "probes": []}

    made = services_of([Target("h:1", {"a": "{{ labels.b }}", "b": "x"})], template, (), gate=OPEN)

    assert made.services["n"].host == "{{ labels.b }}"


def test_steps_of_a_target_keep_what_they_capture(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump({"discovery": [files(service={"probes": [STEPS]})]}))

    [source] = load_config(file, WatchConfig).discovery
    made = services_of([Target("h:1", {"path": "private"})], source.service, (), gate=OPEN)

    [probe] = made.services["h-1"].probes
    assert isinstance(probe, StepsProbe)
    assert [step.http for step in probe.steps] == ["http://h:1/login", "http://h:1/private?t={{ token }}"]


@pytest.mark.parametrize("hostile", ["{{ token }}", "x{{token", "{"])
def test_no_target_can_ask_for_what_steps_capture(hostile: str) -> None:
    asks = {"http": "http://{{ address }}/", "headers": {"X-A": "{{{ labels.path }} token }}"}}
    template = {"probes": [{"steps": [*STEPS["steps"], asks]}]}

    made = services_of([Target("h:1", {"path": hostile})], template, (), gate=OPEN)

    assert made.skipped == {Skip.INVALID: 1}
    assert "would be read as a captured value" in made.example


def test_every_kind_either_only_talks_or_looks_at_this_machine() -> None:
    assert set(KINDS) - set(NETWORK_KINDS) == {"container", "file", "filesystem", "command", "unix"}
    assert set(NETWORK_KINDS) <= set(KINDS)


def test_no_target_can_choose_a_socket_of_this_machine() -> None:
    template = {"name": "n", "probes": [{"redis": "{{ address }}"}]}

    made = services_of([Target("unix:///run/redis.sock")], template, (), gate=OPEN)

    assert made.skipped == {Skip.INVALID: 1}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("10.0.0.1:8080", "10.0.0.1-8080"),
        ("[::1]:80", "1-80"),
        ("https://a.test/x?y", "https-a.test-x-y"),
        ("_x", "x"),
        ("a" * 63, "a" * 63),
        ("a" * 64, "a" * 54 + "-ffa9c9f9"),
    ],
)
def test_names_are_made_of_addresses(text: str, name: str) -> None:
    assert name_of(text)[:55] == name[:55]
    assert len(name_of(text)) == len(name)


@pytest.mark.parametrize(
    "text",
    [
        b"- &a {targets: ['h:1'], labels: {name: x}}\n- *a\n",
        b"- &a [*a]\n",
        b"- {targets: [" + b"[" * 5000 + b"\n",
        b"\x00\x01",
        b"- !!python/object/apply:os.system ['true']\n",
        b"x: 1\n",
    ],
)
def test_hostile_yaml_is_a_failure_of_the_source(text: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        parse(text, is_json=False)

    assert caught.value.failure is Failure.FORMAT


def test_yaml_has_a_smaller_limit_because_it_is_slower_to_read() -> None:
    with pytest.raises(SourceError) as caught:
        parse(b"#" * (discovered.YAML_LIMIT + 1), is_json=False)

    assert caught.value.failure is Failure.TOO_LARGE


async def test_thousands_of_targets_do_not_hold_the_loop(tmp_path: Path, start: Start, until: Until) -> None:
    write(tmp_path / "a.json", [group(f"127.0.0.1:{port}", name=f"n{port}") for port in range(1, 5001)])
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    task = asyncio.create_task(watch())
    source = files(service={"name": "{{ labels.name }}", "host": "{{ address }}"})
    exporter = await start(source)
    await until(lambda: len(names(exporter)) == 5000)
    task.cancel()

    assert longest < 2.0  # generous: the machine may be busy with other tests


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ({"service": {}}, "discovery[0]: a source needs one of the keys file_sd or http_sd"),
        (
            {"file_sd": {"files": ["a.json"]}, "http_sd": {"url": "http://x"}, "service": {}},
            "discovery[0]: a source needs one of the keys file_sd or http_sd",
        ),
        ({"file_sd": {"files": ["a.json"]}}, "discovery[0].service: is missing"),
        ({"file_sd": {"files": []}, "service": {}}, "discovery[0].file_sd.files: "),
        ({"file_sd": {"files": ["a.txt"]}, "service": {}}, "must end with .json, .yml or .yaml"),
        ({"file_sd": {"files": ["*/a.json"]}, "service": {}}, "may have * in its last part only"),
        ({"file_sd": {"files": ["a.json"]}, "refresh": "100ms", "service": {}}, "must be at least 1s"),
        ({"http_sd": {"url": "ftp://x"}, "service": {}}, "discovery[0].http_sd.url: must be an http://"),
        (
            {
                "http_sd": {
                    "url": "http://x",
                    "bearer_token_file": "x",
                    "basic_auth": {"username": "a", "password_file": "b"},
                },
                "service": {},
            },
            "give basic_auth or bearer_token_file, not both",
        ),
        (
            files(service={"probes": [{"tcp": "{{ addres }}"}]}),
            "known are {{ address }} and {{ labels.NAME }}",
        ),
        (
            files(service={"probes": [{"tcp": "{% x %}"}]}),
            "discovery[0].service.probes[0].tcp: must be HOST:PORT",
        ),
        (files(service={"probes": [{"pign": "x"}]}), "discovery[0].service.probes[0]: a probe needs one of"),
        (files(service={"timeout_threshold": 5}), "discovery[0].service.timeout_threshold: a duration"),
        (files(service={"restart": {"command": ["{{ address }}"]}}), "restart cannot be given for services"),
        (files(service={"hooks": {}}), "hooks cannot be given for services that are found"),
        (files(service={"process": {"match": "{{ labels.x }}"}}), "process cannot be given for services"),
        (files(service={"logs": ["{{ labels.x }}"]}), "logs cannot be given for services that are found"),
        (
            files(service={"probes": [{"command": ["{{ address }}"]}]}),
            "templates are for probes of the kinds http, steps, tcp",
        ),
        (
            files(service={"probes": [{"steps": [{"http": "http://{{ address }}/{{ tokn }}"}]}]}),
            "known are {{ address }}, {{ labels.NAME }} and what the steps capture",
        ),
        (
            files(
                service={"probes": [{"steps": [{"http": "http://x", "capture": {"address": {"json": "a"}}}]}]}
            ),
            "discovery[0].service: address is the target's here; capture it under another name",
        ),
        (
            files(service={"probes": [STEPS, {"tcp": "{{ token }}"}]}),
            "known are {{ address }} and {{ labels.NAME }}",
        ),
        (
            files(service={"probes": [{"steps": [{"http": "http://x", "socket": "/{{ labels.x }}"}]}]}),
            "steps.socket names something of this machine; no template may choose it",
        ),
        (
            files(service={"probes": [{"http": "https://x", "tls": {"ca_file": "{{ labels.x }}"}}]}),
            "tls.ca_file names something of this machine; no template may choose it",
        ),
    ],
)
def test_each_rule_of_discovery_names_the_place_that_breaks_it(
    tmp_path: Path, entry: dict[str, Any], mistake: str
) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump({"discovery": [entry]}))

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig)

    found = [f"{each.place}: {each.message}" for each in caught.value.mistakes]
    assert any(mistake in text for text in found), found


def test_two_sources_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump({"discovery": [files(), files()]}))

    with pytest.raises(ConfigError, match="is the second source named 'files'"):
        load_config(file, WatchConfig)


def test_where_a_template_stands_its_value_is_judged_with_the_target(tmp_path: Path) -> None:
    service = {"probes": [{"tcp": "{{ address }}", "timeout": "{{ labels.timeout }}"}]}
    file = tmp_path / "soulfra.yml"
    file.write_text(yaml.safe_dump({"discovery": [files(service=service)]}))

    [source] = load_config(file, WatchConfig).discovery
    made = services_of(
        [Target("h:1", {"timeout": "3s"}), Target("h:2", {"timeout": "3"})], source.service, (), gate=OPEN
    )

    assert made.services["h-1"].probes[0].timeout == 3.0
    assert made.skipped == {Skip.INVALID: 1}


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "exporter")


async def seen_of(exporter: Exporter, until: Until, name: str) -> tuple[str, str]:
    """Return reason and detail of the first look at a service that was found."""
    await until(lambda: name in exporter.world.services)
    probe = next(iter(exporter.world.services[name].probes.values()))
    await until(lambda: probe.last is not None)
    assert probe.last is not None
    return probe.last.outcome.reason or "", probe.last.outcome.detail


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::ffff:127.0.0.1]:1"])
async def test_what_others_name_does_not_choose_this_machine(
    tmp_path: Path, start: Start, until: Until, address: str
) -> None:
    write(tmp_path / "a.json", [group(address, name="one")])
    entry = files()
    del entry["allow_targets"]

    reason, detail = await seen_of(await start(entry), until, "one")

    assert reason == "forbidden"
    assert detail.endswith("in allow_targets of discovery files")


async def test_an_entry_opens_this_machine_to_what_others_name(
    tmp_path: Path, start: Start, until: Until, serve: Any, free_port: Callable[[], int]
) -> None:
    port = free_port()
    serve(port)
    write(tmp_path / "a.json", [group(f"127.0.0.1:{port}", name="one")])

    assert await seen_of(await start(files(allow_targets=[f"127.0.0.1:{port}"])), until, "one") == ("", "")


async def test_what_others_name_is_not_left_by_a_redirect(tmp_path: Path, start: Start, until: Until) -> None:
    async def redirect(request: web.Request) -> web.Response:
        place = f"http://127.0.0.2:{request.url.port}/inner"
        return web.Response(status=302, headers={"Location": place})

    app = web.Application()
    app.router.add_get("/", redirect)
    server = TestServer(app)
    await server.start_server()
    write(tmp_path / "a.json", [group(f"127.0.0.1:{server.port}", name="one")])
    template = {"name": "{{ labels.name }}", "probes": [{"http": "http://{{ address }}/", "redirects": 3}]}

    exporter = await start(files(service=template, allow_targets=["127.0.0.1"]))
    reason, detail = await seen_of(exporter, until, "one")
    await server.close()

    assert reason == "forbidden"
    assert "127.0.0.2" in detail


async def test_a_debug_look_goes_through_the_same_gate(
    tmp_path: Path, start: Start, until: Until, serve: Any, free_port: Callable[[], int]
) -> None:
    port = free_port()
    serve(port)
    write(tmp_path / "a.json", [group(f"127.0.0.1:{port}", name="one")])
    exporter = await start(files(allow_targets=["10.0.0.0/8"]))
    await seen_of(exporter, until, "one")

    async with TestClient(TestServer(make_app(exporter))) as client:
        answer = await client.get("/probe", params={"target": "one", "debug": "true"})
        text = await answer.text()

    assert "FAILED: forbidden" in text


async def test_another_list_is_asked_from_the_reload_on(tmp_path: Path, start: Start, until: Until) -> None:
    write(tmp_path / "a.json", [group("127.0.0.1:1", name="one")])
    exporter = await start(files())
    assert (await seen_of(exporter, until, "one"))[0] == "connect_refused"
    file = tmp_path / "soulfra.yml"
    source = files(allow_targets=["10.0.0.0/8"])
    file.write_text(yaml.safe_dump({"exporter": RHYTHM, "discovery": [source]}))

    await exporter.reload()

    def is_forbidden() -> bool:
        last = exporter.world.services["one"].probes["tcp"].last
        return last is not None and last.outcome.reason == "forbidden"

    await until(is_forbidden)


def test_a_service_that_others_named_keeps_its_gate() -> None:
    gate = gate_of(("10.0.0.0/8",))

    made = services_of([Target("h:1", {"name": "one"})], TEMPLATE, (), gate=gate)

    assert made.services["one"].gate == gate


@pytest.mark.parametrize("text", [b"[" + b"[]," * 3_000_000 + b"[]]", b"[" + b"{}," * 3_000_000 + b"{}]"])
def test_a_list_of_nothing_but_values_is_not_read(text: bytes) -> None:
    began = time.monotonic()

    with pytest.raises(SourceError, match="more than 500,000 values") as caught:
        parse(text, is_json=True)

    assert caught.value.failure is Failure.TOO_LARGE
    assert time.monotonic() - began < 0.5


def test_a_list_of_all_targets_with_many_labels_is_read() -> None:
    labels = {f"label_{number}": "value" for number in range(40)}
    text = json.dumps([group("10.0.0.1:80", **labels)] * discovered.TARGETS_LIMIT).encode()

    assert len(parse(text, is_json=True).targets) == discovered.TARGETS_LIMIT
